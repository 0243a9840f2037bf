"""Values of many rows of a table against Captum's, in turns: the gradient and Integrated Gradients.

All start from a data frame in float64. Captum gets all rows in one call, and in batches of a size
that suits a CPU; ours is `table.explain`, which also checks the network, finds the prediction of
each row, measures completeness and keeps a record of each row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas
import torch
from captum.attr import IntegratedGradients, Saliency
from torch import Tensor, nn

import moreaugrad as mg
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.timing import timed
from moreaugrad.reports.statistics import LEAST, Intervals

ROWS, FEATURES, WIDTH, CLASSES = 100_000, 30, 64, 4
STEPS = 16
BATCH = 2048
"""Rows of Captum's batches."""
ROUNDS = 12
CAPTUM, BATCHES, OURS = "Captum, one call", f"Captum, batches of {BATCH}", "ours"


def run(context: Context) -> Result:
    rounds, rows = (LEAST, ROWS // 10) if context.quick else (ROUNDS, ROWS)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
        nn.Linear(WIDTH, CLASSES),
    ).eval()  # fmt: skip
    numbers = np.random.default_rng(0).normal(size=(rows, FEATURES))
    frame = pandas.DataFrame(numbers, columns=[f"feature {i}" for i in range(FEATURES)])
    background = frame.iloc[:1000]
    mean = torch.tensor(background.mean().to_numpy(), dtype=torch.float32)[None]
    ours = partial(mg.table.explain, network, frame, background=background, target=1)
    gradient, path = Saliency(network), IntegratedGradients(network)

    def line(x: Tensor, **size: Any) -> Tensor:
        found: Tensor = path.attribute(x, baselines=mean, target=1, n_steps=STEPS, **size)
        return found

    methods: dict[str, tuple[Callable[..., Tensor], Callable[[], Any]]] = {
        "gradient": (
            lambda x, **_: gradient.attribute(x.requires_grad_(), target=1, abs=False),
            partial(ours, method="simple-gradient", values="unit"),
        ),
        f"Integrated Gradients, {STEPS} steps": (
            line,
            partial(ours, method="integrated-gradients", steps=STEPS, tolerance=1.0),
        ),
    }
    table: list[list[object]] = []
    figures: dict[str, dict[str, list[float]]] = {}
    for name, (theirs, own) in methods.items():
        # All rows at each step: more would not fit the memory of most machines.
        whole = {"internal_batch_size": rows} if theirs is line else {}
        works: dict[str, Callable[[], Any]] = {
            CAPTUM: partial(_captum, theirs, frame, rows, whole),
            BATCHES: partial(_captum, theirs, frame, BATCH, {}),
            OURS: own,
        }
        results = [work() for work in works.values()]
        difference = max(float((found - results[2].values).abs().max()) for found in results[:2])
        seconds: dict[str, list[float]] = {form: [] for form in works}
        for _ in range(rounds):
            for form, work in works.items():
                seconds[form].append(timed(work))
        figures[name] = {"largest difference": [difference]}
        for form in (CAPTUM, BATCHES):
            below, above = seconds[form], seconds[OURS]
            low, high = Intervals().of_ratio(below, above)
            ratio = sum(above) / sum(below)
            figures[name][form] = [ratio, low, high]
            table.append([name, form, sum(below) / rounds, sum(above) / rounds, ratio, low, high])
            print("  " + " ".join(map(str, table[-1])), flush=True)
    return Result(
        title="Many rows of a table against Captum",
        settings={
            "rows": rows, "features": FEATURES, "width": WIDTH, "steps": STEPS, "rounds": rounds,
        },
        figures={"ours / captum": figures},
        tables=[
            Table(
                caption=f"Mean seconds of {rounds} turns for {rows} rows, and their ratio with its "
                "95 % interval (Fieller's).",
                header=["method", "Captum", "its time", "ours", "ours / Captum", "from", "to"],
                rows=table,
            )
        ],
        notes=[
            "All start from a data frame in float64; Captum gets the class.",
            "Ours also checks the network, finds each row's prediction, and keeps a record of it.",
        ],
    )  # fmt: skip


def _captum(
    attribute: Callable[..., Tensor], frame: pandas.DataFrame, size: int, settings: dict[str, Any]
) -> Tensor:
    x = torch.tensor(frame.to_numpy(), dtype=torch.float32)
    return torch.cat([attribute(part, **settings).detach() for part in x.split(size)])
