"""How much faster two processes of `evaluate` are than one, with their start and without."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.command import moreaugrad, on_cifar, started
from benchmarks.context import Context
from benchmarks.measures import interval, times_as_fast
from benchmarks.results import Result, Table
from benchmarks.timing import timed

IMAGES, QUICK, ROUNDS = 640, 64, 3
BLOCK = 16
ONE, JOINED, APART = "one process", "two by torchrun", "two commands"


def run(context: Context) -> Result:
    images, rounds = (QUICK, 2) if context.quick else (IMAGES, ROUNDS)
    ways: dict[str, Callable[..., None]] = {
        ONE: moreaugrad, JOINED: partial(moreaugrad, processes=2), APART: _two_commands
    }  # fmt: skip
    seconds, steady = torch.empty(2, rounds, len(ways), dtype=torch.float64)
    for turn in range(rounds):
        for column, way in enumerate(ways.values()):
            with tempfile.TemporaryDirectory() as folder:
                command = on_cifar(
                    Path(folder).resolve() / "out",
                    "smoothgrad",
                    split="test",
                    images=images,
                    block=BLOCK,
                )
                seconds[turn, column] = timed(lambda: way(*command))  # noqa: B023
                steady[turn, column] = _of_an_image(Path(folder) / "out", 2 if column else 1)
        print("  " + " ".join(f"{each:.1f}" for each in seconds[turn].tolist()), flush=True)
    rows: list[list[object]] = [
        [
            name, float(seconds[:, column].median()), *_faster(seconds, column),
            float(1 / steady[:, column].median()), *_faster(steady, column),
        ]
        for column, name in enumerate(ways)
    ]  # fmt: skip
    return Result(
        title="Two processes of evaluate",
        settings={"images": images, "block": BLOCK, "rounds": rounds},
        figures={
            "times as fast as one process": {str(row[0]): row[2] for row in rows[1:]},
            "without the start": {str(row[0]): row[5] for row in rows[1:]},
        },
        tables=[
            Table(
                caption="SmoothGrad of 64 noise samples on a ResNet-20 and images of CIFAR-10, "
                "one thread in each process: whole commands, and without their start (from when "
                "each process has finished a block of images).",
                header=["", "seconds", "times as fast as one process", "95 % interval",
                        "images a second", "times as fast without the start", "95 % interval"],
                rows=rows,
            )
        ],
        notes=["medians of rounds in turns, and bootstrap intervals of their ratios"],
    )  # fmt: skip


def _faster(seconds: Tensor, column: int) -> list[object]:
    """How many times as fast a way is as the first one, and the interval."""
    faster, rounds = partial(times_as_fast, seconds, 0, column), len(seconds)
    if not column:
        return [1, "–"]
    low, high = interval(faster, rounds)
    return [round(faster(torch.arange(rounds)), 3), f"{low:.2f} to {high:.2f}"]


def _of_an_image(run: Path, processes: int) -> float:
    """Seconds, from when each process has finished a block until all have, by their files."""
    finished = sorted(file.stat().st_mtime for file in run.glob("methods/*/*.jsonl"))
    later = len(finished) - processes
    return (finished[-1] - finished[processes - 1]) / (BLOCK * later)


def _two_commands(*command: str) -> None:
    both = [started(*command) for _ in range(2)]
    if any([process.wait() for process in both]):  # noqa: C419  both have to end
        raise RuntimeError("a command failed")
