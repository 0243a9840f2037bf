"""Remove and retrain: images without the entries that a map ranks highest or lowest.

One network is trained on images that keep only the top fraction of their entries, another on images
that keep only the bottom fraction; each is tested on images that are masked in the same way.
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
from scipy.special import stdtrit
from torch import Tensor

from moreaugrad.metrics.maps import Floats, array, check, check_ratio
from moreaugrad.pictures import levels
from moreaugrad.registry import choose
from moreaugrad.score.noise import Stream, generator, sample_keys
from moreaugrad.settings import Documented, expect

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
    """The rank of each entry by |A|, from 0 for the smallest: int32, `[B, C, H, W]` like the maps.

    >>> ranks = mg.metrics.importance_ranks(maps, unit="pixel")

    unit "pixel" ranks sum_c |A|: `[B, 1, H, W]`. Equal entries are in a random order, a function of
    (seed, id), so that a map of zeros gives random ranks, as a control; without `ids` it is the
    same for all samples.
    Errors: ValueError for maps that are not finite or not `[B, C, H, W]`.
    """
    check(maps)
    choose("unit", unit, UNITS)
    expect(maps.ndim == 4, "maps", "[B, C, H, W]", list(maps.shape))
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
    """`x` with the round(ratio x places) highest or lowest entries kept, and `fill` elsewhere.

    >>> kept = mg.metrics.keep(x, mg.metrics.importance_ranks(maps), 0.1)

    ranks: those of `importance_ranks`; ranks of pixels keep all channels. end: "top" or "bottom".
    fill: a value that broadcasts against `x`, such as the mean of the data `[C, 1, 1]`. The bottom
    1 - ratio removes what the top keeps, up to one entry where numbers round up.
    """
    check_ratio(ratio)
    choose("end", end, ENDS)
    same = ranks.shape[::2] == x.shape[::2] and ranks.shape[3] == x.shape[3]
    expect(same, "ranks", f"those of inputs {list(x.shape)}", list(ranks.shape))
    size = ranks[0].numel()
    kept = ranks >= size - _count(ratio, size) if end == TOP else ranks < _count(ratio, size)
    return torch.where(kept, x, torch.as_tensor(fill, dtype=x.dtype, device=x.device))


def _count(ratio: float, size: int) -> int:
    return math.floor(ratio * size + 0.5)


@dataclass(frozen=True, kw_only=True, eq=False)
class DiffRoar(metaclass=Documented, heading="Attributes"):
    """Accuracy after keeping the top minus accuracy after keeping the bottom.

    >>> found = mg.metrics.diffroar([[0.9, 0.8]], [[0.5, 0.6]])
    """

    differences: Floats
    """The difference for each level and seed, `[levels, seeds]`."""
    by_level: Floats
    """The mean over seeds, `[levels]`."""
    deviation: Floats
    """The standard deviation over seeds, `[levels]`; NaN for one seed."""
    mean: float
    """The mean over all."""
    low: float
    """Lower end of the confidence interval of the mean, by Student's t over the means of the seeds;
    NaN for one seed."""
    high: float
    """Its upper end."""


def diffroar(top: ArrayLike, bottom: ArrayLike, *, confidence: float = 0.95) -> DiffRoar:
    """DiffROAR of accuracies `[levels, seeds]`: positive where a map ranks first what distinguishes
    the classes; 0 is expected for a random order.

    >>> found = mg.metrics.diffroar([[0.9, 0.8]], [[0.5, 0.6]])

    Seeds are paired; the released code takes all pairs, whose mean is the same. For levels that are
    symmetric about one half, the mean is AdvGrad's Acc(bottom removed) - Acc(top removed).
    Errors: ValueError for other shapes, or numbers outside [0, 1].
    """
    first, second = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    if first.ndim != 2 or first.shape != second.shape or not first.size:
        raise ValueError(
            f"top, bottom: expected accuracies [levels, seeds] of the same shape, got "
            f"{list(first.shape)} and {list(second.shape)}"
        )
    if not all(((part >= 0) & (part <= 1)).all() for part in (first, second)):
        raise ValueError("top, bottom: expected accuracies in [0, 1]")
    expect(0 < confidence < 1, "confidence", "a number between 0 and 1", confidence)
    differences = first - second
    seeds, by_seed, mean = differences.shape[1], differences.mean(0), float(differences.mean())
    deviation, half = np.full(len(differences), math.nan), math.nan
    if seeds > 1:
        deviation = differences.std(1, ddof=1)
        error = float(by_seed.std(ddof=1)) / math.sqrt(seeds)
        half = error * float(stdtrit(seeds - 1, (1 + confidence) / 2))
    return DiffRoar(
        differences=differences,
        by_level=differences.mean(1),
        deviation=deviation,
        mean=mean,
        low=mean - half,
        high=mean + half,
    )
