"""Metrics against the budget, a line for each method, a panel for each metric and run."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from moreaugrad.files.units import Record
from moreaugrad.metrics.catalogue import heading
from moreaugrad.reports.content import Chart
from moreaugrad.reports.statistics import Mean
from moreaugrad.reports.tables import column_heading

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b3a8c", "#7a5c2e",
)  # fmt: skip
STYLES = ("-", "--", ":")
PANEL = (3.4, 2.7)
ACROSS = 3
LEGEND = 2.4
"""Inches."""


def charts(found: Sequence[Mean], metrics: Sequence[str], axis: str) -> list[Chart]:
    """One for each attack with several budgets; `metrics`: those that compare two maps."""
    made = []
    for attack in dict.fromkeys(cell.attack for cell in found):
        part = [c for c in found if c.attack == attack and c.metric in metrics]
        budgets = {cell.epsilon for cell in part}
        if len(budgets) > 1:
            names = ", ".join(dict.fromkeys(heading(c.metric) for c in part))
            text = (
                f"{attack}: {names} against the budget, "
                "a line for each method; the tables below hold the numbers"
            )
            made.append(Chart(title=attack, svg=svg(_figure(part, axis)), words=text))
    return made


def epoch_charts(records: Sequence[Record]) -> list[Chart]:
    """Loss and accuracy of a training by epoch; none of a single epoch."""
    if len(records) < 2:
        return []
    shown = Figure(figsize=(2 * PANEL[0] + LEGEND, PANEL[1]), layout="constrained")
    panels = shown.subplots(1, 2)
    epochs = [record["epoch"] for record in records]
    best = next(record["epoch"] for record in reversed(records) if record["best"])
    for panel, what in zip(panels, ("loss", "accuracy"), strict=True):
        for number, part in enumerate(("training", "validation")):
            values = [record[part].get(what) for record in records]
            if None not in values:
                panel.plot(epochs, values, STYLES[number], color=COLOURS[number], label=part)
        panel.axvline(best, color="#999999", linewidth=0.8, label="best epoch")
        panel.set_title(what)
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    shown.legend(handles, labels, loc="outside right upper", frameon=False)
    words = f"loss and accuracy of {len(records)} epochs, of which {best} is the best"
    return [Chart(title="Training", svg=svg(shown), words=words)]


def _figure(part: Sequence[Mean], axis: str) -> Figure:
    metrics = list(dict.fromkeys(cell.metric for cell in part))
    runs = list(dict.fromkeys(cell.run for cell in part))
    methods = list(dict.fromkeys(cell.method for cell in part))
    # One run: a panel for each metric. Several: theirs side by side, on one scale.
    several = len(runs) > 1
    across = len(runs) if several else min(ACROSS, len(metrics))
    down = len(metrics) if several else math.ceil(len(metrics) / across)
    size = (PANEL[0] * across + LEGEND, PANEL[1] * down)
    shown = Figure(figsize=size, layout="constrained")
    axes = shown.subplots(down, across, squeeze=False, sharey="row" if several else False)
    places = [(run, metric) for metric in metrics for run in runs]
    for panel in axes.flat[len(places) :]:
        panel.set_visible(False)
    for panel, (run, metric) in zip(axes.flat, places, strict=False):
        own = [cell for cell in part if (cell.run, cell.metric) == (run, metric)]
        for number, method in enumerate(methods):
            _line(panel, [cell for cell in own if cell.method == method], method, number)
        title = column_heading(own[0]) if own else heading(metric)
        panel.set_title(f"{run}: {title}" if several else title, parse_math=False)
        panel.set_xlabel(axis)
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    shown.legend(handles, labels, loc="outside right upper", frameon=False)
    return shown


def _line(panel: Axes, own: Sequence[Mean], method: str, number: int) -> None:
    own = sorted(own, key=lambda cell: cell.epsilon or 0)
    budgets = [cell.epsilon or 0 for cell in own]
    colour = COLOURS[number % len(COLOURS)]
    style = STYLES[number // len(COLOURS) % len(STYLES)]
    means = [cell.mean for cell in own]
    panel.plot(budgets, means, style, marker="o", markersize=3, color=colour, label=method)
    low, high = [cell.low for cell in own], [cell.high for cell in own]
    panel.fill_between(budgets, low, high, color=colour, alpha=0.12, linewidth=0)


def svg(shown: Figure) -> str:
    """The same bytes each time: matplotlib would name its parts at random and write the date."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "moreaugrad"}):
        shown.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
