"""How far CASO is from CAFO by the prediction's confidence: the CASO paper's figures 1 and 10."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import subjects
from benchmarks.cache import Piece, digest_of
from benchmarks.context import Context
from benchmarks.gallery import SOURCES
from benchmarks.results import Result, Table
from moreaugrad import CAFO, CASO

COUNTS = {"squeezenet": 306, "resnet20-softplus": 1000}
FIGURES = {"squeezenet": 1, "resnet20-softplus": 10}
AT_ONCE = {"squeezenet": 16, "resnet20-softplus": 100}
EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99, 1.0)
TOLERANCE = 1e-3


def run(context: Context, network: str) -> Result:
    subject = subjects.load(network)
    names = subject.names[: 12 if context.quick else COUNTS[network]]
    settings = {"std": list(subject.preprocess.std), "lambda1": 0.0}
    hessian = "gauss-newton" if network == "squeezenet" else "exact"

    def compute(some: Sequence[str]) -> list[Piece]:
        x = subject.inputs(some)
        first = CAFO(subject.fast, **settings).explain(x).maps
        second = CASO(subject.fast, **settings, hessian=hessian, tolerance=TOLERANCE).explain(x)
        apart = (_unit(first) - _unit(second.maps)).flatten(1).norm(dim=1)
        with torch.no_grad():
            p = subject.fast(x).softmax(1).amax(1)
        top = second.details["top_eigenvalue"]
        pieces = {"apart": apart, "p": p, "top": top, "error": second.error}
        return [{name: one[i] for name, one in pieces.items()} for i in range(len(some))]

    key = {"weights": subject.weights, "hessian": hessian, "sources": digest_of(*SOURCES)}
    found = context.cache.fetch(
        f"{network}-difference", key, names, compute, at_once=AT_ONCE[network]
    )
    p, apart, errors = found["p"].double(), found["apart"].double(), found["error"]
    missed = int((~(errors <= TOLERANCE)).sum())
    rows: list[list[object]] = []
    for low, high in itertools.pairwise(EDGES):
        inside = (p > low) & (p <= high)
        if inside.any():
            part = apart[inside]
            ends = part.quantile(torch.tensor([0.1, 0.9], dtype=part.dtype)).tolist()
            name = f"{low:g} < p <= {high:g}"
            rows.append([name, int(inside.sum()), float(part.median()), *ends])
    return Result(
        title=f"CASO against CAFO by confidence, the paper's figure {FIGURES[network]} ({network})",
        settings={"network": network, "images": len(names), "hessian": hessian, **settings},
        figures={"p": p.tolist(), "difference": apart.tolist(), "top": found["top"].tolist()},
        tables=[
            Table(
                caption="Distance of the two maps, each of unit length, without lambda1.",
                header=["confidence", "images", "median", "10 %", "90 %"],
                rows=rows,
            )
        ],
        notes=[
            "pixels in [0, 1], lambda2 = L / 2 + 10 and, for CAFO, any: its direction is g's",
            f"CASO's estimated errors: {missed} above {TOLERANCE:g}, at most {errors.max():.2g}",
        ],
        pictures={f"figure-difference-{network}.png": _picture(p, apart, network)},
    )


def _unit(maps: Tensor) -> Tensor:
    return maps / maps.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _picture(p: Tensor, apart: Tensor, network: str) -> bytes:
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(p, apart, ".", color="black", markersize=3, alpha=0.6)
    axes.set(
        xlabel="probability of the predicted class", ylabel="‖CASO − CAFO‖, unit maps",
        title=network, xlim=(0, 1.02), ylim=(0, None),
    )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
