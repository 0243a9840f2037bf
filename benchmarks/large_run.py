"""A run of many images: speed and memory from its beginning to its end, kills, and two commands."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.command import on_cifar, started
from benchmarks.context import Context
from benchmarks.results import Result, Table

IMAGES, QUICK = 10_000, 256
PARTS = 3
EVERY = 0.1
"""Seconds between two looks."""


@dataclass(frozen=True)
class Look:
    """At a moment: the units of maps that are finished, and the command's memory in MiB."""

    at: float
    units: int
    memory: float


def run(context: Context) -> Result:
    images = QUICK if context.quick else IMAGES
    block = 16 if context.quick else 64
    units = -(-images // block)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name).resolve() / "out"  # one name: configurations hold paths
        command = on_cifar(out, "simple-gradient", split="train", images=images, block=block)
        looks = _watched(started(*command), out, units)
        expected = _kept(out)
        kills = [units * part // PARTS for part in range(1, PARTS)]
        for number in kills:
            _watched(started(*command), out, number, kill=True)
        _watched(started(*command), out, units)
        killed = _kept(out) == expected
        began = time.perf_counter()
        both = [started(*command) for _ in range(2)]
        codes = [process.wait() for process in both]
        shared = _kept(out) == expected and codes == [0, 0]
        took = time.perf_counter() - began
    rows = _thirds(looks, units, block)
    return Result(
        title="A run of many images",
        settings={"images": images, "block": block, "kills": kills},
        figures={
            "images_per_second": [row[1] for row in rows],
            "memory": [row[2] for row in rows],
            "same_after_kills": killed, "same_by_two_commands": shared,
            "seconds": looks[-1].at - looks[0].at, "seconds_of_two_commands": took,
        },
        tables=[
            Table(
                caption="Simple gradients of CIFAR-10 by a ResNet-20, one command on one thread.",
                header=["part of the run", "images a second", "resident memory at its end, MiB"],
                rows=rows,
            )
        ],
        notes=[
            (
                f"killed (SIGKILL) after {' and '.join(map(str, kills))} of {units} units of maps "
                f"and started again: the files are {'the same' if killed else 'OTHERS'}"
            ),
            (
                f"by two commands on one folder in {took:.0f} s, with loading: the files are "
                f"{'the same' if shared else 'OTHERS'}"
            ),
            "images a second: of the maps, after all images have been read and classified",
        ],
    )  # fmt: skip


def _watched(
    process: subprocess.Popen[bytes], out: Path, units: int, *, kill: bool = False
) -> list[Look]:
    """Looks at a command from its first unit of maps on to its end, or to its death after so many
    units. Errors: RuntimeError for a command that ends otherwise."""
    looks: list[Look] = []
    folder = out / "methods" / "simple-gradient"
    while process.poll() is None:
        done = sum(1 for _ in folder.glob("*.sha256")) if folder.is_dir() else 0
        if done and (not looks or done > looks[-1].units):
            with suppress(RuntimeError):  # it has ended at this moment
                looks.append(Look(time.perf_counter(), done, machine.resident_mib(process.pid)))
        if kill and done >= units:
            process.kill()
        time.sleep(EVERY)
    code = process.wait()
    if code != (-9 if kill else 0) or not looks:
        raise RuntimeError(f"expected a command that works until it is killed or done, got {code}")
    return looks


def _thirds(looks: list[Look], units: int, block: int) -> list[list[object]]:
    rows: list[list[object]] = []
    before = looks[0]
    for part in range(1, PARTS + 1):
        wanted = looks[0].units + (units - looks[0].units) * part // PARTS
        end = min(looks[1:], key=lambda look: abs(look.units - wanted))
        rate = block * (end.units - before.units) / max(EVERY, end.at - before.at)
        rows.append([f"{part} of {PARTS}", rate, end.memory])
        before = end
    return rows


def _kept(out: Path) -> dict[str, bytes]:
    """The files of a run, which are removed."""
    files = (path for path in out.rglob("*") if path.is_file())
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
    shutil.rmtree(out)
    return found
