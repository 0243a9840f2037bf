"""Remove and retrain: pictures without what a map ranks highest or lowest, and what that costs.

A network is trained anew on pictures that keep only the top share of their entries, another on
those that keep only the bottom share; each is tested on pictures masked alike.
Source: Shah, Jain and Netrapalli (2021), arXiv 2102.12781; AdvGrad section 5.2,
appendix B.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from moreaugrad.metrics.draws import Stream, generator
from moreaugrad.metrics.maps import Floats, array, check, share
from moreaugrad.pictures import levels
from moreaugrad.registry import choose
from moreaugrad.score.noise import sample_keys

UNITS = ("element", "pixel")
TOP, BOTTOM = "top", "bottom"
ENDS = (TOP, BOTTOM)


def importance_ranks(
    maps: Tensor,
    *,
    unit: str = "element",
    seed: int = 0,
    ids: Sequence[int] | Tensor | None = None,
) -> Tensor:
    """Place of each entry by |A|, from 0 for the least: int32, `[B, C, H, W]` like the maps.

    unit "pixel" ranks sum_c |A|: `[B, 1, H, W]`. Equal entries follow in an order drawn by
    (seed, id), so a map of zeros gives random ranks: the control of a random order.
    Errors: ValueError for maps that are not finite, or are no pictures.
    """
    check(maps)
    choose("unit", unit, UNITS)
    if maps.ndim != 4:
        raise ValueError(f"maps: expected [B, C, H, W], got {list(maps.shape)}")
    found = []
    for sample, key in zip(maps, sample_keys(ids, len(maps)), strict=True):
        values = levels.reduce(array(sample)) if unit == "pixel" else abs(levels.finite(sample))
        draws = generator(seed, key, Stream.RANKS, 0).permutation(values.size)
        order = draws[np.argsort(values.ravel()[draws], kind="stable")]
        ranks = np.empty(values.size, dtype=np.int32)
        ranks[order] = np.arange(values.size, dtype=np.int32)
        found.append(torch.from_numpy(ranks.reshape(-1, *values.shape[-2:])))
    empty = torch.empty(0, *maps.shape[1:], dtype=torch.int32)
    return (torch.stack(found) if found else empty).to(maps.device)


def keep(
    x: Tensor, ranks: Tensor, ratio: float, *, end: str = TOP, fill: float | Tensor = 0.0
) -> Tensor:
    """`x` with round(ratio x places) entries of the top or bottom kept, all others `fill`.

    ranks: of `importance_ranks`; those of pixels keep all channels. fill: the value of what is
    removed, or one that broadcasts against `x`, such as the data's mean `[C, 1, 1]`.
    The bottom of 1 - ratio removes what the top keeps (but for an entry, where counts round up).
    """
    share("ratio", ratio)
    choose("end", end, ENDS)
    if ranks.shape[::2] != x.shape[::2] or ranks.shape[3] != x.shape[3]:
        raise ValueError(
            f"ranks: expected those of inputs {list(x.shape)}, got {list(ranks.shape)}"
        )
    size = ranks[0].numel()
    kept = ranks >= size - _count(ratio, size) if end == TOP else ranks < _count(ratio, size)
    return torch.where(kept, x, torch.as_tensor(fill, dtype=x.dtype, device=x.device))


def _count(ratio: float, size: int) -> int:
    return math.floor(ratio * size + 0.5)


@dataclass(frozen=True, kw_only=True, eq=False)
class DiffRoar:
    """Accuracy after keeping the top minus accuracy after keeping the bottom.

    differences: `[levels, seeds]`. by_level: their means over seeds, `[levels]`. deviation: the
    standard deviation over seeds, `[levels]`. mean: of all. low, high: the interval of the mean, by
    Student's t over the seeds' own means over levels; NaN for one seed.
    """

    differences: Floats
    by_level: Floats
    deviation: Floats
    mean: float
    low: float
    high: float


def diffroar(top: ArrayLike, bottom: ArrayLike, *, confidence: float = 0.95) -> DiffRoar:
    """DiffROAR of accuracies `[levels, seeds]`: positive where a map puts in front what tells the
    classes apart; 0 is expected of a random order.

    Seeds are paired; the released code takes all pairs, whose mean is the same. Over levels that
    lie symmetrically around one half, the mean is AdvGrad's Acc(bottom removed) - Acc(top removed).
    Errors: ValueError for other shapes, or numbers that are no accuracies.
    """
    first, second = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    if first.ndim != 2 or first.shape != second.shape or not first.size:
        raise ValueError(
            f"top, bottom: expected accuracies [levels, seeds] of the same shape, got "
            f"{list(first.shape)} and {list(second.shape)}"
        )
    if not all(((part >= 0) & (part <= 1)).all() for part in (first, second)):
        raise ValueError("top, bottom: expected accuracies in [0, 1]")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected between 0 and 1, got {confidence!r}")
    differences = first - second
    seeds = differences.shape[1]
    several = seeds > 1
    by_seed = differences.mean(0)
    mean = float(differences.mean())
    half = math.nan
    if several:
        error = float(by_seed.std(ddof=1)) / math.sqrt(seeds)
        half = error * float(stats.t.ppf((1 + confidence) / 2, seeds - 1))
    return DiffRoar(
        differences=differences,
        by_level=differences.mean(1),
        deviation=differences.std(1, ddof=1) if several else np.full(len(differences), math.nan),
        mean=mean,
        low=mean - half,
        high=mean + half,
    )
