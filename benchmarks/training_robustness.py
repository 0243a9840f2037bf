"""Networks trained for sparse gradients, and maps that are made sparse afterwards, under attack.

The AdvGrad paper's figures 5 (left and middle), 14 and 16, and its table 5: what the latter lose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.training_maps import GRADIENT, Judged, Judging, called, firsts, judged
from benchmarks.training_pictures import attacked, post_processed, robustness_curves
from benchmarks.training_rows import ONE
from moreaugrad.reports.reading import CLEAN
from moreaugrad.reports.statistics import WORST, Drop, Intervals, Mean, bases, drops, means
from moreaugrad.runs.plans.common import DataPlan
from moreaugrad.runs.plans.explain import EvaluatePlan
from moreaugrad.runs.plans.maps import OF_LABEL

STUDY = "cifar10"
METHODS: dict[str, dict[str, Any]] = {
    GRADIENT: {},
    "sparse-gradient": {},
    "smoothgrad": {"samples": 64},
    "sparsified-smoothgrad": {"samples": 64},
    "sparse-moreaugrad": {"max_evaluations": 128, "tolerance": 0.25},
}
BASES = (
    f"sparse-gradient={GRADIENT}",
    "sparsified-smoothgrad=smoothgrad",
    "sparse-moreaugrad=smoothgrad",
)
"""The paper's: what sparsity takes, apart from what smoothing does."""
STEPS = (10, 20, 50)
ABOUT_ATTACKS = ("top-k", "ssim", "normalised-distance")
METRICS: dict[str, dict[str, Any]] = {
    **{metric: {} for metric in ABOUT_ATTACKS},
    "gini": {},
    "zeros": {},
    **{
        f"aopc-{steps}": {"metric": "aopc", "size": 4, "steps": steps, "draws": 5}
        for steps in STEPS
    },
}
ATTACKS: dict[str, dict[str, Any]] = {
    "published": {
        "attack": "published-top-k", "units": "pixel", "surrogate": 30.0, "draws": 4,
    },
    "transfer": {
        "attack": "top-k", "units": "pixel", "surrogate": 30.0, "source": GRADIENT,
        "measured": False, "steps": 20,
    },
    "gaussian": {"attack": "gaussian", "over": "sigma", "epsilons": [0.05, 0.1]},
}  # fmt: skip
PLAN = EvaluatePlan(
    data=DataPlan(images=20), target=OF_LABEL, block=5, maps=4, epsilons=(0.1, 0.25, 0.5),
    methods=METHODS, metrics=METRICS, attacks=ATTACKS,
)  # fmt: skip
PUBLISHED = {
    "sparsified simple gradient": (2.75, 18.93, 36.16),
    "Sparsified SmoothGrad": (25.34, 24.84, 18.13),
    "Sparse MoreauGrad": (11.29, 32.32, 45.61),
}
"""Table 5, by 20, 50 and 100 steps."""
NOTE = (
    "Maps are of the logit of the label. Budgets are lengths in pixel units (each channel from 0 "
    "to 1), of noise its standard deviation; published: the released attack, by way of a softplus "
    "network with the same weights; transfer: the top-k attack on the simple gradient of that "
    "network, which every map then meets. Means over images with 95 % intervals (Student's t); "
    "networks of the first seed. failed: images on which an attack found no gradient, or nothing "
    "to change; they are not in the mean, but in the one in parentheses, as published."
)
STRONGER = (
    "No attack here follows the derivative of a smoothed map itself; on a ReLU ResNet-20 that "
    "changes such maps more, at many times the cost (study-resnet20, implicit)."
)
FAITHFUL = (
    f"AOPC: regions of 4 x 4 pixels replaced by noise, {', '.join(map(str, STEPS))} of the 64, the "
    "most relevant first; the fall of the label's probability, in %. Networks differ in how sure "
    "they are, so that AOPC compares within one; the drop is the fraction of the base's."
)


