"""Confidence intervals over images, of means and of ratios of means, by Student's t."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEAST = 10
"""Values that an interval needs: of fewer, the spread is too uncertain for skewed scores."""
NONE = (math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Two-sided intervals of this confidence; NaN for fewer than ten values, none of them NaN."""

    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence: expected between 0 and 1, got {self.confidence!r}")

    def of_mean(self, values: ArrayLike) -> tuple[float, float]:
        """mean -+ t s / sqrt(n), with n - 1 degrees of freedom."""
        given = np.asarray(values, dtype=np.float64)
        if len(given) < LEAST:
            return NONE
        half = self._quantile(len(given)) * float(given.std(ddof=1)) / math.sqrt(len(given))
        mean = float(given.mean())
        return mean - half, mean + half

    def of_ratio(self, below: ArrayLike, above: ArrayLike) -> tuple[float, float]:
        """Of mean(above) / mean(below), values in pairs: all r that a test of
        mean(above - r below) = 0 does not reject.

        NaN also where the mean below may be zero. Source: Fieller (1954).
        """
        pairs = np.array([below, above], dtype=np.float64)
        count = pairs.shape[1]
        if count < LEAST:
            return NONE
        a, b = pairs.mean(1).tolist()
        (aa, ab), (_, bb) = (np.cov(pairs) / count).tolist()
        t = self._quantile(count)
        rest = a * a - t * t * aa
        if rest <= 0:
            return NONE
        middle, spread = a * b - t * t * ab, b * b - t * t * bb
        half = math.sqrt(max(0.0, middle * middle - rest * spread))
        return (middle - half) / rest, (middle + half) / rest

    def _quantile(self, count: int) -> float:
        return float(stats.t.ppf((1 + self.confidence) / 2, count - 1))
