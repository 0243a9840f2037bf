"""How many samples a second the loader gives, compared with the training that it feeds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from moreaugrad.data.augment import Augment
from moreaugrad.data.examples import CELLS, open_examples
from moreaugrad.data.loading import Batch, Loader, prepare
from moreaugrad.models import load_model

ROUNDS, COUNT, STEPS = 5, 1024, 3


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained on what, as plainly as can be: the loader has the least time then."""

    label: str
    source: str
    network: Callable[[], nn.Module]
    augment: Augment
    batch: int


def _cases() -> list[Case]:
    return [
        Case(
            label=f"cells {size}, built-in network", source=CELLS, batch=64,
            network=lambda: load_model("builtin").module, augment=Augment(size=size),
        )
        for size in (48, 64)
    ] + [
        Case(
            label="CIFAR-10, ResNet-20", source="cifar10-jpeg.zip", batch=128,
            network=lambda: subjects.load("resnet20").module, augment=Augment(size=32, pad=4),
        ),
        Case(
            label="Imagenette 128, SqueezeNet", source="imagenette-128.zip", batch=32,
            network=lambda: subjects.load("squeezenet").module, augment=Augment(size=128),
        ),
    ]  # fmt: skip


def run(context: Context) -> Result:
    count, rounds = (256, 1) if context.quick else (COUNT, ROUNDS)
    rows: list[list[object]] = []
    figures: dict[str, dict[str, float]] = {}
    for case in _cases():
        found = _measured(case, count, rounds)
        figures[case.label] = found
        rows.append([case.label, *(round(rate) for rate in list(found.values())[:-1])])
        rows[-1].append(round(found["ratio"], 1))
        print("  " + " ".join(map(str, rows[-1])), flush=True)
    return Result(
        title="The loader compared with training",
        settings={"examples": count, "rounds": rounds, "workers": 0},
        figures=figures,
        tables=[
            Table(
                caption="Samples a second; training is one plain step of SGD for each batch.",
                header=["", "read once", "loader", "read again", "training", "loader / training"],
                rows=rows,
            )
        ],
        notes=[
            "the best of the rounds, loader and training in turns",
            "read once: from the archive, or drawn, before training",
            "loader: an epoch from memory, augmented, with no worker processes",
            "read again: the same where nothing is kept in memory",
        ],
    )


def _measured(case: Case, count: int, rounds: int) -> dict[str, float]:
    folder = Path() if case.source == CELLS else subjects.data_folder()
    source = case.source if case.source == CELLS else folder / case.source
    whole = open_examples(source, size=case.augment.size)
    some = whole.subset(torch.arange(0, len(whole), max(1, len(whole) // count)).tolist()[:count])
    began = time.perf_counter()
    kept = prepare(some, resize=case.augment.first)
    first = len(some) / (time.perf_counter() - began)
    loaders = {
        "loader": Loader(kept, case.augment, batch=case.batch),
        "read again": Loader(some, case.augment, batch=case.batch),
    }
    network = case.network().train().requires_grad_(True)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0)
    batches = list(islice(loaders["loader"].epoch(0), STEPS))
    works: dict[str, Callable[[], int]] = {
        name: lambda loader=loader: sum(len(batch) for batch in loader.epoch(1))  # type: ignore[misc]
        for name, loader in loaders.items()
    }
    works["training"] = lambda: _trained(network, optimiser, batches)
    best = dict.fromkeys(works, 0.0)
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            best[name] = max(best[name], work() / (time.perf_counter() - began))
    return {"read once": first, **best, "ratio": best["loader"] / best["training"]}


def _trained(network: nn.Module, optimiser: torch.optim.Optimizer, batches: list[Batch]) -> int:
    for batch in batches:
        optimiser.zero_grad()
        cross_entropy(network(batch.x), batch.y).backward()
        optimiser.step()
    return sum(len(batch) for batch in batches)
