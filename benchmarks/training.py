"""What training with a structured gradient gives and costs: accuracy, Gini, robustness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as students_t

from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.training_rows import STUDIES, Row
from benchmarks.training_runs import result, trained
from moreaugrad.runs.plans.toml import plan_toml
from moreaugrad.runs.plans.train import TrainPlan
from moreaugrad.runs.train.measure import measure
from moreaugrad.runs.train.run import TrainRun

Figures = Mapping[str, Any]


def run(context: Context, name: str) -> Result:
    study = STUDIES[name]
    rows = study.rows[:2] if context.quick else study.rows
    plan = study.plan(context)
    found = trained(context, name, rows)
    runs = {
        stem: {seed: result(folder)["test"] for seed, folder in folders.items()}
        for stem, folders in found.items()
    }
    before = None if plan.model.from_scratch else _before(plan)
    return Result(
        title=study.title,
        settings={"plan": plan_toml(plan, Path(str(plan.data.source)).parent)},
        figures={"before": before, **runs},
        tables=[_table(rows, runs, before)],
        notes=study.notes,
    )


def _before(plan: TrainPlan) -> Figures:
    """What the network is worth as it is loaded."""
    prepared = TrainRun(plan).prepared
    assert prepared.test is not None
    return measure(prepared, prepared.test)


def _table(
    rows: Sequence[Row], runs: Mapping[str, Mapping[int, Figures]], before: Figures | None
) -> Table:
    plain = runs[rows[0].stem]
    lines = [] if before is None else [["before", "", "", *_cells({0: before}, {})]]
    for row in rows:
        base = {} if row is rows[0] else plain
        lines.append([row.label, row.protocol.name, row.described, *_cells(runs[row.stem], base)])
    (count,) = {run["gini"]["count"] for found in runs.values() for run in found.values()}
    return Table(
        caption="On the test images: means over seeds with 95 % intervals (Student's t), and "
        "differences from plain training with the same seed. Gini: of the gradient of the true "
        "class's logit. one step: accuracy under the sign of the loss's gradient times .01. Both "
        f"on {count} images, the accuracy on all.",
        header=["penalty", "protocol", "epsilon", "accuracy %", "difference", "Gini",
                "difference", "one step %"],
        rows=lines,
    )  # fmt: skip


def _cells(runs: Mapping[int, Figures], plain: Mapping[int, Figures]) -> list[str]:
    accuracy = {seed: 100 * run["accuracy"] for seed, run in runs.items()}
    gini = {seed: run["gini"]["mean"] for seed, run in runs.items()}
    robust = [100 * run["robustness"]["sign 0.01"]["accuracy"] for run in runs.values()]
    return [
        interval(list(accuracy.values()), 1),
        interval([accuracy[s] - 100 * plain[s]["accuracy"] for s in plain if s in runs], 1),
        interval(list(gini.values()), 3),
        interval([gini[s] - plain[s]["gini"]["mean"] for s in plain if s in runs], 3),
        interval(robust, 1),
    ]


def interval(values: Sequence[float], digits: int) -> str:
    """`mean ± half-width` of the 95 % interval (Student's t), the mean alone for one seed."""
    if not values:
        return "–"
    described = f"{mean(values):.{digits}f}"
    if len(values) < 2:
        return described
    quantile = float(students_t.ppf(0.975, len(values) - 1))
    return f"{described} ± {quantile * stdev(values) / math.sqrt(len(values)):.{digits}f}"
