"""Which of several candidates may be the best, by their values on the same few images: exact tests
and intervals that assume symmetry alone, and Pareto fronts.

Candidates are columns and images rows of `[n, k]`, NaN where there is no value.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moreaugrad.reports.statistics import LEAST, NONE, Intervals

Floats = NDArray[np.float64]

EXACT = 12
"""Images up to which all 2^n flips of signs are tried; of more images `DRAWN`."""
DRAWN = 2**EXACT
ROUNDING = 1e-9


def may_be_best(values: ArrayLike) -> Floats:
    """p of the hypothesis that a candidate is as good as any other, `[n, k]` -> `[k]`; larger
    values are better. NaN where it shares no two images with another one.

    The statistic is the largest of z_j = sum_i d_ij / sqrt(sum_i d_ij^2), d_ij the difference to
    candidate j on image i; its distribution is that under flips of the signs of whole images, which
    keep the dependence between candidates. Those with p > 1 - confidence are a set that contains
    the best one with that confidence, however many there are, if differences of equally good ones
    are symmetric: one test leaves out the best or does not, so nothing is left to correct for.
    Source: Gupta (1965), of the set; Westfall and Young (1993), of the largest statistic.
    """
    given = np.asarray(values, dtype=np.float64)
    signs = _signs(len(given))
    found = np.full(given.shape[1], np.nan)
    for place in range(given.shape[1]):
        others = np.delete(given, place, axis=1) - given[:, place : place + 1]
        shared = (~np.isnan(others)).sum(0) >= 2
        if shared.any():
            differences = np.nan_to_num(others[:, shared])
            length = np.sqrt(np.square(differences).sum(0))
            scaled = differences / np.where(length > 0, length, 1)
            largest = (signs @ scaled).max(1)  # the first flip is none: what was observed
            found[place] = np.mean(largest >= largest[0] - ROUNDING)
    return found


def images_needed(confidence: float) -> int:
    """Of how few images no difference, however large, is significant: one less than this."""
    return max(2, math.ceil(math.log2(1 / (1 - confidence)) - ROUNDING))


def least_images(confidence: float) -> int:
    """Of fewer there is no interval of the confidence either, which takes both tails."""
    return math.ceil(math.log2(2 / (1 - confidence)) - ROUNDING)


def interval_of_mean(values: ArrayLike, confidence: float) -> tuple[float, float]:
    """An interval of the mean, of values without NaN; NaN where there are too few of them.

    Of ten values or more by Student's t. Of fewer, between means over subsets of the values, which
    is exact for a symmetric distribution: it holds what `may_be_best`'s flips would not reject.
    Source: Hartigan (1969).
    """
    given = np.asarray(values, dtype=np.float64)
    if len(given) >= LEAST:
        return Intervals(confidence=confidence).of_mean(given)
    count = 2 ** len(given)
    tail = math.floor((1 - confidence) / 2 * count + ROUNDING)
    if tail < 1:
        return NONE
    chosen = (_signs(len(given)) + 1) / 2
    some = chosen.sum(1) > 0
    means = np.sort(chosen[some] @ given / chosen[some].sum(1))
    return float(means[tail - 1]), float(means[-tail])


def front(points: ArrayLike) -> NDArray[np.bool_]:
    """Whether no other point is at least as good everywhere and better somewhere, `[k, d]` ->
    `[k]`; larger is better, and a point with NaN is on no front."""
    given = np.asarray(points, dtype=np.float64)
    least, most = given[:, None], given[None]
    beaten = (np.all(most >= least, axis=2) & np.any(most > least, axis=2)).any(axis=1)
    found: NDArray[np.bool_] = np.logical_not(beaten | np.isnan(given).any(axis=1))
    return found


@lru_cache(maxsize=8)
def _signs(count: int) -> Floats:
    """Signs of images, `[flips, count]`, all of them or some; the first are all +1."""
    if count <= EXACT:
        flipped = np.arange(2**count)[:, None] >> np.arange(count) & 1
    else:
        flipped = np.random.default_rng(0).integers(0, 2, (DRAWN, count))
        flipped[0] = 0
    return np.where(flipped, -1.0, 1.0).astype(np.float64)
