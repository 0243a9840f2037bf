"""What noise buys and what it costs on each network: robustness against faithfulness."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.matched_tables import AOPC, FEW
from benchmarks.study import CLEAN, Row, only
from moreaugrad.reports.curves import COLOURS
from moreaugrad.reports.statistics import WORST

LEVELS = ("0.05", "0.1", "0.15", "0.2", "0.4")


def _levels(name: str) -> dict[str, str]:
    return {f"{name}-{level}": level.removeprefix("0") for level in LEVELS}


LINES = {
    "simple gradient": {"simple-gradient": ""},
    "SmoothGrad": _levels("smoothgrad"),
    "thresholded": _levels("sparse-smoothgrad"),
    "Sparse MoreauGrad": _levels("sparse-moreaugrad"),
}
"""Each line's methods, with the sigma that is written next to their points."""
SIDES = ((0, 0), (4, 4), (-14, -2), (4, -9))
"""Where the sigma of each line's points is written, in points from them."""
ACROSS = 3


def png(networks: Mapping[str, Sequence[Row]]) -> bytes:
    file = io.BytesIO()
    drawn(networks).savefig(file, format="png", dpi=110)
    return file.getvalue()


def drawn(networks: Mapping[str, Sequence[Row]]) -> Figure:
    """A panel for each network, with the 95 % intervals of both means."""
    across = min(ACROSS, len(networks))
    down = -(-len(networks) // across)
    figure = Figure(figsize=(3.3 * across, 2.9 * down + 0.6), layout="constrained")
    for number, (network, rows) in enumerate(networks.items(), 1):
        panel = figure.add_subplot(down, across, number, title=network)
        panel.set(ylim=(0, 0.92), xmargin=0.1)
        panel.spines[["top", "right"]].set_visible(False)
        for colour, side, label in zip(COLOURS, SIDES, LINES, strict=False):
            _line(panel, rows, label, colour, side)
    figure.supxlabel("AOPC of the clean map (faithfulness)", fontsize=10)
    figure.supylabel("largest 4 % kept under the worst attack", fontsize=10)
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(LINES), frameon=False)
    return figure


def _line(panel: Axes, rows: Sequence[Row], label: str, colour: str, side: tuple[int, int]) -> None:
    found = {
        words: (_ends(rows, CLEAN, method, AOPC), _ends(rows, WORST, method, FEW))
        for method, words in LINES[label].items()
        if only(rows, method, AOPC)
    }
    if not found:
        return
    (x, *x_ends), (y, *y_ends) = np.array(list(found.values())).transpose(1, 2, 0)
    panel.errorbar(
        x, y, xerr=np.abs(x_ends - x), yerr=np.abs(y_ends - y), fmt="o-", color=colour,
        label=label, markersize=4, linewidth=1.2, elinewidth=0.5,
    )  # fmt: skip
    for words, across, up in zip(found, x, y, strict=True):
        panel.annotate(
            words, (across, up), xytext=side, textcoords="offset points", fontsize=7, color=colour
        )


def _ends(rows: Sequence[Row], attack: str, method: str, metric: str) -> list[float]:
    """Mean, and both ends of its interval."""
    row = only([row for row in rows if row["attack"] == attack], method, metric)
    return [float(row[end]) if row and row[end] else np.nan for end in ("mean", "low", "high")]
