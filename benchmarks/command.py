"""The package's commands, run as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import ROOT


def moreaugrad(*arguments: str, processes: int = 1, modules: Sequence[Path] = ()) -> None:
    """`moreaugrad ARGUMENTS` in one-threaded processes of its own, quietly. modules: folders of
    networks that are code."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), "-m", "moreaugrad", *arguments]
    paths = os.pathsep.join(
        [str(ROOT), *map(str, modules), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
