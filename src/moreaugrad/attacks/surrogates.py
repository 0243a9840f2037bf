"""What the steps of a matched attack follow: differentiable objectives in place of metrics.

An overlap of largest entries, or a correlation of ranks, is constant nearly everywhere; the other
metrics are followed themselves.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreaugrad.attacks.objectives import Goal, centre_shift
from moreaugrad.metrics import Metric
from moreaugrad.metrics.maps import AS_IS, reduced, sample
from moreaugrad.metrics.similarity import GAUSSIAN, STABILISERS, Window
from moreaugrad.metrics.sparsity import largest
from moreaugrad.pictures import levels
from moreaugrad.score.inputs import Layout
from moreaugrad.settings import expect

RIVALS = 3
"""The k largest entries of the clean map are compared with so many times k of the attacked one."""
Settings = Mapping[str, Any]
"""Those of a metric, spelt out."""
Surrogate = Callable[[Tensor, Layout, Settings], Goal]
"""Of clean maps `[B, n]`: the objective that is minimised."""


def shaped(maps: Tensor, layout: Layout) -> Tensor:
    """Maps `[B, n]` in the shape of the input; flat ones where there are several inputs."""
    return maps if len(layout.shapes) > 1 else maps.reshape(len(maps), *layout.shapes[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class _OfPixels(Goal):
    """A function of maps that are reduced over the channels as the metric does."""

    layout: Layout
    reduction: str

    def value(self, maps: Tensor) -> Tensor:
        return self._of(reduced(shaped(maps, self.layout), self.reduction))

    @abstractmethod
    def _of(self, pixels: Tensor) -> Tensor:
        """The number `[B]` of reduced maps `[B, ...]`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Overlap(_OfPixels):
    """sum over K of |A_i| / sum of the RIVALS k largest |A_i|, with the k entries K.

    inside: K, the largest entries of the clean map. Entries that are too small to be among the k
    largest do not count: steps that also made these grow would lose less overlap.
    """

    inside: Tensor

    def _of(self, pixels: Tensor) -> Tensor:
        magnitude = pixels.abs().flatten(1)
        counts = (RIVALS * self.inside.sum(1)).clamp(1, magnitude.shape[1]).long()
        largest_first = magnitude.detach().topk(int(counts.max())).values
        least = largest_first.gather(1, counts[:, None] - 1)
        # All entries are summed, so that no sum depends on the other samples.
        rivals = torch.where(magnitude >= least, magnitude, 0.0).sum(1)
        return (self.inside * magnitude).sum(1) / rivals


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cosine(_OfPixels):
    """<a, b> / ||b||. clean: a, of length 1. centred: of deviations from the mean. counting: 1 at
    the values that the mean is of, None for all."""

    clean: Tensor
    signed: bool
    centred: bool
    counting: Tensor | None

    def _of(self, pixels: Tensor) -> Tensor:
        values = _values(pixels, self.signed, self.centred, self.counting)
        length: Tensor = torch.linalg.vector_norm(values, dim=1)
        return (self.clean * values).sum(1) / length


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shift(_OfPixels):
    """The objective `centre_shift` of the pixels."""

    of_pixels: Goal

    def _of(self, pixels: Tensor) -> Tensor:
        return self.of_pixels.value(pixels.flatten(1))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Structure(_OfPixels):
    """SSIM with a clean map `[B, channels, height, width]`. Where maps are displayed, the level at
    which a map is clipped is held fixed for the gradient."""

    clean: Tensor
    settings: Settings
    window: Window

    def _of(self, pixels: Tensor) -> Tensor:
        a, b = self.clean, shown(pixels, self.settings)
        span = self._span(a, b)
        c1, c2 = ((factor * span) ** 2 for factor in STABILISERS)
        matrices = [self.window.matrix(size) for size in a.shape[-2:]]
        rows, columns = (torch.from_numpy(matrix).to(a) for matrix in matrices)

        def mean(values: Tensor) -> Tensor:
            return rows @ values @ columns.T

        mean_a, mean_b = mean(a), mean(b)
        count = self.window.size**2
        correction = count / (count - 1) if self.window.unbiased else 1.0
        squares = correction * (mean(a * a + b * b) - mean_a**2 - mean_b**2)
        covariance = correction * (mean(a * b) - mean_a * mean_b)
        above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
        found = above / ((mean_a**2 + mean_b**2 + c1) * (squares + c2))
        if not self.settings["masked"]:
            return found.mean((1, 2, 3))
        near = ((a != 0) | (b != 0)).to(a)
        near = ((rows > 0).to(a) @ near @ (columns > 0).to(a).T > 0).to(a)
        return (found * near).sum((1, 2, 3)) / near.sum((1, 2, 3))

    def _span(self, a: Tensor, b: Tensor) -> Tensor:
        if self.settings["data_range"] is not None:
            return a.new_full((len(a), 1, 1, 1), self.settings["data_range"])
        both = torch.stack([a, b.detach()])
        return both.amax((0, 2, 3, 4), keepdim=True)[0] - both.amin((0, 2, 3, 4), keepdim=True)[0]


