"""Seconds of `import moreaugrad` and of `moreaugrad --help`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.timing import Work, interleaved

ROUNDS = 9


def run(context: Context) -> Result:
    rounds = 2 if context.quick else ROUNDS
    python = sys.executable
    commands = {
        "import torch, captum": [python, "-c", "import torch, captum"],
        "import moreaugrad": [python, "-c", "import moreaugrad"],
        "from moreaugrad import SparseMoreauGrad": [
            python,
            "-c",
            "from moreaugrad import SparseMoreauGrad",
        ],
    }
    script = shutil.which("moreaugrad", path=str(Path(python).parent))
    if (
        script is not None
        and not subprocess.run([script, "--help"], capture_output=True).returncode
    ):
        commands["moreaugrad --help"] = [script, "--help"]
    works: dict[str, Work] = {
        name: partial(subprocess.run, command, check=True, capture_output=True)
        for name, command in commands.items()
    }
    seconds = interleaved(works, rounds)
    # Names are loaded when they are used, so the honest figure is that of using one.
    plain = seconds["import torch, captum"]
    ratios = {name: spent / plain for name, spent in seconds.items() if "import" in name}
    return Result(
        title="Start-up",
        settings={"rounds": rounds},
        figures={"seconds": seconds, "over torch and captum": ratios},
        tables=[
            Table(
                caption="Seconds of a fresh process (medians of turns, files cached).",
                header=["what", "seconds", "over torch and captum"],
                rows=[[name, spent, spent / plain] for name, spent in seconds.items()],
            )
        ],
        notes=[] if "moreaugrad --help" in commands else ["moreaugrad --help does not run here"],
    )
