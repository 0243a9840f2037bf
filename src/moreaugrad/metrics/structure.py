"""SSIM: how alike two maps look."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from moreaugrad.metrics.maps import AS_IS, Floats, by_sample, check
from moreaugrad.pictures import levels
from moreaugrad.registry import choose
from moreaugrad.settings import Documented

BORDERS = {"mirrored": "reflect", "zero": "constant"}
STABILISERS = (0.01, 0.03)
"""K1 and K2 of Wang et al., which keep the quotient finite where both windows are flat."""


@dataclass(frozen=True, kw_only=True)
class Window(metaclass=Documented):
    """Local means over size x size pixels.

    >>> values = mg.metrics.ssim(maps, maps, window=mg.metrics.Window(size=7))
    """

    size: int = 11
    """Side in pixels, an odd number from 3."""
    sigma: float | None = 1.5
    """Standard deviation in pixels of a Gaussian; None weighs all pixels alike."""
    border: str = "mirrored"
    """What lies around a map: "mirrored" or "zero"."""
    cropped: bool = False
    """Leave out windows that reach over the border."""
    unbiased: bool = False
    """Variances with n - 1."""

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise ValueError(f"size: expected an odd number from 3, got {self.size!r}")
        if self.sigma is not None and not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma: expected a number > 0 or None, got {self.sigma!r}")
        choose("border", self.border, BORDERS)

    def mean(self, values: Floats) -> Floats:
        mode = BORDERS[self.border]
        if self.sigma is None:
            found = ndimage.uniform_filter(values, self.size, mode=mode)
        else:
            found = ndimage.gaussian_filter(values, self.sigma, mode=mode, radius=self.size // 2)
        return np.asarray(found)

    def inner(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Without the windows that reach over the border, where those are left out."""
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
    in a `window`; c1 = (0.01 R)^2,
    c2 = (0.03 R)^2, R = data_range, or the joint range of both maps with None.

    displayed: maps are reduced and brought to [0, 1] as pictures are (99th percentile clip), so
    that their scale does not matter. displayed=False, reduction "none" and Window(border="zero")
    give the published raw SSIM, for comparison: it tends to 1 for any maps far below sqrt(c1).
    masked: the mean over windows in which either map is not zero; empty areas otherwise count as
    alike. Channels that are not reduced are compared one by one.
    NaN where a map is zero everywhere, not finite, or blank as a picture (constant).

    Source: Wang et al. (2004). Windows at the border count, unlike in scikit-image.
    """
    check(a, b)
    if a.ndim not in (3, 4) or (displayed and reduction == AS_IS and a.ndim == 4):
        raise ValueError(
            "ssim: expected maps [B, C, H, W] or [B, H, W], with a reduction where they are "
            f"displayed; got {list(a.shape)} with reduction {reduction!r}"
        )
    if window.cropped and min(a.shape[-2:]) < window.size:
        raise ValueError(
            f"ssim: expected maps of {window.size} pixels a side, got {list(a.shape[-2:])}"
        )
    if data_range is not None and not data_range > 0:
        raise ValueError(f"data_range: expected a number > 0 or None, got {data_range!r}")

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
    """SSIM of every window."""
    c1, c2 = ((factor * span) ** 2 for factor in STABILISERS)
    mean_a, mean_b = window.mean(a), window.mean(b)
    count = window.size**2
    correction = count / (count - 1) if window.unbiased else 1.0
    # Only the sum of the variances enters: one filter for both.
    squares = correction * (window.mean(a * a + b * b) - mean_a**2 - mean_b**2)
    covariance = correction * (window.mean(a * b) - mean_a * mean_b)
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (squares + c2)
    return np.asarray(window.inner(above / below), dtype=np.float64)


def _touched(a: Floats, b: Floats, window: Window) -> NDArray[np.bool_]:
    """Windows in which one of the maps has an entry that is not zero."""
    filled = (a != 0) | (b != 0)
    near = ndimage.maximum_filter(filled, window.size, mode=BORDERS[window.border])
    return np.asarray(window.inner(near), dtype=bool)