def shown(pixels: Tensor, settings: Settings) -> Tensor:
    """Reduced maps as images `[B, channels, height, width]`, scaled to [0, 1] where they are
    displayed; the same values as `levels.normalise`, but differentiable."""
    images = pixels if pixels.ndim == 4 else pixels[:, None]
    if not settings["displayed"]:
        return images
    signed = settings["reduction"] == "sum"
    array = images.detach().cpu().double().numpy()
    low, high = (
        torch.from_numpy(limit).to(images)
        for limit in levels.limits(array, settings["percentile"], signed=signed)
    )
    width = high - low
    wide = width > levels.LEAST_WIDTH * high
    moved = images if signed else images.abs() - low
    return torch.where(wide, moved / torch.where(wide, width, 1.0), 0.0).clamp(-1, 1)


def _values(pixels: Tensor, signed: bool, centred: bool, counting: Tensor | None) -> Tensor:
    values = pixels.flatten(1) if signed else pixels.abs().flatten(1)
    if not centred:
        return values
    if counting is None:
        return values - values.mean(1, keepdim=True)
    mean = (counting * values).sum(1, keepdim=True) / counting.sum(1, keepdim=True)
    return counting * (values - mean)


def _counting(settings: Settings) -> Tensor | None:
    """1 at the values of a reduced map that are not padding, `[B, values]`; None without any."""
    mask: Tensor | None = settings.get("mask")
    if mask is None:
        return None
    whole = settings["reduction"] == AS_IS or mask.ndim < 4
    return (mask if whole else mask.any(1)).flatten(1).double()


def overlap(clean: Tensor, layout: Layout, settings: Settings, nonzero: bool | None = None) -> Goal:
    """Of the entries whose overlap the metric counts. nonzero: where it is no setting."""
    how, number = settings["reduction"], (settings["ratio"], settings.get("count"))
    nonzero = settings["nonzero"] if nonzero is None else nonzero
    inside = torch.zeros_like(_pixels(clean, layout, how).flatten(1))
    counting = _counting(settings)
    for row, part in enumerate(shaped(clean, layout)):
        values = sample(part, how)
        if values is not None:
            own = slice(None) if counting is None else counting[row].cpu().numpy() > 0
            kept = np.zeros(values.size, dtype=bool)
            kept[own] = largest(values.ravel()[own], *number, nonzero)
            inside[row] = torch.from_numpy(kept).to(inside)
    return _Overlap(layout=layout, reduction=how, inside=inside)


def cosine(clean: Tensor, layout: Layout, settings: Settings, centred: bool = False) -> Goal:
    """The cosine, which decreases as the normalised distance grows."""
    how, signed = settings["reduction"], settings["signed"]
    counting = _counting(settings) if centred else None
    values = _values(_pixels(clean, layout, how), signed, centred, counting)
    return _Cosine(
        layout=layout, reduction=how, signed=signed, centred=centred, counting=counting,
        clean=values / values.norm(dim=1, keepdim=True),
    )  # fmt: skip


def correlation(clean: Tensor, layout: Layout, settings: Settings) -> Goal:
    """The correlation of the values, also in place of that of their ranks."""
    return cosine(clean, layout, settings, centred=True)


def structure(clean: Tensor, layout: Layout, settings: Settings) -> Goal:
    """SSIM."""
    window = Window(**{name: settings[name] for name in vars(GAUSSIAN)})
    how = settings["reduction"]
    images = shown(_pixels(clean, layout, how), settings)
    return _Structure(layout=layout, reduction=how, clean=images, settings=settings, window=window)


def shift(clean: Tensor, layout: Layout, settings: Settings) -> Goal:
    """The squared shift of the centre of the magnitudes, which increases with the metric.

    Errors: ValueError for several inputs.
    """
    number, how = len(layout.shapes), settings["reduction"]
    expect(number == 1, "mass-centre-shift", "one input, whose entries have places", number)
    pixels = _pixels(clean, layout, how)
    places = Layout(((1, *pixels.shape[1:]),), (pixels.dtype,))
    goal = centre_shift(pixels.flatten(1), places)
    return _Shift(layout=layout, reduction=how, of_pixels=goal)


def _pixels(clean: Tensor, layout: Layout, how: str) -> Tensor:
    return reduced(shaped(clean.double(), layout), how)


def part(row: Metric) -> str:
    """`module:function` of a metric of this library; another text for a user's."""
    return row.target.removeprefix("moreaugrad.metrics.")


OVERLAPS: Mapping[str, Surrogate] = {
    "sparsity:top_k_intersection": overlap,
    "sparsity:dice": partial(overlap, nonzero=True),
    "sparsity:jaccard": partial(overlap, nonzero=False),
}
"""By `part` of a metric: those with a gradient at the clean map, where other
metrics have their best value."""
SURROGATES: Mapping[str, Surrogate] = {
    **OVERLAPS,
    "similarity:normalised_distance": cosine,
    "similarity:cosine": cosine,
    "similarity:pearson": correlation,
    "similarity:spearman": correlation,
    "similarity:mass_centre_shift": shift,
    "similarity:ssim": structure,
}
"""All of them."""
