"""Figures of explained rows: bars, a waterfall from the baseline, and a swarm of points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moreaugrad.explainers.summary import shorter
from moreaugrad.pictures.levels import Floats, colours, finite, palette
from moreaugrad.pictures.plot import PANEL, ShownFigure
from moreaugrad.pictures.render import Style
from moreaugrad.registry import choose
from moreaugrad.settings import expect
from moreaugrad.table.explained import ExplainedRows
from moreaugrad.table.rows import worded

POINTS = 2000
"""Rows that a swarm shows; of more it shows so many, at equal distances."""
BINS = 60
"""Places along the axis in which a swarm's points are stacked."""
DATA = "cividis"
"""Colormap of a column's own values."""
DEEP = 0.8
"""Depth of bars in the signed colormap."""
REMAINDER = 0.005
"""Part of a waterfall's width from which what is not attributed is drawn."""
BAR, WATERFALL, BEESWARM = "bar", "waterfall", "beeswarm"


def drawn(
    found: ExplainedRows, kind: str | None, *, ax: Axes | None, title: str | None, most: int
) -> Figure:
    """See `TableExplanation.plot`."""
    expect(len(found) > 0, "rows", "at least one row to draw", len(found))
    expect(most >= 1, "most", "at least 1", most)
    alone = len(found) == 1
    if kind is None:
        kind = (WATERFALL if found.complete else BAR) if alone else BEESWARM
    choose("kind", kind, DRAWINGS)
    if kind == WATERFALL and not (alone and found.complete):
        why = (
            f"got {len(found)} rows: choose one, found[0]"
            if not alone
            else f"got {found.meaning} by {found.explanation.method}, status "
            f"{found.status[0].value!r}: kind='bar' draws values that do not add up"
        )
        raise ValueError(f"kind: expected one row whose values add up for 'waterfall', {why}")
    values = finite(found.values)
    order = np.argsort(-np.abs(values).mean(0), kind="stable")[:most]
    if ax is None:
        lines = len(order) + (2 if kind == WATERFALL else 0)
        figure: Figure = ShownFigure(
            figsize=(2.4 * PANEL, max(1.8, 0.3 * lines + 1.1)), layout="constrained"
        )
        ax = figure.subplots()
    DRAWINGS[kind](ax, found, values, order)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_title(_title(found) if title is None else title, fontsize="medium", parse_math=False)
    return ax.figure.figure  # the figure itself, where the axes are in a part of it


def _bar(ax: Axes, found: ExplainedRows, values: Floats, order: np.ndarray[Any, Any]) -> None:
    alone = len(values) == 1
    sizes = (values[0] if alone else np.abs(values).mean(0))[order]
    ax.barh(range(len(order)), sizes, color=_shades(sizes), edgecolor="0.4", linewidth=0.5)
    _names(ax, found, order, alone)
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_xlabel(found.meaning if alone else f"mean magnitude: {found.meaning}")


