"""What the derivative of a MoreauGrad map costs, by each of its ways, the solve left out."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.timing import Work, interleaved
from moreaugrad import GroupSparseMoreauGrad, MoreauGrad, SparseMoreauGrad
from moreaugrad.explainers.moreau import Moreau

METHODS: tuple[type[Moreau], ...] = (MoreauGrad, SparseMoreauGrad, GroupSparseMoreauGrad)
DRAWS = (16, 64)
RHO = (0.1, 1.0)
PICTURES, ROUNDS = 2, 3
NOTE = """A cotangent of random signs, at maps solved once beforehand. straight-through is H D c:
one product with the Hessian. implicit solves (I + rho D H) by conjugate gradients, to the tolerance
of an attack's steps, on a gradient that is recorded once. change: ||implicit - straight-through||
/ ||implicit||, the mean over images."""


def run(context: Context) -> Result:
    pictures, rounds = (1, 1) if context.quick else (PICTURES, ROUNDS)
    subject = subjects.load("resnet20-softplus")
    x = subject.inputs(subject.names[:pictures])
    rows: list[list[object]] = []
    for method in METHODS:
        for draws in DRAWS:
            for rho in RHO:
                explainer = method(subject.fast, rho=rho).fixed(draws)
                row = [method.method, draws, rho, *_costs(explainer, x, rounds)]
                print("  " + " ".join(map(str, row)), flush=True)
                rows.append(row)
    header = [
        "method", "draws", "rho", "gradient", "straight-through", "implicit",
        "implicit / straight-through", "change",
    ]  # fmt: skip
    return Result(
        title="Derivatives of MoreauGrad maps: cost",
        settings={"images": pictures, "rounds": rounds, "draws": DRAWS, "rho": RHO},
        figures={"implicit / straight-through": {f"{r[0]}, {r[1]}, {r[2]}": r[6] for r in rows}},
        tables=[
            Table(
                caption="Seconds for all images (medians of turns).",
                header=header,
                rows=rows,
            )
        ],
        notes=[NOTE],
    )


def _costs(explainer: Moreau, x: Tensor, rounds: int) -> list[object]:
    explanation = explainer.explain(x)
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.randn(x.shape, generator=generator).sign()
    bound = explainer.bind(x, explanation.target)
    works: dict[str, Work] = {"gradient": bound.value_and_grad}
    for way in ("straight-through", "implicit"):
        works[way] = partial(explainer.vjp, explanation, cotangent, through=way)
    seconds = interleaved(works, rounds)
    straight, implicit = (
        explainer.vjp(explanation, cotangent, through=way).flatten(1)
        for way in ("straight-through", "implicit")
    )
    change = ((implicit - straight).norm(dim=1) / implicit.norm(dim=1)).mean()
    return [
        *seconds.values(),
        seconds["implicit"] / seconds["straight-through"],
        float(change),
    ]
