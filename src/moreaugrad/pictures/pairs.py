"""Numbers of pairs of pixels, as lines between them on the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from moreaugrad.pictures.levels import colours
from moreaugrad.pictures.plot import PANEL, ShownFigure
from moreaugrad.pictures.render import Picture, Style, as_photo

MOST, BEYOND = 20, 2.0
"""Pairs of a picture, and by how many errors each is off zero."""
WIDTH = 4.0
"""Of a picture in inches."""
Line = tuple[Sequence[int], Sequence[int], float]
"""(row, column), (row, column) and the number, whose magnitude is the width of the line and whose
sign its colour."""


def plot_pairs(
    pairs: Sequence[Line],
    image: Tensor | ArrayLike,
    *,
    title: str = "",
    style: Style | None = None,
) -> Figure:
    """A figure of pairs, the strongest first. image: as in `draw`."""
    pixels = as_photo(image).pixels
    tall = 2 * PANEL * _shape(pixels)
    shown = ShownFigure(figsize=(2 * PANEL, tall + 0.4), layout="constrained")
    axis = shown.subplots()
    _draw(axis, pairs, pixels, style or Style())
    axis.set_title(title or _lines_title(_largest(pairs)), fontsize="medium", parse_math=False)
    return shown


def pair_views(
    record: Mapping[str, Any], image: Tensor | ArrayLike, style: Style | None = None
) -> dict[str, Picture]:
    """The view of the interactions in the record of a map: the strongest pairs that are beyond
    `BEYOND` errors. Empty where there are no interactions, or they failed."""
    found = record.get("interactions", {})
    if "pairs" not in found:
        return {}
    pixels = as_photo(image).pixels
    every, certain = found["pairs"], certain_pairs(found)
    lines = [(one["first"], one["second"], one["value"]) for one in certain[:MOST]]
    shown = Figure(figsize=(WIDTH, WIDTH * _shape(pixels)), dpi=144)
    canvas, axis = FigureCanvasAgg(shown), shown.add_axes((0, 0, 1, 1))
    _draw(axis, lines, pixels, style or Style())
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    known = f"{len(certain)} of {len(every)} pairs are beyond {BEYOND:g} errors"
    if len(certain) > len(lines):
        known += f", the {len(lines)} strongest are shown"
    caption = f"{known}; {_lines_title(_largest(lines))}" if lines else known
    caption = caption if every else f"no pairs: {found['status']}"
    return {"pairs": Picture(view="pairs", pixels=drawn, caption=caption)}


def certain_pairs(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of a record of interactions the pairs beyond `BEYOND` errors, the strongest first."""
    return [
        one
        for one in found["pairs"]
        if one["error"] is not None and abs(one["value"]) >= BEYOND * one["error"]
    ]


def _draw(axis: Axes, pairs: Sequence[Line], pixels: np.ndarray[Any, Any], style: Style) -> None:
    largest = _largest(pairs)
    axis.set_axis_off()
    pale = 128 + pixels.mean(2) / 2  # without colours that could be taken for those of lines
    axis.imshow(pale, "gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
    for (top, left), (bottom, right), value in reversed(pairs):  # the strongest on top
        level = abs(value) / largest
        visible = np.array(np.sign(value) * (0.4 + 0.6 * level))
        shade = tuple(colours(visible, style.signed_palette) / 255)
        axis.plot(
            (left, right), (top, bottom), color=shade, linewidth=0.5 + 3 * level, marker="o",
            markersize=3,
        )  # fmt: skip


def _largest(pairs: Sequence[Line]) -> float:
    return max((abs(value) for *_, value in pairs), default=0.0)


def _shape(pixels: np.ndarray[Any, Any]) -> float:
    """Height by width, within what a page has room for."""
    height, width = pixels.shape[:2]
    return float(min(2.0, max(0.25, height / width)))


def _lines_title(largest: float) -> str:
    found = f"widest line: {largest:.3g}; orange positive, blue negative"
    return found if largest else "no pairs"
