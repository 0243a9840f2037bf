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

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from moreaugrad.metrics.maps import REDUCTIONS, Floats, array, check, defined
from moreaugrad.pictures import levels
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import InputSpace
from moreaugrad.score.noise import Stream, generator
from moreaugrad.settings import Documented, expect

UNIFORM, MEAN, BLUR = "uniform", "mean", "blur"
REPLACEMENTS = (UNIFORM, MEAN, BLUR)
"""Random values, uniform over the space's interval; the zero input, which is the space's mean; the
input under a Gaussian filter."""

BLUR_SIGMA = 5.0
"""Standard deviation of the filter, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Replacement(metaclass=Documented):
    """What is replaced, by what, and which number is measured.

    >>> how = mg.metrics.Replacement(size=3)
    >>> values = mg.metrics.aopc(mg.Score(model).bind(x), maps, steps=4, how=how)
    """

    size: int = 9
    """Side of the square regions, in pixels."""
    replacement: str | float = UNIFORM
    """What regions become: "uniform", "mean", "blur" (see `REPLACEMENTS`) or a pixel value."""
    score: str | None = "probability"
    """Number that is measured: "probability", "logit", ... of the bound score's target; None takes
    the bound score's own kind."""
    reduction: str = "abs-sum"
    """Reduction of the map over its channels: "abs-sum", "sum" or "max-abs"."""
    draws: int = 10
    """Number of random orders and replacements over which the score is averaged."""
    seed: int = 0
    """Random seed of the orders and replacements."""

    def __post_init__(self) -> None:
        if isinstance(self.replacement, str):
            choose("replacement", self.replacement, REPLACEMENTS)
        else:
            finite = math.isfinite(self.replacement)
            expect(finite, "replacement", "a finite number", self.replacement)
        choose("reduction", self.reduction, REDUCTIONS[1:])
        expect(self.size >= 1, "size", "regions of at least 1 pixel", self.size)
        expect(self.draws >= 1, "draws", "at least 1", self.draws)


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
    last = min(steps, _Places(bound, how.size).count)
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
    count = _Places(bound, how.size).count
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
    places = _Places(bound, how.size)
    _check_maps(maps, bound)
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
            reduced = levels.reduce(array(maps[row]).astype(np.float64), how.reduction)
            relevance.append(sign * places.relevance(reduced))
        found[known] = _scores(how, chosen, space, places, relevance, counts, inserted)
    return found


def _scores(
    how: Replacement,
    bound: BoundScore,
    space: InputSpace,
    places: _Places,
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
        """The values that replace the input, `[n]`, in the network's units."""
        x, kind = origin[sample], how.replacement
        if kind == BLUR:
            image = array(x).reshape(places.shape)
            blurred = ndimage.gaussian_filter(image, (0.0, *[BLUR_SIGMA] * 2), mode="reflect")
            return torch.from_numpy(blurred.ravel()).to(x)
        if kind == MEAN:
            return torch.zeros_like(x)
        if kind == UNIFORM:
            numbers = random(Stream.VALUES, sample, draw).random(x.numel())
            pixels = space.low + (space.high - space.low) * torch.from_numpy(numbers)
        else:
            pixels = torch.full((x.numel(),), float(kind), dtype=torch.float64)
        return space.inputs(pixels[None].to(x), bound.layout)[0]

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


def _check_maps(maps: Tensor, bound: BoundScore) -> None:
    """Errors: ValueError for maps that do not belong to these inputs."""
    check(maps)
    shape, found = bound.layout.shapes[0], tuple(maps.shape[1:])
    if len(maps) != len(bound) or found not in (shape, shape[1:] if len(shape) == 3 else shape):
        raise ValueError(
            f"maps: expected one for each input of shape {['B', *shape]}, with or without its "
            f"channels, {len(bound)} of them; got {list(maps.shape)}"
        )


class _Places:
    """The regions of a sample. number: the region of each pixel, `[rows * columns]`. count: of all.

    Errors: ValueError for several inputs, and for an input that is no image or vector.
    """

    def __init__(self, bound: BoundScore, size: int) -> None:
        shapes = bound.layout.shapes
        if len(shapes) != 1 or len(shapes[0]) not in (1, 3):
            raise ValueError(
                "expected one input, [B, C, H, W] or [B, N], whose places are replaced; got "
                f"samples of shape {', '.join(map(str, shapes))}"
            )
        self.shape = shapes[0] if len(shapes[0]) == 3 else (1, 1, *shapes[0])
        row, column = np.indices(self.shape[1:]) // size
        self.number: NDArray[np.int64] = (row * math.ceil(self.shape[2] / size) + column).ravel()
        self.count = int(self.number[-1]) + 1

    def relevance(self, reduced: Floats) -> Floats:
        """The sum of a reduced map over each region, `[count]`."""
        sums = np.bincount(self.number, weights=reduced.ravel(), minlength=self.count)
        return np.asarray(sums, dtype=np.float64)
