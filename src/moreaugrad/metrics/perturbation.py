"""Scores of inputs whose places are replaced one after the other, in the order of a map.

A place is a region of size x size pixels, smaller at the right and lower border, with all its
channels. Of places of equal relevance (most of a sparse map's are zero) the order is drawn anew
for each draw, so that none is favoured for where it lies. Draws are a function of (seed, sample
key, draw): the same for any batch, order and chunking.
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

from moreaugrad.metrics.draws import Stream, generator
from moreaugrad.metrics.maps import REDUCTIONS, Floats, array, check, defined
from moreaugrad.pictures import levels
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import InputSpace
from moreaugrad.settings import Documented

UNIFORM, MEAN, BLUR = "uniform", "mean", "blur"
REPLACEMENTS = (UNIFORM, MEAN, BLUR)
"""Uniform over the space's interval for each entry; the zero input, which is the space's mean;
the input under a Gaussian filter."""

BLUR_SIGMA = 5.0
"""In pixels."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """The grid of regions of one sample."""

    channels: int
    rows: int
    columns: int
    size: int

    @classmethod
    def of(cls, bound: BoundScore, size: int) -> Places:
        """Errors: ValueError for several inputs, and for one that is no picture or vector."""
        shapes = bound.layout.shapes
        if len(shapes) != 1 or len(shapes[0]) not in (1, 3):
            raise ValueError(
                "expected one input, [B, C, H, W] or [B, N], to replace places of; got samples of "
                f"shape {', '.join(map(str, shapes))}"
            )
        channels, rows, columns = shapes[0] if len(shapes[0]) == 3 else (1, 1, shapes[0][0])
        return cls(channels=channels, rows=rows, columns=columns, size=size)

    @property
    def across(self) -> int:
        return math.ceil(self.columns / self.size)

    @property
    def count(self) -> int:
        return math.ceil(self.rows / self.size) * self.across

    @property
    def number(self) -> NDArray[np.int64]:
        """Which region a pixel is of, `[rows * columns]`."""
        row, column = np.indices((self.rows, self.columns)) // self.size
        return np.asarray((row * self.across + column).ravel())

    def relevance(self, reduced: Floats) -> Floats:
        """The sum of a reduced map over each region, `[count]`."""
        sums = np.bincount(self.number, weights=reduced.ravel(), minlength=self.count)
        return np.asarray(sums, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Replacement(metaclass=Documented):
    """What is replaced, by what, and which number is followed.

    >>> how = mg.metrics.Replacement(size=3)
    >>> values = mg.metrics.aopc(mg.Score(model).bind(x), maps, steps=4, how=how)
    """

    size: int = 9
    """Side of the square regions, in pixels."""
    replacement: str | float = UNIFORM
    """What regions become: "uniform", "mean", "blur" (see `REPLACEMENTS`) or a pixel value."""
    score: str | None = "probability"
    """Which number is followed: "probability", "logit", ... of the bound score's target, or None
    for the bound score's own kind."""
    reduction: str = "abs-sum"
    """Of the map over its channels."""
    draws: int = 10
    """Orders of equally relevant regions, and replacements, that the score is averaged over."""
    seed: int = 0
    """Random seed of these draws."""

    def __post_init__(self) -> None:
        if isinstance(self.replacement, str):
            choose("replacement", self.replacement, REPLACEMENTS)
        elif not math.isfinite(self.replacement):
            raise ValueError(f"replacement: expected a finite number, got {self.replacement!r}")
        choose("reduction", self.reduction, REDUCTIONS[1:])
        if self.size < 1:
            raise ValueError(f"size: expected regions of at least 1 pixel, got {self.size!r}")
        if self.draws < 1:
            raise ValueError(f"draws: expected at least 1, got {self.draws!r}")


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
    """Mean score over draws with the first `counts` places replaced: `[B, len(counts)]`, float64.

    falling: the most relevant place first, else the least. inserted: the other way round, the
    first places are the input's own and all others are replaced. A count of 0 replaces nothing (or
    everything). NaN for samples whose map is zero everywhere or not finite; they cost nothing.
    """
    places = Places.of(bound, how.size)
    _check_maps(maps, bound)
    known = defined(maps.detach().flatten(1)).nonzero()[:, 0].to(bound.origin.device)
    found = torch.full(
        (len(maps), len(counts)), torch.nan, dtype=torch.float64, device=bound.origin.device
    )
    if len(known):
        chosen = bound.select(known)
        if how.score is not None:
            chosen = replace(chosen, readout=replace(bound.readout, kind=how.score))
        relevance = [places.relevance(_reduced(maps[row], how.reduction)) for row in known.tolist()]
        job = _Job(how, chosen, space, places, relevance, 1 if falling else -1, inserted)
        found[known] = job.scores(counts)
    return found


