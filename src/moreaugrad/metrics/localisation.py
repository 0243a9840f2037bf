"""Where a map points, against a mask of where it should.

All take `values` `[B, ...]`, one number per place (larger is more important: reduce channels
first, for example `maps.abs().sum(1)`), and `mask` of the same shape, non-zero where the truth is.
They return `[B]` in float64: NaN where the mask holds all places or none, and for maps that are
zero everywhere or not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from moreaugrad.metrics.maps import Floats, ascending, by_sample, inner, ranks, share

Mask = NDArray[np.bool_]


def auroc(values: Tensor, mask: Tensor) -> Tensor:
    """P(v_in > v_out) + P(v_in = v_out) / 2 for a place inside the mask and one outside.

    Source: the Mann-Whitney form of the area under the receiver operating characteristic.
    """

    def score(values: Floats, inside: Mask) -> float:
        hits = int(inside.sum())
        above = float(ranks(values)[inside].sum()) - hits * (hits + 1) / 2
        return above / (hits * (inside.size - hits))

    return _against(score, values, mask)


def average_precision(values: Tensor, mask: Tensor) -> Tensor:
    """AP = sum_t (R_t - R_{t-1}) P_t over the distinct values t, from the largest down.

    Equal values enter together, so the order of a sparse map's zeros does not matter; a map that
    tells nothing scores the mask's share of the places.
    """

    def score(values: Floats, inside: Mask) -> float:
        order, starts, sizes = ascending(-values)
        hits = np.add.reduceat(inside[order], starts, dtype=np.float64)
        return inner(hits / hits.sum(), hits.cumsum() / sizes.cumsum())

    return _against(score, values, mask)


def pointing_game(values: Tensor, mask: Tensor) -> Tensor:
    """1 where the largest value lies in the mask, else 0; of equal largest ones, their share.

    Source: Zhang et al. (2018). Differs: no tolerance around the object.
    """

    def score(values: Floats, inside: Mask) -> float:
        return float(inside[values == values.max()].mean())

    return _against(score, values, mask)


def gaze_overlap(values: Tensor, mask: Tensor, *, ratio: float = 0.05, blur: float = 0.0) -> Tensor:
    """|top_k(|v|) and top_k(gaze)| / k, k = round(ratio x places): `[B]`, in [0, 1].

    `mask` is the gaze map itself. Equal values at the end of a top (8-bit gaze has many, and so has
    a sparse map its zeros) are taken at random: the result is the mean over all ways to do so, in
    both maps independently, so a map that tells nothing has about `ratio`. blur: standard deviation
    in pixels of a Gaussian on |v| first, `[B, H, W]` only; the paper does not mention one.
    Source: AdvGrad section 5.3, on CUB-GHA.
    """
    share("ratio", ratio)
    if not 0 <= blur < math.inf:
        raise ValueError(f"blur: expected pixels >= 0 (0: none), got {blur!r}")
    if blur and values.ndim != 3:
        raise ValueError(f"blur: needs maps [B, H, W], got {list(values.shape)}")

    def score(values: Floats, gaze: Floats) -> float:
        size = np.abs(values)
        size = ndimage.gaussian_filter(size, blur) if blur else size
        k = max(1, round(ratio * size.size))
        return inner(_in_top(size, k), _in_top(gaze, k)) / k

    return by_sample(score, values, mask)


def _in_top(values: Floats, k: int) -> Floats:
    """Chance of each place to be among the k largest, ties being broken at random."""
    flat = values.ravel()
    last = np.partition(flat, flat.size - k)[flat.size - k]
    above, equal = flat > last, flat == last
    chance = (k - np.count_nonzero(above)) / np.count_nonzero(equal)
    return np.where(above, 1.0, np.where(equal, chance, 0.0))


def _against(score: Callable[[Floats, Mask], float], values: Tensor, mask: Tensor) -> Tensor:
    def with_mask(values: Floats, mask: Floats) -> float:
        inside = mask.ravel() != 0
        return math.nan if inside.all() else score(values.ravel(), inside)

    return by_sample(with_mask, values, mask)
