"""How similar two maps are: `[B, ...]` and `[B, ...]` -> `[B]` in float64.

NaN where one of the maps is zero everywhere or not finite, and for a correlation with a constant
map. `reduction` is over the channels; by default every entry counts separately. `signed=False`, the
default, compares magnitudes |A|, as heat maps show them, so that methods without signs can be
compared with the others. `mask` is True at the entries that count, like `explanation.mask`:
padding, whose zeros would correlate, is left out of correlations; the other values do not change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.metrics.maps import AS_IS, Floats, by_sample, check, inner, ranks
from moreaugrad.pictures import levels
from moreaugrad.registry import choose
from moreaugrad.settings import Documented, expect

BORDERS = {"mirrored": "reflect", "zero": "constant"}
STABILISERS = (0.01, 0.03)
"""K1 and K2 of Wang et al., which keep the quotient finite where both windows are constant."""


def normalised_distance(
    a: Tensor, b: Tensor, *, signed: bool = False, reduction: str = AS_IS
) -> Tensor:
    """D = || a / ||a||_2 - b / ||b||_2 ||_2: in [0, 2], in [0, sqrt 2] for magnitudes.

    Scale invariant; D^2 = 2 - 2 cosine. Source: MoreauGrad eq. (6). Differs from the released
    code: norms are those of each sample, and magnitudes are compared for all methods.
    """

    def score(a: Floats, b: Floats) -> float:
        apart = a / math.sqrt(inner(a, a)) - b / math.sqrt(inner(b, b))
        return math.sqrt(inner(apart, apart))

    return _compare(score, a, b, signed, reduction)


def cosine(a: Tensor, b: Tensor, *, signed: bool = False, reduction: str = AS_IS) -> Tensor:
    """<a, b> / (||a||_2 ||b||_2), in [-1, 1]; in [0, 1] for magnitudes."""
    return _compare(_cosine, a, b, signed, reduction)


def pearson(
    a: Tensor,
    b: Tensor,
    *,
    signed: bool = False,
    reduction: str = AS_IS,
    mask: Tensor | None = None,
) -> Tensor:
    """Correlation of the entries, in [-1, 1]; NaN for a constant map."""
    return _compare(_correlation, a, b, signed, reduction, mask)


def spearman(
    a: Tensor,
    b: Tensor,
    *,
    signed: bool = False,
    reduction: str = AS_IS,
    mask: Tensor | None = None,
) -> Tensor:
    """Correlation of the entries' ranks, in [-1, 1]; equal entries have their mean rank.

    NaN for a constant map. The zeros of a sparse map have one rank.
    """

    def score(a: Floats, b: Floats) -> float:
        return _correlation(ranks(a), ranks(b))

    return _compare(score, a, b, signed, reduction, mask)


def mass_centre_shift(a: Tensor, b: Tensor, *, reduction: str = "abs-sum") -> Tensor:
    """|| c(a) - c(b) ||_2 in pixels, c = sum_p |A_p| p / sum_p |A_p|.

    Maps `[B, C, H, W]`, `[B, H, W]` or `[B, N]`. Source: Ghorbani et al. (2019).
    """

    def score(a: Floats, b: Floats) -> float:
        return math.dist(_centre(a), _centre(b))

    return by_sample(score, a, b, reduction=reduction)


def _compare(
    score: Callable[[Floats, Floats], float],
    a: Tensor,
    b: Tensor,
    signed: bool,
    reduction: str,
    mask: Tensor | None = None,
) -> Tensor:
    """`score` of flat values, or of their magnitudes."""

    def of_values(a: Floats, b: Floats) -> float:
        a, b = (a, b) if signed else (np.abs(a), np.abs(b))
        return score(a.ravel(), b.ravel())

    return by_sample(of_values, a, b, reduction=reduction, mask=mask)


def _cosine(a: Floats, b: Floats) -> float:
    found = inner(a, b) / math.sqrt(inner(a, a) * inner(b, b))
    return min(1.0, max(-1.0, found))


def _correlation(a: Floats, b: Floats) -> float:
    # By the range: after rounding, the deviations of a constant map are not exactly zero.
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return _cosine(a - a.mean(), b - b.mean())


def _centre(reduced: Floats) -> list[float]:
    size = np.abs(reduced)
    axes = range(size.ndim)
    along = [size.sum(tuple(other for other in axes if other != axis)) for axis in axes]
    return [inner(mass, np.arange(float(mass.size))) / float(size.sum()) for mass in along]


@dataclass(frozen=True, kw_only=True)
class Window(metaclass=Documented):
    """The window of SSIM: local means over size x size pixels.

    >>> values = mg.metrics.ssim(maps, maps, window=mg.metrics.Window(size=7))
    """

    size: int = 11
    """Side in pixels, an odd number from 3."""
    sigma: float | None = 1.5
    """Standard deviation in pixels of a Gaussian; None gives all pixels the same weight."""
    border: str = "mirrored"
    """Values beyond the border: "mirrored" or "zero"."""
    cropped: bool = False
    """Leave out windows that extend beyond the border."""
    unbiased: bool = False
    """Variances with the divisor n - 1."""

    def __post_init__(self) -> None:
        expect(self.size >= 3 and self.size % 2 == 1, "size", "an odd number from 3", self.size)
        known = self.sigma is None or 0 < self.sigma < math.inf
        expect(known, "sigma", "a number > 0 or None", self.sigma)
        choose("border", self.border, BORDERS)

    def mean(self, values: Floats) -> Floats:
        mode = BORDERS[self.border]
        if self.sigma is None:
            found = scipy.ndimage.uniform_filter(values, self.size, mode=mode)
        else:
            found = scipy.ndimage.gaussian_filter(
                values, self.sigma, mode=mode, radius=self.size // 2
            )
        return np.asarray(found)

    def matrix(self, size: int) -> Floats:
        """W such that W v is the mean along an axis of that size, as `inner(mean(v))`."""
        mode, unit = BORDERS[self.border], np.eye(size)
        if self.sigma is None:
            found = scipy.ndimage.uniform_filter1d(unit, self.size, axis=0, mode=mode)
        else:
            radius = self.size // 2
            found = scipy.ndimage.gaussian_filter1d(
                unit, self.sigma, axis=0, mode=mode, radius=radius
            )
        edge = self.size // 2
        return np.asarray(found[edge:-edge] if self.cropped else found)

    def inner(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Without the windows that extend beyond the border, where they are left out."""
        edge = self.size // 2
        return values[edge:-edge, edge:-edge] if self.cropped else values


