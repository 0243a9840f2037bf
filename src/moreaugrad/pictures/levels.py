"""From maps to levels and colours: reduction over channels, percentile clip, colormaps."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from moreaugrad.registry import choose

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

PALETTES, SIGNED_PALETTES = ("magma", "cividis", "grey"), ("blue-white-orange",)
"""Names of the colormaps. All can be read by colour-blind people; the first three are matplotlib's,
and their lightness rises with the value."""
BLUE_WHITE_ORANGE = (
    "076fb0 0b80c6 0f92dc 13a5f2 49b6fe 7ec7fe a6d7ff cbe8ff f6f6f6 "
    "fcdfc1 f7c998 f0b473 e79e50 dd892c cf7508 ba6506 a55504"
)
"""Colours at equal distances, made in CIELAB with equal lightness at equal distance from the middle
(L* from 97 to 45): the lightness shows the magnitude, the hue the sign."""
UPPER = "upper-"
"""Prefix of the brighter two thirds of a colormap, for drawing over images."""

LEAST_WIDTH = 1e-10
"""Range of a map, as a fraction of its upper limit, below which it is drawn as zero."""
REDUCTIONS = ("abs-sum", "sum", "max-abs")
PLACES = (
    ("upper left", "top", "upper right"),
    ("left", "middle", "right"),
    ("lower left", "bottom", "lower right"),
)


def finite(values: Tensor | ArrayLike) -> Floats:
    """The values in float64. Errors: ValueError where some are NaN or infinite."""
    array = np.asarray(
        values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values,
        dtype=np.float64,
    )
    wrong = array.size - np.count_nonzero(np.isfinite(array))
    if wrong:
        raise ValueError(
            f"expected a finite map; {wrong} of {array.size} entries are NaN or infinite: "
            "look at the explanation's status before you draw it"
        )
    return array


def one_map(values: Tensor | ArrayLike) -> Floats:
    """The values of one map in float64. Errors: ValueError for another rank, an empty map, and
    entries that are not finite."""
    array = finite(values)
    if array.ndim not in (1, 2, 3) or not array.size:
        raise ValueError(
            "expected one map [C, H, W], [H, W] or [N] with at least one entry, "
            f"got shape {list(array.shape)}: draw the samples of a batch one by one"
        )
    return array


def limits(values: Floats, percentile: float, *, signed: bool) -> tuple[Floats, Floats]:
    """(low, high) of each sample, shaped to broadcast against the values; see `normalise`."""
    axes = tuple(range(-min(2, values.ndim), 0))
    magnitude = np.abs(values)
    top = magnitude.max(axes, keepdims=True)
    if values.ndim == 1:
        return np.zeros_like(top), top
    low = np.zeros_like(top) if signed else magnitude.min(axes, keepdims=True)
    high = np.percentile(magnitude, percentile, axis=axes, keepdims=True)
    return low, np.where(high > low, high, top)


def reduce(maps: Tensor | ArrayLike, how: str = "abs-sum") -> Floats:
    """Reduce the channels of maps `[..., C, H, W]` to `[..., H, W]`.

    how: "abs-sum" is sum_c |A|, "sum" is sum_c A, "max-abs" is max_c |A|. Maps `[H, W]` and `[N]`
    have no channels and keep their shape.
    """
    choose("reduction", how, REDUCTIONS)
    values = finite(maps)
    if how == "sum":
        return values if values.ndim < 3 else np.asarray(values.sum(-3))
    magnitude = np.abs(values)
    if values.ndim < 3:
        return magnitude
    return np.asarray(magnitude.sum(-3) if how == "abs-sum" else magnitude.max(-3))


def normalise(reduced: ArrayLike, percentile: float = 99.0, *, signed: bool = False) -> Floats:
    """Scale reduced maps `[..., H, W]` to [0, 1], or [-1, 1] if signed, each sample on its own.

    Unsigned: clip((|M| - low) / (high - low), 0, 1), where low is the minimum of |M| and high its
    percentile (with linear interpolation); where the percentile equals the minimum, as in maps with
    more than 99 % zeros, high is the maximum. Signed: clip(M / high, -1, 1). A constant map becomes
    zero. A map `[N]`, drawn as bars, is neither shifted nor clipped: low is 0, high the maximum.

    Source: the 99th percentile clip of the PAIR saliency library, as used by CASO and MoreauGrad.
    Differs: those scale a whole batch at once and have no fallback to the maximum; they draw maps
    with a range below 1e-10 as zero. Here that threshold is relative, so that the result does not
    depend on the scale of the map.
    """
    values = finite(reduced)
    low, high = limits(values, percentile, signed=signed)
    width = high - low
    shifted = values if signed else np.abs(values) - low
    wide = np.broadcast_to(width > LEAST_WIDTH * high, values.shape)
    scaled = np.divide(shifted, width, out=np.zeros_like(values), where=wide)
    return np.clip(scaled, -1, 1)


def describe(values: Tensor | ArrayLike) -> str:
    """A caption for a map: how many entries are not zero, and where they are concentrated."""
    magnitude = reduce(one_map(values))
    total = magnitude.sum()
    if not total:
        return "map is zero"
    what = "entries" if magnitude.ndim == 1 else "pixels"
    text = f"{np.count_nonzero(magnitude)} of {magnitude.size} {what} are not zero"
    if magnitude.ndim == 1:
        return f"{text}, the largest is number {int(magnitude.argmax())}"
    rows, columns = magnitude.shape
    centre = (
        magnitude.sum(1) @ (np.arange(rows) + 0.5) / total / rows,
        magnitude.sum(0) @ (np.arange(columns) + 0.5) / total / columns,
    )
    where = PLACES[min(2, int(3 * centre[0]))][min(2, int(3 * centre[1]))]
    return f"{text}, their weight lies around the {where}"


@cache
def palette(name: str) -> Bytes:
    """The colours `[N, 3]` of a colormap in sRGB, from the lowest value to the highest.

    N is 256; a signed colormap has 255 colours, so that zero has its own.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Colormap, LinearSegmentedColormap

    if name.startswith(UPPER):
        table = palette(name.removeprefix(UPPER))
        places = np.linspace(len(table) / 3, len(table) - 1, len(table)).round().astype(int)
        return np.asarray(table[places])
    if name in SIGNED_PALETTES:
        anchors = [f"#{colour}" for colour in BLUE_WHITE_ORANGE.split()]
        found: Colormap = LinearSegmentedColormap.from_list(name, anchors, N=255)
    else:
        found = colormaps["gray" if name == "grey" else name].resampled(256)
    table = found(np.arange(found.N), bytes=True)[:, :3]
    table.flags.writeable = False
    return np.asarray(table)


def colours(levels: ArrayLike, name: str) -> Bytes:
    """Levels `[...]` as `normalise` gives them to colours `[..., 3]` of the colormap `name`."""
    table, values = palette(name), np.asarray(levels, dtype=np.float64)
    fraction = (values + 1) / 2 if name in SIGNED_PALETTES else values
    return table[(fraction.clip(0, 1) * (len(table) - 1)).round().astype(np.intp)]


def colour_stops(name: str, count: int = 17) -> list[str]:
    """Evenly spaced colours of a colormap as `#rrggbb`, for a gradient in CSS."""
    table = palette(name)
    places = np.linspace(0, len(table) - 1, count).round().astype(int)
    return [f"#{bytes(colour).hex()}" for colour in table[places]]
