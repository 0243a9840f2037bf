"""An evaluation as an array of two jobs by submitit: each does its shard of one folder.

Without Slurm the jobs are processes of this machine. The one that ends last writes the tables.

    python examples/array_submitit.py FOLDER
"""

import shutil
import sys

import submitit

JOBS = 2
COMMAND = [
    sys.executable, "-m", "moreaugrad", "evaluate", "--model", "builtin", "--data", "cells",
    "--images", "8", "--block", "2", "--threads", "1", "--methods", "simple-gradient,smoothgrad",
    "--noise-samples", "4", "--metrics", "gini", "--quiet",
]  # fmt: skip


def main(folder: str) -> None:
    cluster = "slurm" if shutil.which("srun") else "local"
    executor = submitit.AutoExecutor(folder=f"{folder}/log", cluster=cluster)
    executor.update_parameters(timeout_min=60, cpus_per_task=1)
    # On a cluster also gpus_per_node=1, and --device cuda above.
    commands = [
        [*COMMAND, "--out", f"{folder}/run", "--shard", f"{number}/{JOBS}"]
        for number in range(JOBS)
    ]
    with executor.batch():
        functions = [submitit.helpers.CommandFunction(command) for command in commands]
        jobs = [executor.submit(function) for function in functions]
    for job in jobs:
        job.result()
    print(f"tables in {folder}/run")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["."])
