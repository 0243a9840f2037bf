"""How alike two maps are: `[B, ...]` and `[B, ...]` -> `[B]`, float64.

NaN where one of the two is zero everywhere or not finite, and where a correlation meets a
constant map. `reduction` is over the channels, by default none: entries count one by one.
`signed=False`, the default, compares magnitudes |A|, as pictures show them; methods that are
unsigned by construction then compare with the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.metrics.maps import AS_IS, Floats, by_sample


def normalised_distance(
    a: Tensor, b: Tensor, *, signed: bool = False, reduction: str = AS_IS
) -> Tensor:
    """D = || a / ||a||_2 - b / ||b||_2 ||_2: in [0, 2], in [0, sqrt 2] unsigned.

    Scale invariant; D^2 = 2 - 2 cosine. Source: MoreauGrad equation 6, SPEC 3.1. Differs from its
    code: the norm is each sample's; magnitudes for all methods alike.
    """

    def score(a: Floats, b: Floats) -> float:
        a, b = _values(a, signed), _values(b, signed)
        return float(np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)))

    return by_sample(score, a, b, reduction=reduction)


def cosine(a: Tensor, b: Tensor, *, signed: bool = False, reduction: str = AS_IS) -> Tensor:
    """<a, b> / (||a||_2 ||b||_2), in [-1, 1]; at least 0 unsigned."""

    def score(a: Floats, b: Floats) -> float:
        return _cosine(_values(a, signed), _values(b, signed))

    return by_sample(score, a, b, reduction=reduction)


def pearson(a: Tensor, b: Tensor, *, signed: bool = False, reduction: str = AS_IS) -> Tensor:
    """Correlation of the entries, in [-1, 1]; NaN for a constant map."""

    def score(a: Floats, b: Floats) -> float:
        return _correlation(_values(a, signed), _values(b, signed))

    return by_sample(score, a, b, reduction=reduction)


def spearman(a: Tensor, b: Tensor, *, signed: bool = False, reduction: str = AS_IS) -> Tensor:
    """Correlation of the entries' ranks, equal entries sharing their mean rank, in [-1, 1].

    NaN for a constant map. A sparse map's zeros are one large tie.
    """

    def score(a: Floats, b: Floats) -> float:
        return _correlation(ranks(_values(a, signed)), ranks(_values(b, signed)))

    return by_sample(score, a, b, reduction=reduction)


def mass_centre_shift(a: Tensor, b: Tensor, *, reduction: str = "abs-sum") -> Tensor:
    """|| c(a) - c(b) ||_2 in pixels, c = sum_p |A_p| p / sum_p |A_p|.

    Maps `[B, C, H, W]`, `[B, H, W]` or `[B, N]`. Source: Ghorbani et al. (2019), SPEC 3.5.
    """

    def score(a: Floats, b: Floats) -> float:
        return float(np.linalg.norm(_centre(a) - _centre(b)))

    return by_sample(score, a, b, reduction=reduction)


def ranks(values: Floats) -> Floats:
    """Ranks from 1, equal values sharing their mean rank, flattened."""
    flat = values.ravel()
    order = np.argsort(flat)
    ascending = flat[order]
    starts = np.flatnonzero(np.concatenate(([True], ascending[1:] != ascending[:-1])))
    sizes = np.diff(np.concatenate((starts, [flat.size])))
    found = np.empty(flat.size)
    found[order] = np.repeat(starts + (sizes + 1) / 2, sizes)
    return found


def _values(map_: Floats, signed: bool) -> Floats:
    return map_.ravel() if signed else np.abs(map_).ravel()


def _cosine(a: Floats, b: Floats) -> float:
    return float(np.clip((a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))


def _correlation(a: Floats, b: Floats) -> float:
    # By the range: rounding leaves a constant map's deviations a little off zero.
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return _cosine(a - a.mean(), b - b.mean())


def _centre(reduced: Floats) -> NDArray[np.float64]:
    size = np.abs(reduced)
    axes = range(size.ndim)
    along = [size.sum(tuple(other for other in axes if other != axis)) for axis in axes]
    places = [float(mass @ np.arange(len(mass))) for mass in along]
    return np.array(places) / float(size.sum())
