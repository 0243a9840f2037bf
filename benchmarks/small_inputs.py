"""Integrated Gradients of a network of tables against Captum's, at equal steps."""

from __future__ import annotations

from functools import partial

import torch
from captum.attr import IntegratedGradients
from torch import nn

import moreaugrad as mg
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.timing import timed
from moreaugrad.reports.statistics import LEAST, Intervals

FEATURES, WIDTH, CLASSES = 30, 256, 4
SAMPLES = (1, 16, 256, 2048)
ROUNDS = 15


def run(context: Context) -> Result:
    rounds = LEAST if context.quick else ROUNDS
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
        nn.Linear(WIDTH, CLASSES),
    ).eval()  # fmt: skip
    ours = mg.IntegratedGradients(network, tolerance=1.0)
    rows: list[list[object]] = []
    for count in SAMPLES[:1] if context.quick else SAMPLES:
        x = torch.randn(count, FEATURES)
        target = network(x).argmax(1)
        theirs = partial(
            IntegratedGradients(network).attribute, x, target=target, n_steps=ours.steps
        )
        own = partial(ours.explain, x, target=target)
        theirs(), own()
        pairs = [(timed(theirs), timed(own)) for _ in range(rounds)]
        below, above = zip(*pairs, strict=True)
        low, high = Intervals().of_ratio(below, above)
        rows.append(
            [count, sum(below) / rounds, sum(above) / rounds, sum(above) / sum(below), low, high]
        )
        print("  " + " ".join(map(str, rows[-1])), flush=True)
    return Result(
        title="Integrated Gradients on tables against Captum",
        settings={
            "features": FEATURES, "width": WIDTH, "steps": ours.steps, "rounds": rounds,
        },
        figures={"ours / captum": {str(row[0]): row[3:] for row in rows}},
        tables=[
            Table(
                caption=f"Mean seconds of {rounds} turns, and their ratio with its 95 % interval "
                "(Fieller's).",
                header=["samples", "Captum", "ours", "ours / Captum", "from", "to"],
                rows=rows,
            )
        ],
        notes=["Ours also checks the network and measures completeness: two to four passes more."],
    )  # fmt: skip