def _waterfall(ax: Axes, found: ExplainedRows, values: Floats, order: np.ndarray[Any, Any]) -> None:
    assert found.base is not None
    row, base, score = values[0], float(found.base[0]), float(found.score[0])
    rest = float(np.delete(row, order).sum())
    steps = [*row[order], *([rest] if len(order) < len(row) else [])]
    ends = base + np.cumsum(steps)
    starts = np.array([base, *ends[:-1]])
    width = float(np.ptp([base, *ends])) or 1.0
    missed = score - float(ends[-1])
    sizes = np.array(steps)
    ax.barh(
        range(len(steps)), sizes, left=starts, color=_shades(sizes), edgecolor="0.4", linewidth=0.5
    )
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        right = max(start, end)
        ax.text(
            right + 0.01 * width, place, f"{end - start:+.3g}", va="center", fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
        if place + 1 < len(steps):
            ax.plot([end, end], [place + 0.4, place + 0.6], color="0.4", linewidth=0.8)
    labels = _labels(found, order, True)
    if len(order) < len(row):
        labels.append(f"{len(row) - len(order)} others together")
    if abs(missed) > REMAINDER * width:
        ax.barh(len(steps), missed, left=ends[-1], color="0.75", edgecolor="0.4", linewidth=0.5)
        labels.append("not attributed (error)")
    _ticks(ax, labels)
    for at, style in ((base, ":"), (score, "--")):
        ax.axvline(at, color="0.4", linewidth=0.8, linestyle=style)
    low, high = min(base, score, *ends), max(base, score, *ends)
    ax.set_xlim(low - 0.05 * width, high + 0.15 * width)
    ax.set_xlabel(f"from the baseline's score {base:.4g} (dotted) to {score:.4g} (dashed)")


def _beeswarm(ax: Axes, found: ExplainedRows, values: Floats, order: np.ndarray[Any, Any]) -> None:
    shown = np.linspace(0, len(values) - 1, min(POINTS, len(values))).round().astype(int)
    part, table = found[shown], palette(DATA)
    for place, number in enumerate(order):
        across = values[shown, number]
        ranks = _ranks(part.data(part.names[number]))
        shade = "0.55" if ranks is None else table[(ranks * (len(table) - 1)).astype(int)] / 255
        ax.scatter(
            across, place + _offsets(across), s=9, c=shade, linewidths=0, alpha=0.9,
            rasterized=len(shown) > POINTS // 4,
        )  # fmt: skip
    _names(ax, found, order, False)
    ax.axvline(0, color="0.4", linewidth=0.8, zorder=0)
    ax.set_ylim(len(order) - 0.4, -0.6)
    more = f"; {len(shown)} of {len(values)} rows" if len(shown) < len(values) else ""
    ax.set_xlabel(f"{found.meaning}{more}")
    bar = ax.inset_axes((1.02, 0.1, 0.015, 0.8))
    bar.imshow(table[::-1, None], aspect="auto", extent=(0, 1, 0, 1))
    bar.set_xticks([])
    bar.set_yticks([0, 1], ["low", "high"], fontsize="small")
    bar.yaxis.tick_right()
    bar.tick_params(length=0)
    bar.yaxis.set_label_position("right")
    bar.set_ylabel("value of the column", fontsize="small", labelpad=0)
    bar.spines[:].set_visible(False)


Drawing = Callable[[Axes, ExplainedRows, Floats, np.ndarray[Any, Any]], None]
DRAWINGS: Mapping[str, Drawing] = {BAR: _bar, WATERFALL: _waterfall, BEESWARM: _beeswarm}


def _title(found: ExplainedRows) -> str:
    explanation = found.explanation
    if len(found) == 1:
        words = [f"row {found.rows.index[0]}", explanation.method]
    else:
        words = [explanation.method, f"{len(found)} rows"]
    targets = sorted(set(explanation.target.tolist()))
    if explanation.probabilities is not None:  # of a regression there is one output
        several = "each row's target" if len(targets) > 1 else explanation.label(targets[0])
        words.append(shorter(several))
    elif targets[0] in explanation.labels:
        words.append(shorter(explanation.labels[targets[0]]))
    return ", ".join(words) + ("" if found.ok else f"; {_problems(found)}")


def _problems(found: ExplainedRows) -> str:
    wrong = [status for status in found.status if not status.ok]
    return f"{wrong[0].value}" if len(found) == 1 else f"{len(wrong)} rows did not converge"


def _labels(found: ExplainedRows, order: np.ndarray[Any, Any], cells: bool) -> list[str]:
    """Names, of a single row with what it has in that column."""
    names = [found.names[number] for number in order]
    texts = [worded(found.data(name)[0]) if cells else "" for name in names]
    return [
        f"{shorter(name)} = {text}" if text else shorter(name)
        for name, text in zip(names, texts, strict=True)
    ]


def _names(ax: Axes, found: ExplainedRows, order: np.ndarray[Any, Any], cells: bool) -> None:
    _ticks(ax, _labels(found, order, cells))
    left = len(found.names) - len(order)
    if left:
        ax.annotate(  # on the left of a number below the axis, which may be at its end
            f"and {left} more", (0, 0), (-26, -4), xycoords="axes fraction",
            textcoords="offset points", ha="right", va="top", fontsize="small", color="0.4",
        )  # fmt: skip


def _ticks(ax: Axes, labels: list[str]) -> None:
    ax.set_yticks(range(len(labels)), labels, parse_math=False)
    if not ax.yaxis_inverted():
        ax.invert_yaxis()


def _shades(sizes: Floats) -> Floats:
    return colours(np.sign(sizes) * DEEP, Style().signed_palette) / 255


def _ranks(data: np.ndarray[Any, Any]) -> Floats | None:
    """Where each number lies among the others, [0, 1]; None for what are no numbers."""
    if data.dtype.kind not in "biuf":
        return None
    kinds, place = np.unique(data, return_inverse=True)
    return np.asarray(place / max(1, len(kinds) - 1), dtype=np.float64)


def _offsets(values: Floats) -> Floats:
    """Where points are stacked so that they do not hide each other, [-0.4, 0.4]."""
    low, width = float(values.min()), float(np.ptp(values)) or 1.0
    bins = np.round((values - low) / width * BINS).astype(int)
    order = np.argsort(bins, kind="stable")
    counts = np.bincount(bins)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    places = np.empty(len(values))
    places[order] = np.arange(len(values)) - first[bins[order]]
    # The first of a bin is in the middle, the others are above and below it in turns.
    sides = np.where(places % 2 == 1, 1, -1) * np.ceil(places / 2)
    return np.asarray(0.4 * sides / max(1, float(np.abs(sides).max())), dtype=np.float64)
