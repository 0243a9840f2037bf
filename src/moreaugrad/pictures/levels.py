"""Maps to levels: checks, reduction over channels, percentile clip, and a map told in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from moreaugrad.registry import choose

Floats = NDArray[np.float64]

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
            "look at the explanation's status before drawing it"
        )
    return array


def one_map(values: Tensor | ArrayLike) -> Floats:
    """One finite map. Errors: ValueError for other ranks and for none at all."""
    array = finite(values)
    if array.ndim not in (1, 2, 3) or not array.size:
        raise ValueError(
            "expected one map, [C, H, W], [H, W] or [N], not empty; "
            f"got shape {list(array.shape)}: draw the samples of a batch one by one"
        )
    return array


def limits(values: Floats, percentile: float, *, signed: bool) -> tuple[Floats, Floats]:
    """(low, high) of each sample, with axes kept for broadcasting; see `normalise`."""
    axes = tuple(range(-min(2, values.ndim), 0))
    magnitude = np.abs(values)
    top = magnitude.max(axes, keepdims=True)
    if values.ndim == 1:
        return np.zeros_like(top), top
    low = np.zeros_like(top) if signed else magnitude.min(axes, keepdims=True)
    high = np.percentile(magnitude, percentile, axis=axes, keepdims=True)
    return low, np.where(high > low, high, top)


def reduce(maps: Tensor | ArrayLike, how: str = "abs-sum") -> Floats:
    """`[..., C, H, W]` to `[..., H, W]`: sum_c |A|, sum_c A, or max_c |A|.

    `[H, W]` and `[N]` have no channels: they keep their shape.
    """
    choose("reduction", how, REDUCTIONS)
    values = finite(maps)
    if values.ndim < 3:
        return values if how == "sum" else np.abs(values)
    if how == "sum":
        return np.asarray(values.sum(-3))
    magnitude = np.abs(values)
    return np.asarray(magnitude.sum(-3) if how == "abs-sum" else magnitude.max(-3))


def normalise(reduced: ArrayLike, percentile: float = 99.0, *, signed: bool = False) -> Floats:
    """clip((M - low) / (high - low), 0, 1) for each sample M = |M| of `[..., H, W]`.

    low: the minimum, high: the percentile (linear interpolation); the maximum where the percentile
    is no more than the minimum, as in maps with more than 99 % zeros. A constant sample becomes
    zero. Signed: clip(M / high, -1, 1) with the percentile of |M|. One `[N]` (bars) is neither
    shifted nor clipped: low = 0 and high is the maximum.

    Source: the 99th percentile clip of the PAIR saliency library, as used by CASO and MoreauGrad.
    Differs: their batch is one sample; the fallback; they draw maps whose range is below 1e-10 as
    zero, ours is relative, so that the picture does not depend on the map's scale.
    """
    values = finite(reduced)
    low, high = limits(values, percentile, signed=signed)
    width = high - low
    shifted = values if signed else np.abs(values) - low
    wide = np.broadcast_to(width > 1e-10 * high, values.shape)
    scaled = np.divide(shifted, width, out=np.zeros_like(values), where=wide)
    return np.clip(scaled, -1, 1)


def describe(values: Tensor | ArrayLike) -> str:
    """A map in words: how much of it is not zero, and where its weight lies."""
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
