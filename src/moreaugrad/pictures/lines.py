"""Maps of series as lines: each channel of the input, coloured by the map along time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from moreaugrad.pictures.levels import (
    UPPER,
    Bytes,
    Floats,
    colours,
    finite,
    limits,
    normalise,
)
from moreaugrad.pictures.render import MOST_BARS, NEUTRAL, Picture, Scale, Style
from moreaugrad.registry import choose
from moreaugrad.settings import expect

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE, SIGNED = "line", "signed"
VIEWS = (LINE, SIGNED)
STRIP = 8
"""A map `[C, T]` is one of a series if it is longer than this times its channels; other maps with
two axes are images."""
MOST_LINES = 12
"""Channels that are drawn, those with the largest sums of magnitudes."""
MOST_POINTS = 2048
"""Of longer series each stroke spans several moments, and has the colour of the strongest."""
GROUND = 30 / 255
"""The grey behind the lines, as dark as black is in an overlay."""
THIN = 0.01
"""Of the height of a channel: silence is drawn so, as what has no length is not."""
WIDTH, ROW = 8.0, 1.1
"""Of a picture in inches, and the height that each channel adds."""


def is_series(shape: Sequence[int], rate: float | None = None) -> bool:
    """Whether a map of one sample is drawn as lines: `[C, T]` or `[T]` with a rate, or longer than
    images and bars are."""
    if len(shape) == 1:
        return rate is not None or shape[0] > MOST_BARS
    return len(shape) == 2 and (rate is not None or shape[1] > STRIP * shape[0])


def panel_height(channels: int) -> float:
    """Of the axes of so many channels in inches."""
    return ROW * min(MOST_LINES, max(1.5, channels))


def scale_place(channels: int) -> tuple[float, float, float, float]:
    """Of a colour bar above these axes, as fractions of them."""
    height = panel_height(channels)
    return 0.72, 1 + 0.2 / height, 0.27, 0.07 / height


def draw_lines(
    axis: Axes,
    values: Tensor | ArrayLike,
    signal: Tensor | ArrayLike,
    *,
    view: str = LINE,
    rate: float | None = None,
    title: str = "",
    style: Style | None = None,
) -> Scale:
    """The channels of a series below each other, each in its own range, coloured by the map.

    values, signal: the map and the input, `[C, T]` or `[T]`. view: "line" has the magnitude,
    "signed" the sign. rate: samples per second; the time axis is then in seconds.
    """
    from matplotlib.collections import LineCollection

    choose("view", view, VIEWS)
    expect(rate is None or 0 < rate < math.inf, "rate", "a finite number > 0", rate)
    style = style or Style()
    maps, lines = np.atleast_2d(finite(values)), np.atleast_2d(finite(signal))
    kept = np.sort(np.argsort(-np.abs(maps).sum(1), kind="stable")[:MOST_LINES])
    scale = _scale(maps, view, style)
    levels = normalise(maps, style.percentile, signed=view == SIGNED)
    axis.set_facecolor((GROUND,) * 3)
    for row, channel in enumerate(kept):
        strokes, places = _strokes(lines[channel], levels[channel], rate or 1.0)
        strokes[..., 1] -= row
        level = levels[channel][places]
        # The strongest come last, on top of the others.
        order = np.argsort(np.abs(level), kind="stable")
        shades = _shades(level, maps[channel][places] != 0, view, style)[order]
        look: dict[str, Any] = {"colors": shades / 255, "linewidths": 0.8 + np.abs(level[order])}
        drawn = LineCollection(list(strokes[order]), capstyle="round", rasterized=True, **look)
        axis.add_collection(drawn)
    length = lines.shape[1] / (rate or 1.0)
    axis.set_xlim(-0.01 * length, 1.01 * length)
    axis.set_ylim(-len(kept) + 0.5, 0.5)
    axis.set_xlabel("time in s" if rate else "time step", fontsize="small")
    axis.tick_params(labelsize="small")
    names = {-place: f"channel {c}" for place, c in enumerate(kept) if len(maps) > 1}
    axis.set_yticks(list(names), list(names.values()))
    axis.set_title(title, fontsize="medium", loc="left", parse_math=False)
    axis.spines[:].set_visible(False)
    if not maps.any():
        axis.text(0.5, 0.9, "map is zero", color="w", ha="center", transform=axis.transAxes)
    return scale


def line_pictures(
    values: Tensor | ArrayLike,
    signal: Tensor | ArrayLike,
    *,
    rate: float | None = None,
    style: Style | None = None,
) -> dict[str, Picture]:
    """Both views of the map of a series."""
    return {view: _picture(values, signal, view, rate, style) for view in VIEWS}


def series_picture(signal: Tensor | ArrayLike, rate: float | None = None) -> Picture:
    """A series without a map."""
    return _picture(np.zeros_like(finite(signal)), signal, "photo", rate, None)


def _picture(
    values: Tensor | ArrayLike, signal: Tensor | ArrayLike, view: str, rate: float | None,
    style: Style | None,
) -> Picture:  # fmt: skip
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    maps = np.atleast_2d(finite(values))
    size = (WIDTH, 0.7 + panel_height(len(maps)))
    shown = Figure(figsize=size, dpi=144, layout="constrained")
    canvas, axis = FigureCanvasAgg(shown), shown.subplots()
    plain = view == "photo"
    scale = draw_lines(axis, maps, signal, view=LINE if plain else view, rate=rate, style=style)
    for words in list(axis.texts) if plain else ():
        words.remove()
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    known = f"{maps.shape[1]} time steps" + (f" of {maps.shape[1] / rate:.3g} s" if rate else "")
    caption = known if plain else _caption(maps, rate)
    return Picture(view=view, pixels=pixels, caption=caption, scale=None if plain else scale)


def _caption(maps: Floats, rate: float | None) -> str:
    """How many entries are not zero, and when the map is largest."""
    if not maps.any():
        return "map is zero"
    peak = int(np.abs(maps).max(0).argmax())
    when = f"at {peak / rate:.3g} s" if rate else f"at step {peak}"
    return f"{np.count_nonzero(maps)} of {maps.size} entries are not zero, the largest is {when}"


def _strokes(line: Floats, levels: Floats, rate: float) -> tuple[Floats, NDArray[Any]]:
    """Polylines `[N, points, 2]` of time and height, and the entry whose colour each has.

    Heights lie within 0.4 of 0. A stroke goes from halfway before a moment to halfway after it; of
    a long series it spans the range of several moments up to the next ones.
    """
    largest = np.abs(line - line.mean()).max() or 1.0
    height = 0.4 * (line - line.mean()) / largest
    count, times = len(line), np.arange(len(line)) / rate
    if count <= MOST_POINTS:
        before, after = np.r_[0, np.arange(count - 1)], np.r_[np.arange(1, count), count - 1]
        points = [
            np.stack([(each + each[side]) / 2 for each in (times, height)], axis=-1)
            for side in (before, np.arange(count), after)
        ]
        return np.stack(points, axis=1), np.arange(count)
    starts = np.linspace(0, count, MOST_POINTS + 1).astype(int)
    spans = [slice(a, b + 1) for a, b in pairwise(starts)]
    low, high = (np.array([pick(height[span]) for span in spans]) for pick in (np.min, np.max))
    at = np.array([times[span].mean() for span in spans])
    strongest = [a + int(np.abs(levels[a:b]).argmax()) for a, b in pairwise(starts)]
    ends = [np.stack([at, side], axis=-1) for side in (low, np.maximum(high, low + THIN))]
    return np.stack(ends, axis=1), np.array(strongest)


def _shades(levels: Floats, there: NDArray[Any], view: str, style: Style) -> Floats:
    """Colours `[N, 3]`: those of the colormap, from the grey of what is zero."""
    size = np.abs(levels)[:, None]
    if view == SIGNED:
        # Weak entries would be white in the colormap, brighter than the strong ones.
        strong: Bytes = colours(
            np.sign(levels) * (0.55 + 0.2 * np.abs(levels)), style.signed_palette
        )
    else:
        strong = colours(levels, UPPER + style.palette)
    part = np.where(there[:, None], 0.25 + 0.75 * size**0.7, 0.0)
    return np.asarray((1 - part) * np.array(NEUTRAL) * 0.9 + part * strong)


def _scale(maps: Floats, view: str, style: Style) -> Scale:
    signed = view == SIGNED
    low, high = (float(end.item()) for end in limits(maps, style.percentile, signed=signed))
    return Scale(
        palette=style.signed_palette if signed else UPPER + style.palette,
        low=-high if signed else low, high=high, percentile=style.percentile, reduction="none",
    )  # fmt: skip
