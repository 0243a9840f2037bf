"""How alike two maps are: `[B, ...]` and `[B, ...]` -> `[B]`, float64.

NaN where one of the two is zero everywhere or not finite, and where a correlation meets a
constant map. `reduction` is over the channels, by default none: entries count one by one.
`signed=False`, the default, compares magnitudes |A|, as pictures show them; methods that are
unsigned by construction then compare with the others.
`mask` is True at the entries that count, as in `explanation.mask`; padding, whose zeros would
correlate, is left out of correlations, and does not change the other numbers.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from moreaugrad.metrics.maps import AS_IS, Floats, by_sample, inner, ranks


def normalised_distance(
    a: Tensor, b: Tensor, *, signed: bool = False, reduction: str = AS_IS
) -> Tensor:
    """D = || a / ||a||_2 - b / ||b||_2 ||_2: in [0, 2], in [0, sqrt 2] unsigned.

    Scale invariant; D^2 = 2 - 2 cosine. Source: MoreauGrad eq. (6). Differs from its
    code: the norm is each sample's; magnitudes for all methods alike.
    """

    def score(a: Floats, b: Floats) -> float:
        a, b = _values(a, signed), _values(b, signed)
        apart = a / math.sqrt(inner(a, a)) - b / math.sqrt(inner(b, b))
        return math.sqrt(inner(apart, apart))

    return by_sample(score, a, b, reduction=reduction)


def cosine(a: Tensor, b: Tensor, *, signed: bool = False, reduction: str = AS_IS) -> Tensor:
    """<a, b> / (||a||_2 ||b||_2), in [-1, 1]; at least 0 unsigned."""

    def score(a: Floats, b: Floats) -> float:
        return _cosine(_values(a, signed), _values(b, signed))

    return by_sample(score, a, b, reduction=reduction)


def pearson(
    a: Tensor,
    b: Tensor,
    *,
    signed: bool = False,
    reduction: str = AS_IS,
    mask: Tensor | None = None,
) -> Tensor:
    """Correlation of the entries, in [-1, 1]; NaN for a constant map."""

    def score(a: Floats, b: Floats) -> float:
        return _correlation(_values(a, signed), _values(b, signed))

    return by_sample(score, a, b, reduction=reduction, mask=mask)


def spearman(
    a: Tensor,
    b: Tensor,
    *,
    signed: bool = False,
    reduction: str = AS_IS,
    mask: Tensor | None = None,
) -> Tensor:
    """Correlation of the entries' ranks, equal entries sharing their mean rank, in [-1, 1].

    NaN for a constant map. A sparse map's zeros are one large tie.
    """

    def score(a: Floats, b: Floats) -> float:
        return _correlation(ranks(_values(a, signed)), ranks(_values(b, signed)))

    return by_sample(score, a, b, reduction=reduction, mask=mask)


def mass_centre_shift(a: Tensor, b: Tensor, *, reduction: str = "abs-sum") -> Tensor:
    """|| c(a) - c(b) ||_2 in pixels, c = sum_p |A_p| p / sum_p |A_p|.

    Maps `[B, C, H, W]`, `[B, H, W]` or `[B, N]`. Source: Ghorbani et al. (2019).
    """

    def score(a: Floats, b: Floats) -> float:
        return math.dist(_centre(a), _centre(b))

    return by_sample(score, a, b, reduction=reduction)


def _values(map_: Floats, signed: bool) -> Floats:
    return map_.ravel() if signed else np.abs(map_).ravel()


def _cosine(a: Floats, b: Floats) -> float:
    found = inner(a, b) / math.sqrt(inner(a, a) * inner(b, b))
    return min(1.0, max(-1.0, found))


def _correlation(a: Floats, b: Floats) -> float:
    # By the range: rounding leaves a constant map's deviations a little off zero.
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return _cosine(a - a.mean(), b - b.mean())


def _centre(reduced: Floats) -> list[float]:
    size = np.abs(reduced)
    axes = range(size.ndim)
    along = [size.sum(tuple(other for other in axes if other != axis)) for axis in axes]
    return [inner(mass, np.arange(float(mass.size))) / float(size.sum()) for mass in along]
