"""The AdvGrad paper's table 3 from scratch: its settings on Imagenette, next to its numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure

from benchmarks import training
from benchmarks.context import Context
from benchmarks.results import Result
from benchmarks.training_rows import STUDIES, Row
from moreaugrad.reports.curves import COLOURS

STUDY = "scratch"
PUBLISHED: Mapping[tuple[str, tuple[float, ...]], tuple[float, float]] = {
    ("plain", ()): (89.04, 46.53),
    ("L1", (0.01,)): (90.46, 56.73),
    ("L1", (0.05,)): (84.13, 62.04),
    ("L1", (0.1,)): (78.85, 65.53),
    ("group", (0.1,)): (86.83, 50.07),
    ("group", (0.5,)): (87.57, 49.15),
    ("group", (1.0,)): (83.80, 52.70),
    ("elastic net", (0.01, 0.01)): (87.72, 57.10),
    ("elastic net", (0.01, 0.05)): (87.67, 57.35),
    ("elastic net", (0.01, 0.1)): (87.19, 54.44),
    ("elastic net", (0.05, 0.01)): (84.59, 60.05),
    ("elastic net", (0.05, 0.05)): (84.69, 61.84),
    ("elastic net", (0.05, 0.1)): (84.54, 60.25),
}
"""Accuracy and Gini in % of EfficientNet-B0 after 200 epochs, by penalty and epsilon."""


def run(context: Context) -> Result:
    found = training.run(context, STUDY)
    (table,) = found.tables
    rows = STUDIES[STUDY].rows[: len(table.rows)]
    paper = [PUBLISHED[row.label, tuple(row.protocol.epsilon)] for row in rows]
    lines = [
        [*line, *(f"{number:.1f}" for number in numbers)]
        for line, numbers in zip(table.rows, paper, strict=True)
    ]
    header = [*table.header, "the paper's accuracy %", "its Gini %"]
    return replace(
        found,
        tables=[replace(table, header=header, rows=lines)],
        pictures={"training-scratch.png": _png(rows, found.figures, paper)},
    )


def _png(
    rows: Sequence[Row], found: Mapping[str, Any], paper: Sequence[tuple[float, float]]
) -> bytes:
    """Gini against accuracy; each penalty's points are joined in the order of the table. Those of
    the elastic net are too close together for words."""
    ours = [
        (100 * run["accuracy"], 100 * run["gini"]["mean"])
        for row in rows
        for run in found[row.stem].values()
    ]
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    names = ("here: ResNet-20, 16 epochs", "the paper: EfficientNet-B0, 200 epochs")
    for place, (name, points) in enumerate(zip(names, (ours, paper), strict=True)):
        panel = figure.add_subplot(1, 2, place + 1, title=name)
        panel.set(xlabel="accuracy %", ylabel="Gini %" if not place else "")
        panel.spines[["top", "right"]].set_visible(False)
        labels = list(dict.fromkeys(row.label for row in rows))
        for colour, label in zip(COLOURS, labels, strict=False):
            own = [at for row, at in zip(rows, points, strict=True) if row.label == label]
            panel.plot(*zip(*own, strict=True), "o-", color=colour, label=label, linewidth=0.8)
        for row, at in zip(rows, points, strict=True):
            if len(row.protocol.epsilon) == 1:
                words = f"{row.protocol.epsilon[0]:g}"
                panel.annotate(words, at, xytext=(4, 4), textcoords="offset points", fontsize=8)
    figure.axes[0].legend(frameon=False, fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
