"""How sparse a map is, and how far the largest entries of two maps overlap.

All take maps `[B, ...]` and return `[B]` in float64. `mask` is True at the entries that count, like
`explanation.mask`. The k largest entries are those of largest magnitude. Of equal entries, the
first are taken, in both maps; `top_k_ties` says how often this decides. Zeros never count.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.metrics.maps import (
    AS_IS,
    Floats,
    array,
    by_sample,
    check,
    check_ratio,
    inner,
    real,
    reals,
)
from moreaugrad.settings import expect

Mask = NDArray[np.bool_]


def zeros(maps: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Fraction of entries that are exactly zero; NaN for a map that is not finite, and for one that
    is all padding.

    >>> values = mg.metrics.zeros(maps)
    """
    check(maps)
    masks = None if mask is None else reals(mask, maps)

    def score(a: NDArray[np.floating]) -> float:
        known = a.size and np.isfinite(a).all()
        return 1 - np.count_nonzero(a) / a.size if known else math.nan

    samples = [array(sample) for sample in maps]
    if masks is not None:
        samples = [real(*pair) for pair in zip(samples, masks, strict=True)]
    found = [score(sample) for sample in samples]
    return torch.tensor(found, dtype=torch.float64, device=maps.device)


def gini(maps: Tensor, *, reduction: str = AS_IS, mask: Tensor | None = None) -> Tensor:
    """G = sum_k (2k - N - 1) c_(k) / (N ||c||_1), c = |A| in ascending order.

    >>> values = mg.metrics.gini(maps, reduction="abs-sum")

    0 for a constant map, 1 - 1/N for a single entry; scale invariant. By default every entry counts
    separately; reduction "abs-sum" counts pixels. NaN for a zero map and for one that is not
    finite. Source: Hurley and Rickard (2009).
    """

    def score(a: Floats) -> float:
        size = np.sort(np.abs(a), axis=None)
        count = len(size)
        weights = np.arange(1 - count, count, 2, dtype=np.float64)
        return inner(weights, size) / (count * float(size.sum()))

    return by_sample(score, maps, reduction=reduction, mask=mask)


def entropy(
    maps: Tensor, *, reduction: str = AS_IS, relative: bool = False, mask: Tensor | None = None
) -> Tensor:
    """H = -sum_i p_i ln p_i, p = |A| / ||A||_1, in nats.

    0 for a single entry, ln N for a constant map. relative: H / ln N, in [0, 1] (0 where N = 1).
    Source: Bhatt et al. (2020), arXiv 2005.00631.
    """

    def score(a: Floats) -> float:
        size = np.abs(a).ravel()
        p = size[size > 0]
        p = p / p.sum()
        # Rounding may give slightly less than 0 for a single entry.
        found = max(0.0, -inner(p, np.log(p)))
        return found / np.log(size.size) if relative and size.size > 1 else found

    return by_sample(score, maps, reduction=reduction, mask=mask)


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
    """|top_k(a) and top_k(b)| / k, with the k of the clean map `a`; in [0, 1].

    >>> values = mg.metrics.top_k_intersection(maps, maps, ratio=0.4)

    k = floor(ratio x entries of `a` that are not zero), or of all entries with nonzero=False, or
    `count`; at most the number of non-zero entries of `a`, so that a map has an overlap of 1 with
    itself. NaN for k = 0. Source: Ghorbani et al. (2019). Differs from the released code of
    MoreauGrad, which counts positive entries only.
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
    """2 |M_a and M_b| / (|M_a| + |M_b|), M the floor(ratio x own non-zero entries) largest ones.

    NaN where both are empty. Source: AdvGrad appendix B.7.
    """
    _check(ratio, None)

    def score(a: Floats, b: Floats) -> float:
        first, second = (largest(each, ratio) for each in (a, b))
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
    """|M_a and M_b| / |M_a or M_b|, M the floor(ratio x all entries) largest ones; in [0, 1].

    M holds non-zero entries only. NaN where both are empty. Source: the code released with CASO.
    """
    _check(ratio, None)

    def score(a: Floats, b: Floats) -> float:
        first, second = (largest(each, ratio, nonzero=False) for each in (a, b))
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
    """Fraction of the k largest entries that were chosen among equal ones by their order alone."""
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


def largest(values: Floats, ratio: float, count: int | None = None, nonzero: bool = True) -> Mask:
    """Mask of a map's largest magnitudes, flattened, their number as in `top_k_intersection`."""
    return top(values, _count(values, ratio, count, nonzero))


def top(values: Floats, k: int) -> Mask:
    """Mask of the k largest magnitudes, flattened, without zeros; of equal ones, the first."""
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
    check_ratio(ratio)
    expect(count is None or count >= 1, "count", "at least 1 entry", count)


def _count(values: Floats, ratio: float, count: int | None, nonzero: bool) -> int:
    filled = np.count_nonzero(values)
    if count is None:
        # 0.29 x 100 is 28.999999999999996.
        count = math.floor(ratio * (filled if nonzero else values.size) + 1e-9)
    return min(count, int(filled))