def run(context: Context) -> Result:
    rows = [replace(row, seeds=ONE) for row in firsts(STUDY, "plain", "L1", "group", "elastic net")]
    found = judged(
        context,
        Judging(
            name="robustness", study=STUDY, plan=PLAN, rows=rows[:2] if context.quick else rows
        ),
    )
    runs = [found.first(row) for row in found.rows]
    numbers = [cell for one in runs for cell in means(one, Intervals())]
    lost = [each for one in runs for each in drops(one, bases(one, BASES), Intervals())]
    afterwards = [method for method in METHODS if method != "sparse-gradient"]
    lines = [(runs[0].label, method) for method in afterwards]
    lines += [(one.label, GRADIENT) for one in runs[1:]]
    return Result(
        title="Training for sparse gradients and making maps sparse afterwards, on CIFAR-10",
        settings={"samples": found.plan.data.images, "methods": METHODS, "attacks": ATTACKS,
                  "metrics": METRICS},
        figures={
            "cells": [vars(cell) for cell in numbers],
            "drops": [vars(each) for each in lost],
        },
        tables=[
            _clean(found, numbers),
            *(_attack(numbers, *each) for each in _budgets()),
            _lost(lost),
            _published(),
        ],
        notes=[NOTE, STRONGER, FAITHFUL],
        pictures={
            **robustness_curves(numbers, lines, ABOUT_ATTACKS[:2], name="training-robustness"),
            **post_processed(found, list(METHODS), name="training-robustness-maps"),
            **attacked(runs, lines, ["published", "transfer"], name="training-robustness-attacked"),
        },
    )  # fmt: skip


def _budgets() -> list[tuple[str, float]]:
    """Attacks, each at its middle budget; all are in the figures."""
    found = [(attack, PLAN.budgets(attack)) for attack in ATTACKS]
    found.append((WORST, PLAN.epsilons))
    return [(attack, budgets[len(budgets) // 2] or 0.0) for attack, budgets in found]


def _clean(found: Judged, numbers: Sequence[Mean]) -> Table:
    own = [cell for cell in numbers if cell.attack == CLEAN]
    columns = [("gini", 1, 3), ("zeros", 100, 1), *((f"aopc-{s}", 100, 1) for s in STEPS)]
    lines = []
    for row in found.rows:
        accuracy = next(iter(found.accuracy[row.stem].values()))
        for method in METHODS:
            of_method = [c for c in own if (c.run, c.method) == (called(row), method)]
            described = [_described(of_method, *column) for column in columns]
            lines.append([called(row), f"{accuracy:.1f}", method, *described])
    return Table(
        caption="Maps of the clean images. accuracy: of the network, on all test images.",
        header=["network", "accuracy", "method", "Gini", "zeros %",
                *(f"AOPC {steps}" for steps in STEPS)],
        rows=lines,
    )  # fmt: skip


def _attack(numbers: Sequence[Mean], attack: str, budget: float) -> Table:
    own = [cell for cell in numbers if (cell.attack, cell.epsilon) == (attack, budget)]
    lines = []
    for network, method in dict.fromkeys((cell.run, cell.method) for cell in own):
        of_method = [cell for cell in own if (cell.run, cell.method) == (network, method)]
        described = [_described(of_method, metric, 1, 3) for metric in ABOUT_ATTACKS]
        lines.append([network, method, *described, max(cell.failed for cell in of_method)])
    return Table(
        caption=f"{attack}, {budget:g}.",
        header=["network", "method", *ABOUT_ATTACKS, "failed"],
        rows=lines,
    )


def _described(own: Sequence[Mean], metric: str, scale: int, digits: int) -> str:
    """`mean [low, high]`, and in parentheses the mean with what an attack failed on."""
    cell = next((cell for cell in own if cell.metric == metric), None)
    if cell is None:
        return "–"
    found = [_span(scale * cell.mean, scale * cell.low, scale * cell.high, digits)]
    if cell.failed and not math.isnan(cell.mean_with_failed):
        found.append(f"({scale * cell.mean_with_failed:.{digits}f})")
    return " ".join(filter(None, found)) or "–"


def _span(mean: float, low: float, high: float, digits: int) -> str:
    if math.isnan(mean):
        return ""
    interval = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{mean:.{digits}f}{interval}"


def _lost(lost: Sequence[Drop]) -> Table:
    lines = []
    for network, method, base in dict.fromkeys((d.run, d.method, d.base) for d in lost):
        own = {d.metric: d for d in lost if (d.run, d.method) == (network, method)}
        described = [own[f"aopc-{steps}"] for steps in STEPS]
        percents = [_span(100 * d.drop, 100 * d.low, 100 * d.high, 1) or "–" for d in described]
        lines.append([network, method, base, *percents])
    return Table(
        caption="Fraction of the base's AOPC that a map loses, in % (below 0: it gains), by steps.",
        header=["network", "method", "base", *map(str, STEPS)],
        rows=lines,
    )


def _published() -> Table:
    return Table(
        caption="The paper's table 5 (Imagenette, EfficientNet-B0): the same fraction, by steps.",
        header=["method", "20", "50", "100"],
        rows=[[name, *map(str, numbers)] for name, numbers in PUBLISHED.items()],
    )
