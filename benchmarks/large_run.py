"""Runs of many images: speed and memory from its beginning to its end, kills, and two commands."""

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

CASES = {"simple-gradient": 50_000, "smoothgrad": 2_000}
"""How many images of the training set, by method."""
QUICK = 256
BLOCK = 64
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
    cases = dict.fromkeys(CASES, QUICK) if context.quick else CASES
    block = 16 if context.quick else BLOCK
    found = [_measured(method, images, block) for method, images in cases.items()]
    return Result(
        title="Runs of many images",
        settings={"images": cases, "block": block},
        figures={
            one.method: {
                "images_per_second": [row[2] for row in one.rows],
                "memory": [row[3] for row in one.rows], "kills": one.kills,
                "same_after_kills": one.killed, "same_by_two_commands": one.shared,
                "seconds": one.seconds, "seconds_of_two_commands": one.seconds_of_two,
            }
            for one in found
        },
        tables=[
            Table(
                caption="Maps of CIFAR-10 by a ResNet-20, one command on one thread.",
                header=["", "part", "images a second", "resident memory at its end, MiB"],
                rows=[row for one in found for row in one.rows],
            ),
            Table(
                caption="The same run, killed (SIGKILL) twice and started again, and by two "
                "commands on one folder: whether all files are the same.",
                header=[
                    "", "units", "killed after", "same after kills", "same by two commands",
                    "seconds of the maps", "seconds of two commands, with loading",
                ],
                rows=[
                    [
                        one.method, one.units, " and ".join(map(str, one.kills)),
                        "yes" if one.killed else "NO", "yes" if one.shared else "NO",
                        one.seconds, one.seconds_of_two,
                    ]
                    for one in found
                ],
            ),
        ],
        notes=["images a second: of the maps, after all images have been read and classified"],
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A method's runs. rows: of thirds of the run."""

    method: str
    units: int
    kills: list[int]
    rows: list[list[object]]
    killed: bool
    shared: bool
    seconds: float
    seconds_of_two: float


def _measured(method: str, images: int, block: int) -> _Case:
    units = -(-images // block)
    kills = [units * part // PARTS for part in range(1, PARTS)]
    with tempfile.TemporaryDirectory() as name:
        out = Path(name).resolve() / "out"  # one name: configurations hold paths
        command = on_cifar(out, method, split="train", images=images, block=block)
        maps = out / "methods" / method
        looks = _watched(started(*command), maps, units)
        expected = _kept(out)
        for number in kills:
            _watched(started(*command), maps, number, kill=True)
        _watched(started(*command), maps, units)
        killed = _kept(out) == expected
        began = time.perf_counter()
        both = [started(*command) for _ in range(2)]
        codes = [process.wait() for process in both]
        took = time.perf_counter() - began
        shared = _kept(out) == expected and codes == [0, 0]
    rows = [[method, *row] for row in _thirds(looks, units, block)]
    return _Case(
        method=method, units=units, kills=kills, rows=rows, killed=killed, shared=shared,
        seconds=looks[-1].at - looks[0].at, seconds_of_two=took,
    )  # fmt: skip


def _watched(
    process: subprocess.Popen[bytes], maps: Path, units: int, *, kill: bool = False
) -> list[Look]:
    """Looks at a command from its first unit of maps on to its end, or to its death after so many
    units. Errors: RuntimeError for a command that ends otherwise."""
    looks: list[Look] = []
    while process.poll() is None:
        done = sum(1 for _ in maps.glob("*.sha256")) if maps.is_dir() else 0
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