class _Job:
    """Points of (sample, draw, count) triples, made in whatever chunks the network takes."""

    def __init__(
        self,
        how: Replacement,
        bound: BoundScore,
        space: InputSpace,
        places: Places,
        relevance: Sequence[Floats],
        sign: int,
        inserted: bool,
    ) -> None:
        self._how, self._bound, self._space, self._places = how, bound, space, places
        self._relevance, self._sign, self._inserted = relevance, sign, inserted
        self._number = places.number
        # Points come in the order of (sample, draw): two are enough where a chunk ends in between.
        self._order = lru_cache(maxsize=2)(self._drawn_order)
        self._values = lru_cache(maxsize=2)(self._drawn_values)

    def scores(self, counts: Sequence[int]) -> Tensor:
        bound, draws, width = self._bound, self._how.draws, len(counts)

        def work(index: Tensor) -> Tensor:
            rows = index // (draws * width)
            with torch.no_grad():
                found = bound.value(self._points(index, counts), rows).double()
            if bound.meter is not None:
                bound.meter(len(index))
            return found

        jobs = torch.arange(len(bound) * draws * width, device=bound.origin.device)
        every = bound.chunks.over(jobs, work)
        return every.reshape(len(bound), draws, width).mean(1)

    def _points(self, index: Tensor, counts: Sequence[int]) -> Tensor:
        """`[m, n]`: the perturbed inputs of these triples."""
        origin, width = self._bound.origin, len(counts)
        points = origin.new_empty(len(index), origin.shape[1])
        for at, number in enumerate(index.tolist()):
            cell, step = divmod(number, width)
            sample, draw = divmod(cell, self._how.draws)
            first = self._order(sample, draw) < counts[step]
            own = first if self._inserted else ~first
            points[at] = torch.where(own, origin[sample], self._values(sample, draw))
        return points

    def _drawn_order(self, sample: int, draw: int) -> Tensor:
        """How many places come before that of each entry, `[n]`."""
        relevance = self._sign * self._relevance[sample]
        ties = self._drawing(Stream.ORDER, sample, draw).permutation(self._places.count)
        rank = np.empty(self._places.count, dtype=np.int64)
        rank[np.lexsort((ties, -relevance))] = np.arange(self._places.count)
        pixels = torch.from_numpy(rank[self._number]).to(self._bound.origin.device)
        return pixels.repeat(self._places.channels)

    def _drawn_values(self, sample: int, draw: int) -> Tensor:
        """What replaces the input, `[n]`, in the network's units."""
        origin, layout, space = self._bound.origin[sample], self._bound.layout, self._space
        kind = self._how.replacement
        if kind == BLUR:
            shape = (self._places.channels, self._places.rows, self._places.columns)
            picture = array(origin).reshape(shape)
            blurred = ndimage.gaussian_filter(picture, (0.0, *[BLUR_SIGMA] * 2), mode="reflect")
            return torch.from_numpy(blurred.ravel()).to(origin)
        if kind == MEAN:
            return torch.zeros_like(origin)
        if kind == UNIFORM:
            numbers = self._drawing(Stream.VALUES, sample, draw).random(origin.numel())
            pixels = space.low + (space.high - space.low) * torch.from_numpy(numbers)
        else:
            pixels = torch.full((origin.numel(),), float(kind), dtype=torch.float64)
        return space.inputs(pixels[None].to(origin), layout)[0]

    def _drawing(self, stream: Stream, sample: int, draw: int) -> np.random.Generator:
        return generator(self._how.seed, self._bound.keys[sample], stream, draw)


def _check_maps(maps: Tensor, bound: BoundScore) -> None:
    """Errors: ValueError for maps that are not of these inputs."""
    check(maps)
    shape, found = bound.layout.shapes[0], tuple(maps.shape[1:])
    if len(maps) != len(bound) or found not in (shape, shape[1:] if len(shape) == 3 else shape):
        raise ValueError(
            f"maps: expected one for each input of shape {['B', *shape]}, with or without its "
            f"channels, {len(bound)} of them; got {list(maps.shape)}"
        )


def _reduced(sample: Tensor, reduction: str) -> Floats:
    return levels.reduce(np.asarray(array(sample), dtype=np.float64), reduction)
