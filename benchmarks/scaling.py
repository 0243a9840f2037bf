"""How much faster two processes of `evaluate` are than one, with their start."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks.command import moreaugrad, on_cifar, started
from benchmarks.context import Context
from benchmarks.measures import interval, times_as_fast
from benchmarks.results import Result, Table
from benchmarks.timing import timed

IMAGES, QUICK, ROUNDS = 1024, 32, 4
BLOCK = 16
ONE, JOINED, APART = "one process", "two by torchrun", "two commands"


def run(context: Context) -> Result:
    images, rounds = (QUICK, 2) if context.quick else (IMAGES, ROUNDS)
    ways = {
        ONE: moreaugrad, JOINED: partial(moreaugrad, processes=2), APART: _two_commands
    }  # fmt: skip
    seconds = torch.empty(rounds, len(ways), dtype=torch.float64)
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
        print("  " + " ".join(f"{each:.1f}" for each in seconds[turn].tolist()), flush=True)
    rows: list[list[object]] = []
    for column, name in enumerate(ways):
        faster = partial(times_as_fast, seconds, 0, column)
        ends = interval(faster, rounds)
        rows.append([
            name, float(seconds[:, column].median()), round(faster(torch.arange(rounds)), 3),
            "–" if name == ONE else f"{ends[0]:.2f} to {ends[1]:.2f}",
        ])  # fmt: skip
    return Result(
        title="Two processes of evaluate",
        settings={"images": images, "block": BLOCK, "rounds": rounds},
        figures={"times as fast as one process": {str(row[0]): row[2] for row in rows[1:]}},
        tables=[
            Table(
                caption="SmoothGrad of 64 noise samples on a ResNet-20 and images of CIFAR-10, "
                "whole commands, one thread in each process.",
                header=["", "seconds", "times as fast as one process", "95 % interval"],
                rows=rows,
            )
        ],
        notes=["medians of rounds in turns, and bootstrap intervals of their ratios"],
    )


def _two_commands(*command: str) -> None:
    both = [started(*command) for _ in range(2)]
    if any([process.wait() for process in both]):  # noqa: C419  both have to end
        raise RuntimeError("a command failed")
