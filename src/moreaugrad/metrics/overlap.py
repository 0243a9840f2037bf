"""How much of two maps' tops is shared.

The top are the k entries of largest magnitude. Of equal entries at its end those that come first
are taken, in both maps alike; `top_k_ties` tells how many that decided. Zeros are never in it.
`mask` is True at the entries that count, as in `explanation.mask`; padding is left out.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.metrics.maps import AS_IS, Floats, by_sample, share

Mask = NDArray[np.bool_]


def top_k_intersection(
    a: Tensor,
    b: Tensor,
    *,
    ratio: float = 0.4,
    count: int | None = None,
    nonzero: bool = True,
    reduction: str = AS_IS,
    mask: Tensor | None = None,
) -> Tensor:
    """|top_k(a) and top_k(b)| / k, with the k of the clean map `a`: `[B]`, in [0, 1].

    k = floor(ratio x entries of `a` that are not zero), or of all with nonzero=False, or `count`;
    never more than are not zero in `a`, so that a map has an overlap of 1 with itself. NaN for
    k = 0. Source: Ghorbani et al. (2019). Differs from MoreauGrad's code, whose top
    holds positive entries alone.
    """
    _check(ratio, count)

    def score(a: Floats, b: Floats) -> float:
        k = _count(a, ratio, count, nonzero)
        return np.count_nonzero(top(a, k) & top(b, k)) / k if k else math.nan

    return by_sample(score, a, b, reduction=reduction, mask=mask)


def dice(
    a: Tensor,
    b: Tensor,
    *,
    ratio: float = 0.4,
    reduction: str = AS_IS,
    mask: Tensor | None = None,
) -> Tensor:
    """2 |M_a and M_b| / (|M_a| + |M_b|), M the top of floor(ratio x own non-zero entries): `[B]`.

    NaN where both are empty. Source: AdvGrad appendix B.7.
    """
    _check(ratio, None)

    def score(a: Floats, b: Floats) -> float:
        first, second = (top(each, _count(each, ratio, None, True)) for each in (a, b))
        size = np.count_nonzero(first) + np.count_nonzero(second)
        return 2 * np.count_nonzero(first & second) / size if size else math.nan

    return by_sample(score, a, b, reduction=reduction, mask=mask)


def jaccard(
    a: Tensor,
    b: Tensor,
    *,
    ratio: float = 0.1,
    reduction: str = AS_IS,
    mask: Tensor | None = None,
) -> Tensor:
    """|M_a and M_b| / |M_a or M_b|, M the top of floor(ratio x all entries): `[B]`, in [0, 1].

    A top ends where a map's non-zero entries do. NaN where both are empty. Source: the code
    released with CASO.
    """
    _check(ratio, None)

    def score(a: Floats, b: Floats) -> float:
        first, second = (top(each, _count(each, ratio, None, False)) for each in (a, b))
        size = np.count_nonzero(first | second)
        return np.count_nonzero(first & second) / size if size else math.nan

    return by_sample(score, a, b, reduction=reduction, mask=mask)


def top_k_ties(
    maps: Tensor,
    *,
    ratio: float = 0.4,
    count: int | None = None,
    nonzero: bool = True,
    reduction: str = AS_IS,
    mask: Tensor | None = None,
) -> Tensor:
    """Share of the top's entries whose place there their order alone decided: `[B]`, in [0, 1]."""
    _check(ratio, count)

    def score(a: Floats) -> float:
        size = np.abs(a).ravel()
        k = _count(size, ratio, count, nonzero)
        if not k:
            return math.nan
        last = np.partition(size, size.size - k)[size.size - k]
        taken = k - np.count_nonzero(size > last)
        return taken / k if np.count_nonzero(size == last) > taken else 0.0

    return by_sample(score, maps, reduction=reduction, mask=mask)


def top(values: Floats, k: int) -> Mask:
    """Mask of the k largest magnitudes, flattened, without zeros; of equal ones the first."""
    size = np.abs(values).ravel()
    if k >= size.size:
        return size > 0
    if k == 0:
        return np.zeros(size.size, dtype=bool)
    last = np.partition(size, size.size - k)[size.size - k]
    found: Mask = size > last
    if last > 0:
        equal = np.flatnonzero(size == last)
        found[equal[: k - np.count_nonzero(found)]] = True
    return found


def _check(ratio: float, count: int | None) -> None:
    share("ratio", ratio)
    if count is not None and count < 1:
        raise ValueError(f"count: expected at least 1 entry, got {count!r}")


def _count(values: Floats, ratio: float, count: int | None, nonzero: bool) -> int:
    filled = np.count_nonzero(values)
    if count is None:
        # 0.29 x 100 is 28.999999999999996.
        count = math.floor(ratio * (filled if nonzero else values.size) + 1e-9)
    return min(count, int(filled))
