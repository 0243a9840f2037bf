"""The package's commands, run as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.subjects import VARIABLE, data_folder
from moreaugrad.files.atomic import write_atomically
from moreaugrad.runs.plans.explain import EvaluatePlan
from moreaugrad.runs.plans.toml import plan_toml


def moreaugrad(*arguments: str, processes: int = 1) -> None:
    """`moreaugrad ARGUMENTS` in one-threaded processes of its own, quietly, which find the data
    folder's networks."""
    with started(*arguments, processes=processes) as running:
        code = running.wait()
    if code:
        raise subprocess.CalledProcessError(code, running.args)


def evaluated(plan: EvaluatePlan, out: Path, *arguments: str, processes: int = 1) -> Path:
    """The folder of a finished run of `evaluate`, which goes on where an earlier one ended; its
    plan is next to it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_name(f"{out.name}.toml")
    write_atomically(file, plan_toml(plan, file.parent).encode())
    command = ["evaluate", "--config", str(file), "--trust", "--out", str(out), *arguments]
    moreaugrad(*command, processes=processes)
    return out


def started(
    *arguments: str, processes: int = 1, stdout: int | None = None
) -> subprocess.Popen[bytes]:
    """The same, at work."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), "-m", "moreaugrad", *arguments]
    models = [str(data_folder() / "models")] if VARIABLE in os.environ else []
    paths = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT), *models])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stdout)


def on_cifar(out: Path, method: str, *, split: str, images: int, block: int) -> list[str]:
    """The arguments of a run of `evaluate` without attacks: a ResNet-20 on images of CIFAR-10."""
    data = data_folder()
    return [
        "evaluate", "--data", str(data / "cifar10-jpeg.zip"), "--split", split,
        "--images", str(images), "--block", str(block), "--maps", "0",
        "--model", "benchmarks.cifar_resnet:resnet20",
        "--weights", str(data / "models" / "resnet20-cifar10.safetensors"),
        "--methods", method, "--metrics", "gini", "--device", "cpu", "-q", "--out", str(out),
    ]  # fmt: skip
