"""Whether a map marks what the score depends on: the score as places of the input are replaced.

The functions take the score bound at the clean inputs (`explainer.bind(x)`), the maps
`[B, C, H, W]` or `[B, H, W]` of these inputs, and the `InputSpace` of their pixels. They return
float64, NaN for maps that are zero everywhere or not finite, and need draws x (steps + 1) passes
for each sample.

A place is a region of size x size pixels, smaller at the right and lower border, with all its
channels. Places of equal relevance (most of a sparse map's have none) are put into a new random
order for each noise sample, so that no position is preferred. Random numbers are a function of
(seed, sample key, draw): the same for any batch, order and chunk size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from moreaugrad.metrics.maps import Floats, defined
from moreaugrad.metrics.places import BLUR, MEAN, Places, Regions, check_maps, replacement
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import InputSpace
from moreaugrad.score.noise import Stream, generator
from moreaugrad.settings import expect


@dataclass(frozen=True, kw_only=True)
class Replacement(Regions):
    """What is replaced, by what, and which number is measured.

    >>> how = mg.metrics.Replacement(size=3)
    >>> values = mg.metrics.aopc(mg.Score(model).bind(x), maps, steps=4, how=how)
    """

    score: str | None = "probability"
    """Number that is measured: "probability", "logit", ... of the bound score's target; None takes
    the bound score's own kind."""


ORDERS = {"morf": (True,), "lerf": (False,), "abpc": (True, False)}
"""Whether the most relevant region is replaced first; both orders for the difference."""

REGIONS = Replacement()
DELETED = Replacement(size=1, replacement=MEAN, draws=4)
INSERTED = Replacement(size=1, replacement=BLUR, draws=4)


def aopc(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    order: str = "morf",
    steps: int = 100,
    how: Replacement = REGIONS,
) -> Tensor:
    """AOPC = 1/(L+1) sum_{k=0..L} (f(x_0) - f(x_k)): `[B]`, x_k with k regions replaced.

    >>> values = mg.metrics.aopc(mg.Score(model).bind(x), maps, steps=4)

    order: "morf", the most relevant first (high for a faithful map); "lerf", the least relevant
    first (low); "abpc", the first minus the second (high), with the same random numbers. L =
    `steps`, or all regions where there are fewer. Source: Samek et al. (2016), arXiv 1509.06321.
    """
    choose("order", order, ORDERS)
    fall = [
        drop_curve(bound, maps, space, falling=falling, steps=steps, how=how).mean(1)
        for falling in ORDERS[order]
    ]
    return fall[0] - fall[1] if len(fall) == 2 else fall[0]


def drop_curve(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    falling: bool = True,
    steps: int = 100,
    how: Replacement = REGIONS,
) -> Tensor:
    """f(x_0) - f(x_k) for k = 0..L: `[B, L + 1]`, the mean over noise samples; see `aopc`.

    falling: whether the most relevant region is replaced first.
    """
    expect(steps >= 1, "steps", "at least 1", steps)
    last = min(steps, Places(bound, how.size).count)
    found = curves(how, bound, maps, space or InputSpace(), range(last + 1), falling=falling)
    return found[:, :1] - found


def deletion_curve(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    steps: int = 100,
    how: Replacement = DELETED,
) -> Tensor:
    """f with the most relevant j/steps of all places replaced, j = 0..steps: `[B, steps + 1]`."""
    return curves(how, bound, maps, space or InputSpace(), _counts(bound, how, steps))


def insertion_curve(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    steps: int = 100,
    how: Replacement = INSERTED,
) -> Tensor:
    """f of the replacement with the most relevant j/steps of all places shown: `[B, steps + 1]`."""
    counts = _counts(bound, how, steps)
    return curves(how, bound, maps, space or InputSpace(), counts, inserted=True)


def deletion(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    steps: int = 100,
    how: Replacement = DELETED,
) -> Tensor:
    """Area under `deletion_curve` over the fraction of places: `[B]`, low for a faithful map.

    >>> values = mg.metrics.deletion(mg.Score(model).bind(x), maps, steps=4)

    Source: Petsiuk et al. (2018), arXiv 1806.07421. Differs: equal places in random order.
    """
    return area(deletion_curve(bound, maps, space, steps=steps, how=how))