GAUSSIAN = Window()


def ssim(
    a: Tensor,
    b: Tensor,
    *,
    displayed: bool = True,
    masked: bool = False,
    reduction: str = "abs-sum",
    percentile: float = 99.0,
    data_range: float | None = 1.0,
    window: Window = GAUSSIAN,
) -> Tensor:
    """Mean over windows of (2 m_a m_b + c1)(2 s_ab + c2) / ((m_a^2 + m_b^2 + c1)(v_a + v_b + c2)).

    `[B, C, H, W]` or `[B, H, W]` twice -> `[B]`, at most 1. m, v, s: means, variances, covariance
    in a `window`; c1 = (0.01 R)^2, c2 = (0.03 R)^2, R = data_range, or with None the joint range of
    both maps.

    displayed: maps are reduced and scaled to [0, 1] as in images (clipped at `percentile`), so that
    their scale does not matter. displayed=False, reduction "none" and Window(border="zero") are
    the published raw SSIM, for comparison: it tends to 1 for any maps far below sqrt(c1).
    masked: the mean over windows in which either map is not zero; otherwise empty areas count as
    equal. Channels that are not reduced are compared one by one.
    NaN where a map is zero everywhere, not finite, or blank as an image (constant).

    Source: Wang et al. (2004). Windows at the border count, unlike in scikit-image.
    """
    check(a, b)
    if a.ndim not in (3, 4) or (displayed and reduction == AS_IS and a.ndim == 4):
        raise ValueError(
            "ssim: expected maps [B, C, H, W] or [B, H, W], with a reduction where they are "
            f"displayed; got {list(a.shape)} with reduction {reduction!r}"
        )
    fits = not window.cropped or min(a.shape[-2:]) >= window.size
    expect(fits, "ssim", f"maps of {window.size} pixels a side", list(a.shape[-2:]))
    known = data_range is None or data_range > 0
    expect(known, "data_range", "a number > 0 or None", data_range)

    def score(a: Floats, b: Floats) -> float:
        if displayed:
            signed = reduction == "sum"
            a, b = (levels.normalise(each, percentile, signed=signed) for each in (a, b))
            if not (a.any() and b.any()):
                return math.nan
        span = data_range or max(a.max(), b.max()) - min(a.min(), b.min())
        pairs = [(a, b)] if a.ndim == 2 else list(zip(a, b, strict=True))
        found = [_local(one, other, span, window) for one, other in pairs]
        if masked:
            kept = [_touched(one, other, window) for one, other in pairs]
            found = [each[where] for each, where in zip(found, kept, strict=True)]
        joined = np.concatenate([each.ravel() for each in found])
        return float(joined.mean()) if joined.size else math.nan

    return by_sample(score, a, b, reduction=reduction)


def _local(a: Floats, b: Floats, span: float, window: Window) -> Floats:
    """The SSIM of each window."""
    c1, c2 = ((factor * span) ** 2 for factor in STABILISERS)
    mean_a, mean_b = window.mean(a), window.mean(b)
    count = window.size**2
    correction = count / (count - 1) if window.unbiased else 1.0
    # Only the sum of the variances is needed: one filter for both.
    squares = correction * (window.mean(a * a + b * b) - mean_a**2 - mean_b**2)
    covariance = correction * (window.mean(a * b) - mean_a * mean_b)
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (squares + c2)
    return np.asarray(window.inner(above / below), dtype=np.float64)


def _touched(a: Floats, b: Floats, window: Window) -> NDArray[np.bool_]:
    """Whether either map has a non-zero entry in each window."""
    filled = (a != 0) | (b != 0)
    near = scipy.ndimage.maximum_filter(filled, window.size, mode=BORDERS[window.border])
    return np.asarray(window.inner(near), dtype=bool)
