"""How far a ReLU Hessian is from rank one: the CASO paper's figures 5, 6 and 7.

As there: a linear model with random weights, the predicted class's probability p and the others
equal to eps = (1 - p) / (c - 1). The rank-one matrix is g g' / (eps (c - 1)) (CASO paper eq. 25).
"""

from __future__ import annotations

import io
import math

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.context import Context
from benchmarks.results import Result, Table

INPUTS = 2000
CLASSES = (10, 20, 50, 100, 200, 500, 1000)
MISSING = (0.5, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""1 - p."""
FIXED_MISSING, FIXED_CLASSES = 1e-4, 100
DRAWS = 5
NOTE = """Weights W of {inputs} inputs, standard normal; means over {draws} draws. The limit of the
theorem needs both many classes and p near 1: with few classes an error stays."""


def run(context: Context) -> Result:
    draws = 1 if context.quick else DRAWS
    table = torch.tensor(
        [
            [
                sum(relative_error(c, 1 - missing, seed) for seed in range(draws)) / draws
                for missing in MISSING
            ]
            for c in CLASSES
        ],
        dtype=torch.float64,
    )
    return Result(
        title="The Hessian against a rank-one matrix, the CASO paper's figures 5 to 7",
        settings={"inputs": INPUTS, "draws": draws},
        figures={"classes": CLASSES, "missing": MISSING, "error": table.tolist()},
        tables=[
            Table(
                caption="||H - g g' / (eps (c - 1))|| / ||H||, Frobenius, by classes and 1 - p.",
                header=["classes", *(f"1 - p = {missing:g}" for missing in MISSING)],
                rows=[[c, *row] for c, row in zip(CLASSES, table.tolist(), strict=True)],
            )
        ],
        notes=[NOTE.format(inputs=INPUTS, draws=draws)],
        pictures={"figure-rank-one.png": _picture(table)},
    )


def relative_error(classes: int, p: float, seed: int) -> float:
    """From the c x c matrix W'W alone: both matrices are W (...) W'."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(INPUTS, classes, generator=generator, dtype=torch.float64)
    gram = w.T @ w
    others = (1 - p) / (classes - 1)
    probability = torch.full((classes,), others, dtype=torch.float64)
    probability[0] = p
    pull = probability.clone()
    pull[0] -= 1
    inner = torch.diag(probability) - torch.outer(probability, probability)
    return _frobenius(inner - torch.outer(pull, pull) / (1 - p), gram) / _frobenius(inner, gram)


def _frobenius(inner: Tensor, gram: Tensor) -> float:
    """||W inner W'||."""
    product = inner @ gram
    return math.sqrt(float((product * product.T).sum()))


def _picture(table: Tensor) -> bytes:
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    first.semilogx(CLASSES, table[:, MISSING.index(FIXED_MISSING)], ".-", color="black")
    first.set(xlabel="classes", ylabel="relative error", title=f"p = {1 - FIXED_MISSING:g}")
    certainty = [-math.log10(missing) for missing in MISSING]
    second.plot(certainty, table[CLASSES.index(FIXED_CLASSES)], ".-", color="black")
    second.set(xlabel="−log₁₀(1 − p)", title=f"{FIXED_CLASSES} classes")
    shown = third.pcolormesh(certainty, CLASSES, table, cmap="inferno", shading="nearest")
    third.set(xlabel="−log₁₀(1 − p)", ylabel="classes", yscale="log", title="relative error")
    figure.colorbar(shown, ax=third)
    for axes in (first, second):
        axes.set_ylim(0, None)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
