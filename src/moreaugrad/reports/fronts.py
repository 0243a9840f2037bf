"""Candidates by two criteria, with their Pareto fronts, as a drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moreaugrad.files.units import Record
from moreaugrad.reports.comparisons import front
from moreaugrad.reports.content import Chart
from moreaugrad.reports.curves import COLOURS, svg
from moreaugrad.reports.recommendation import COST, FAITHFULNESS, GINI, ROBUSTNESS

PANELS = ((GINI, ROBUSTNESS), (FAITHFULNESS, ROBUSTNESS), (COST, ROBUSTNESS))
"""The horizontal and the vertical axis of each."""
SIZE = (4.1, 3.6)
"""Inches of a panel."""


def front_chart(record: Record, names: Mapping[str, str]) -> Chart:
    """names: of the criteria."""
    shown = Figure(figsize=(SIZE[0] * len(PANELS), SIZE[1]), layout="constrained")
    axes = shown.subplots(1, len(PANELS), squeeze=False)
    methods = list(dict.fromkeys(one["method"] for one in record["candidates"]))
    for panel, pair in zip(axes.flat, PANELS, strict=True):
        _panel(panel, record, pair, names, methods)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    shown.legend(found.values(), found, loc="outside lower center", ncols=4, frameon=False)
    return Chart(
        title="Trade-offs", svg=svg(shown),
        words="Candidates by Gini, AOPC and evaluations against what is kept under attack, with "
        "the Pareto front of each pair; the table below has the numbers",
    )  # fmt: skip


def _panel(
    panel: Axes, record: Record, pair: tuple[str, str], names: Mapping[str, str],
    methods: list[str],
) -> None:  # fmt: skip
    x, y = pair
    points = np.array([[_of(one, name) for name in pair] for one in record["candidates"]])
    good = front(points * [-1 if name == COST else 1 for name in pair])
    for one, (across, up) in zip(record["candidates"], points, strict=True):
        again, number = divmod(methods.index(one["method"]), len(COLOURS))
        colour = COLOURS[number]
        low, high = (one["values"][y][end] for end in ("low", "high"))
        if low is not None and not math.isnan(across):
            panel.plot([across, across], [low, high], color=colour, alpha=0.35, linewidth=1)
        panel.plot(
            across, up, "o", color=colour, markersize=5, label=one["method"],
            markerfacecolor="none" if again % 2 else colour,  # more methods than colours
        )  # fmt: skip
    line = points[good][np.argsort(points[good][:, 0])]
    panel.plot(line[:, 0], line[:, 1], "-", color="#444444", linewidth=1, zorder=0)
    if x == COST:
        panel.set_xscale("log")
    panel.set_xlabel(names[x])
    panel.set_ylabel(names[y])
    panel.spines[["top", "right"]].set_visible(False)


def _of(candidate: Record, criterion: str) -> float:
    found = candidate["values"][criterion]["mean"]
    return math.nan if found is None else float(found)
