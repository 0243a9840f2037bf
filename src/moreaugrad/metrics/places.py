"""Regions of an input, what replaces them, and how relevant a map says that they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from moreaugrad.metrics.maps import REDUCTIONS, Floats, array, check
from moreaugrad.pictures import levels
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import InputSpace
from moreaugrad.settings import Documented, expect

UNIFORM, MEAN, BLUR = "uniform", "mean", "blur"
REPLACEMENTS = (UNIFORM, MEAN, BLUR)
"""Random values, uniform over the space's interval; the zero input, which is the space's mean; the
input under a Gaussian filter."""

BLUR_SIGMA = 5.0
"""Standard deviation of the filter, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Regions(metaclass=Documented):
    """Which regions of an input are replaced, and by what.

    >>> how = mg.metrics.Regions(size=3, draws=10)
    >>> values = mg.metrics.soft_stability(mg.Score(model).bind(x), maps, how=how)
    """

    size: int = 9
    """Side of the square regions, in pixels."""
    replacement: str | float = UNIFORM
    """What regions become: "uniform", "mean", "blur" (see `REPLACEMENTS`) or a pixel value."""
    reduction: str = "abs-sum"
    """Reduction of the map over its channels: "abs-sum", "sum" or "max-abs"."""
    draws: int = 10
    """Number of random draws over which is averaged: of orders and replacements, or of sets of
    regions."""
    seed: int = 0
    """Random seed of the draws."""

    def __post_init__(self) -> None:
        if isinstance(self.replacement, str):
            choose("replacement", self.replacement, REPLACEMENTS)
        else:
            finite = math.isfinite(self.replacement)
            expect(finite, "replacement", "a finite number", self.replacement)
        choose("reduction", self.reduction, REDUCTIONS[1:])
        expect(self.size >= 1, "size", "regions of at least 1 pixel", self.size)
        expect(self.draws >= 1, "draws", "at least 1", self.draws)


def check_maps(maps: Tensor, bound: BoundScore) -> None:
    """Errors: ValueError for maps that do not belong to these inputs."""
    check(maps)
    shape, found = bound.layout.shapes[0], tuple(maps.shape[1:])
    if len(maps) != len(bound) or found not in (shape, shape[1:] if len(shape) == 3 else shape):
        raise ValueError(
            f"maps: expected one for each input of shape {['B', *shape]}, with or without its "
            f"channels, {len(bound)} of them; got {list(maps.shape)}"
        )


class Places:
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
        if self.count == 1 < len(self.number) and len(shapes[0]) == 1:
            raise ValueError(
                f"size: expected regions smaller than the input, got {size} for vectors of "
                f"{len(self.number)} entries; columns of a table have size 1"
            )

    def relevance(self, sample: Tensor, reduction: str) -> Floats:
        """The sum of a sample's map, reduced over its channels, over each region: `[count]`."""
        reduced = levels.reduce(array(sample).astype(np.float64), reduction)
        sums = np.bincount(self.number, weights=reduced.ravel(), minlength=self.count)
        return np.asarray(sums, dtype=np.float64)


def replacement(
    how: Regions,
    x: Tensor,
    bound: BoundScore,
    space: InputSpace,
    places: Places,
    source: np.random.Generator,
) -> Tensor:
    """The values that replace those of a sample `x` `[n]`, in the network's units: `[n]`."""
    kind = how.replacement
    if kind == BLUR:
        image = array(x).reshape(places.shape)
        blurred = ndimage.gaussian_filter(image, (0.0, *[BLUR_SIGMA] * 2), mode="reflect")
        return torch.from_numpy(blurred.ravel()).to(x)
    if kind == MEAN:
        return torch.zeros_like(x)
    if kind == UNIFORM:
        pixels = space.low + (space.high - space.low) * torch.from_numpy(source.random(x.numel()))
    else:
        pixels = torch.full((x.numel(),), float(kind), dtype=torch.float64)
    return space.inputs(pixels[None].to(x), bound.layout)[0]
