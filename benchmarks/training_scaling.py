"""How much faster two processes train than one: exactly, and by torch's DistributedDataParallel."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import multiprocessing

from benchmarks.context import Context
from benchmarks.measures import interval, times_as_fast
from benchmarks.results import Result, Table
from moreaugrad.runs.network import computing
from moreaugrad.runs.plans.common import CELLS
from moreaugrad.runs.plans.train import (
    AugmentPlan,
    OptimiserPlan,
    ProtocolPlan,
    StartPlan,
    TrainDataPlan,
    TrainPlan,
)
from moreaugrad.runs.processes import Processes, processes
from moreaugrad.runs.timing import clock
from moreaugrad.runs.train import TrainRun

PROCESSES, ROUNDS, STEPS, SIZE = 2, 21, 5, 64
ONE, EXACT, DDP = "one process", f"{PROCESSES}, exact", f"{PROCESSES}, --ddp"
PLAIN = ProtocolPlan(name="plain")
FAST = ProtocolPlan(name="fast", penalty="l1", epsilon=(0.02,))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training on cells. batch: images of a step, in all processes."""

    label: str
    model: StartPlan
    protocol: ProtocolPlan
    batch: int

    def plan(self, device: str) -> TrainPlan:
        data = TrainDataPlan(source=CELLS, images=2 * self.batch * STEPS)
        return TrainPlan(
            data=data, model=self.model, protocol=self.protocol, batch=self.batch, device=device,
            threads=1, augment=AugmentPlan(size=SIZE), optimiser=OptimiserPlan(name="sgd", lr=1e-4),
        )  # fmt: skip


BUILTIN = StartPlan(name="builtin")
CASES = (
    Case(label="built-in network, plain", model=BUILTIN, protocol=PLAIN, batch=64),
    Case(label="built-in network, fast", model=BUILTIN, protocol=FAST, batch=64),
    Case(
        label="ResNet-18, plain", protocol=PLAIN, batch=32,
        model=StartPlan(name="torchvision:resnet18", from_scratch=True),
    ),
)  # fmt: skip


def run(context: Context) -> Result:
    cases, rounds = (CASES[:1], 2) if context.quick else (CASES, ROUNDS)
    figures: dict[str, dict[str, dict[str, object]]] = {}
    rows: list[list[object]] = []
    for case in cases:
        seconds = _measured(case.plan(context.device.type), rounds)
        figures[case.label] = {}
        for column, way in enumerate(seconds):
            each = torch.tensor(list(seconds.values()), dtype=torch.float64).T
            median = float(each[:, column].median())
            found: dict[str, object] = {"seconds a step": median}
            cells: list[object] = ["–"] * 4
            for base, other in enumerate(list(seconds)[:column]):
                faster = partial(times_as_fast, each, base, column)
                ratio = round(faster(torch.arange(rounds)), 3)
                low, high = interval(faster, rounds)
                cells[2 * base : 2 * base + 2] = [ratio, f"{low:.2f} to {high:.2f}"]
                found[f"times as fast as {other}"] = [ratio, low, high]
            figures[case.label][way] = found
            rows.append([case.label, way, round(median, 4), *cells])
            print("  " + " ".join(map(str, rows[-1])), flush=True)
    return Result(
        title="Training by two processes",
        settings={"rounds": rounds, "steps": STEPS, "size": SIZE, "processes": PROCESSES},
        figures=figures,
        tables=[
            Table(
                caption="Steps on batches of the same size, one thread in each process.",
                header=["", "trained by", "seconds a step", "times as fast as one process",
                        "95 % interval", "times as fast as exact", "95 % interval"],
                rows=rows,
            )
        ],
        notes=[
            f"{rounds} rounds in turns in the same processes, {STEPS} steps each, with loading",
            "exact: the same bytes for any number of processes; --ddp: the same up to rounding",
            "times as fast: median of the ratios of rounds, and its bootstrap interval",
            "one process: the others wait meanwhile, without computing anything",
        ],
    )  # fmt: skip


def _measured(plan: TrainPlan, rounds: int) -> Mapping[str, list[float]]:
    """Seconds of a step in each round, by how it is trained."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds.json"
        multiprocessing.spawn(_work, (port, plan, rounds, file), nprocs=PROCESSES)  # type: ignore[no-untyped-call]
        found: Mapping[str, list[float]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _work(rank: int, port: str, plan: TrainPlan, rounds: int, file: Path) -> None:
    """One of the processes; the first writes the file."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    with processes() as team:
        runs = {
            ONE: TrainRun(plan, team.alone()), EXACT: TrainRun(plan, team),
            DDP: TrainRun(replace(plan, ddp=True), team),
        }  # fmt: skip
        seconds: dict[str, list[float]] = {way: [] for way in runs}
        for turn in range(rounds + 1):
            for way, training in runs.items():
                took = _steps(training, turn, team)
                if turn:  # the first one warms up
                    seconds[way].append(took)
        if rank == 0:
            file.write_text(json.dumps(seconds), encoding="utf-8")


def _steps(training: TrainRun, turn: int, team: Processes) -> float:
    """Seconds of a step."""
    plan, device = training.plan, training.network.device
    team.wait()
    began = clock(device)
    if training.processes.size > 1 or team.rank == 0:
        with computing(training.compute):
            batches = islice(training.prepared.batches(turn), STEPS)
            for number, pieces in enumerate(batches):
                training.trainer.step(pieces, count=plan.batch, step=turn * STEPS + number)
    team.wait()
    return (clock(device) - began) / STEPS
