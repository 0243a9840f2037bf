"""The fraction of an explanation's time that is spent in network passes."""

from __future__ import annotations

import copy

import torch

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.speed import BUDGET, explain
from benchmarks.timing import timed
from moreaugrad.runs.timing import network_time

COUNTS = {"cpu": (1, 4, 16), "cuda": (1, 8, 64)}
DTYPES = (torch.float32, torch.bfloat16)


def run(context: Context) -> Result:
    rows: list[list[object]] = []
    fractions: dict[str, dict[str, list[float]]] = {}
    for network in ("squeezenet", "resnet20"):
        subject = subjects.load(network, context.device)
        counts = COUNTS[context.device.type]
        counts = counts[:1] if context.quick else counts
        some = subject.names * -(-max(counts) // len(subject.names))
        inputs = subject.inputs(some[: max(counts)])
        target = subject.predictions(inputs)
        for dtype in DTYPES:
            model = copy.deepcopy(subject.fast).to(dtype)
            x = inputs.to(dtype)
            found = []
            explain(model, x[:1], target[:1], subject.chunk)
            for count in counts:
                with network_time(model, x.device) as inside:
                    whole = timed(lambda: explain(model, x[:count], target[:count], subject.chunk))  # noqa: B023
                    found.append(inside() / whole)
                rows.append([network, str(dtype)[6:], count, whole, inside(), found[-1]])
                print("  " + " ".join(map(str, rows[-1])), flush=True)
            fractions.setdefault(network, {})[str(dtype)[6:]] = found
    return Result(
        title="Time in network passes",
        settings={"images": counts, "evaluations": BUDGET},
        figures=fractions,
        tables=[
            Table(
                caption=f"Sparse MoreauGrad, {BUDGET} evaluations an image.",
                header=["network", "precision", "images", "seconds", "in the network", "fraction"],
                rows=rows,
            )
        ],
        notes=[
            "in the network: inside the forward pass, with what a centre records, and the backward"
        ],
    )