def insertion(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    steps: int = 100,
    how: Replacement = INSERTED,
) -> Tensor:
    """Area under `insertion_curve` over the fraction of places: `[B]`, high for a faithful map.

    >>> values = mg.metrics.insertion(mg.Score(model).bind(x), maps, steps=4)

    Source: as for `deletion`.
    """
    return area(insertion_curve(bound, maps, space, steps=steps, how=how))


def area(curve: Tensor) -> Tensor:
    """Area under `[B, steps + 1]` over [0, 1] by trapezoids: `[B]`."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)


def _counts(bound: BoundScore, how: Replacement, steps: int) -> list[int]:
    expect(steps >= 1, "steps", "at least 1", steps)
    count = Places(bound, how.size).count
    return [round(count * step / steps) for step in range(steps + 1)]


def curves(
    how: Replacement,
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace,
    counts: Sequence[int],
    *,
    falling: bool = True,
    inserted: bool = False,
) -> Tensor:
    """Mean score over noise samples with the first `counts` places replaced: `[B, len(counts)]`.

    falling: the most relevant place comes first, else the least. inserted: the first places are
    kept and all others replaced. Samples whose map is zero everywhere or not finite are NaN and
    need no passes.
    """
    places = Places(bound, how.size)
    check_maps(maps, bound)
    known = defined(maps.detach().flatten(1)).nonzero()[:, 0].to(bound.origin.device)
    found = torch.full(
        (len(maps), len(counts)), torch.nan, dtype=torch.float64, device=bound.origin.device
    )
    if len(known):
        chosen = bound.select(known)
        if how.score is not None:
            chosen = replace(chosen, readout=replace(bound.readout, kind=how.score))
        sign, relevance = 1 if falling else -1, list[Floats]()
        for row in known.tolist():
            relevance.append(sign * places.relevance(maps[row], how.reduction))
        # Channels that cancel leave nothing by which places could be ordered.
        some = torch.tensor([bool(np.any(one)) for one in relevance], device=found.device)
        values = _scores(how, chosen, space, places, relevance, counts, inserted)
        found[known] = torch.where(some[:, None], values, torch.nan)
    return found


def _scores(
    how: Replacement,
    bound: BoundScore,
    space: InputSpace,
    places: Places,
    relevance: Sequence[Floats],
    counts: Sequence[int],
    inserted: bool,
) -> Tensor:
    """The mean score over noise samples, `[B, len(counts)]`; see `curves`."""
    origin, draws, width = bound.origin, how.draws, len(counts)

    def random(stream: Stream, sample: int, draw: int) -> np.random.Generator:
        return generator(how.seed, bound.keys[sample], stream, draw)

    # Inputs come in the order of (sample, draw): a chunk boundary needs two of them at most.
    @lru_cache(maxsize=2)
    def order(sample: int, draw: int) -> Tensor:
        """How many places come before that of each entry, `[n]`."""
        ties = random(Stream.ORDER, sample, draw).permutation(places.count)
        rank = np.empty(places.count, dtype=np.int64)
        rank[np.lexsort((ties, -relevance[sample]))] = np.arange(places.count)
        return torch.from_numpy(rank[places.number]).to(origin.device).repeat(places.shape[0])

    @lru_cache(maxsize=2)
    def values(sample: int, draw: int) -> Tensor:
        source = random(Stream.VALUES, sample, draw)
        return replacement(how, origin[sample], bound, space, places, source)

    def work(index: Tensor) -> Tensor:
        points = origin.new_empty(len(index), origin.shape[1])
        for row, number in enumerate(index.tolist()):
            cell, step = divmod(number, width)
            sample, draw = divmod(cell, draws)
            first = order(sample, draw) < counts[step]
            own = first if inserted else ~first
            points[row] = torch.where(own, origin[sample], values(sample, draw))
        with torch.no_grad():
            found = bound.value(points, index // (draws * width)).double()
        if bound.meter is not None:
            bound.meter(len(index))
        return found

    jobs = torch.arange(len(bound) * draws * width, device=origin.device)
    every = bound.chunks.over(jobs, work)
    return every.reshape(len(bound), draws, width).mean(1)
