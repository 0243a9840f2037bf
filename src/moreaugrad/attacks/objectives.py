"""The objectives that attacks minimise: functions of a map, fixed at the clean map."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from moreaugrad.metrics import METRICS
from moreaugrad.score.inputs import Batched, Layout, Shape
from moreaugrad.settings import expect

PER = ("element", "pixel")
GRID = 4
"""Blocks along each spatial axis, of which the least important one is chosen."""
PUBLISHED_PIXELS = 224 * 224
"""Pixels of the maps for which the weight was published."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Goal(Batched, ABC):
    """A number for each sample's map that an attack minimises, in float64.

    NaN for a map of zeros, and for one that is not finite.
    """

    @abstractmethod
    def value(self, maps: Tensor) -> Tensor:
        """The number `[B]` of maps `[B, n]` in float64, differentiable."""

    def reported(self, maps: Tensor) -> Tensor:
        """What a result reports of maps `[B, n]`: the number itself, unless a class says more."""
        return self.value(maps)

    def value_and_cotangent(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The number `[B]`, and its derivative with respect to the maps, `[B, n]` in float64."""
        with torch.enable_grad():
            entries = maps.detach().double().requires_grad_()
            value = self.value(entries)
            (slope,) = torch.autograd.grad(value.sum(), entries)
        return value.detach(), slope


@dataclass(frozen=True)
class Aim:
    """What an attack makes worse: a metric of two maps by its name in the registry, with settings;
    without a name something else."""

    metric: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def at(self, metric: str, settings: Mapping[str, Any]) -> bool:
        """Whether that is the same metric with the same settings, of those that it has."""
        if not self.metric:
            return False
        own, other = METRICS[self.metric], METRICS[metric]
        known = other.defaults()
        given = {name: value for name, value in settings.items() if name in known}
        same = own.defaults() | dict(self.settings) == known | given
        return own.target == other.target and same


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedFraction(Goal):
    """sum_i w_i |A_i| / sum_i |A_i| with weights `[B, n]`."""

    weight: Tensor

    def value(self, maps: Tensor) -> Tensor:
        magnitude = maps.abs()
        return (self.weight * magnitude).sum(1) / magnitude.sum(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _CentreShift(Goal):
    """-||C - C_0||^2 in pixels^2, C = sum_i |A_i| p_i / sum_i |A_i| with places p `[n, axes]`."""

    places: Tensor
    clean: Tensor

    def value(self, maps: Tensor) -> Tensor:
        return -(mass_centre(maps, self.places) - self.clean).square().sum(1)

    def select(self, rows: Tensor) -> _CentreShift:
        return _CentreShift(places=self.places, clean=self.clean[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class _MapDifference(Goal):
    """w mean over pixels of (P h - P h_t)^2, h the pixels' fractions of sum |A_i|, P their number.

    target: h_t `[B, P]`. The value is the same for maps of another size.
    """

    target: Tensor
    weight: float
    layout: Layout

    def value(self, maps: Tensor) -> Tensor:
        pixels = _pixels(maps.abs(), self.layout)
        fraction = pixels / pixels.sum(1, keepdim=True)
        return self.weight * pixels.shape[1] * (fraction - self.target).square().sum(1)


def mass_centre(maps: Tensor, places: Tensor) -> Tensor:
    """C `[B, axes]` of maps `[B, n]`."""
    magnitude = maps.abs()
    return magnitude @ places / magnitude.sum(1, keepdim=True)


def top_k(
    clean: Tensor,
    layout: Layout,
    *,
    ratio: float = 0.4,
    count: int | None = None,
    per: str = "element",
    of_all: bool = False,
) -> WeightedFraction:
    """D = sum over K of |A_i| / sum |A_i|, K the k largest entries of |clean| that are not zero.

    k is `count`, or the fraction `ratio` of the clean map's non-zero entries, rounded down, and at
    least 1. per "pixel": entries are sums over the first axis (channels) of each input, and K holds
    whole pixels. of_all: as published, the fraction of all entries; K may then hold zeros.
    Source: Ghorbani et al. (2019); Zhang and Farnia (2023), equation (7).
    """
    magnitude = clean.abs()
    if per == "pixel":
        magnitude = _pixels(magnitude, layout)
    support = magnitude > 0
    size = torch.full_like(support[:, 0], magnitude.shape[1], dtype=torch.long)
    base = size if of_all else support.sum(1)
    # With the slack, 0.29 * 100 is not rounded down to 28.
    wanted = (ratio * base.double() + 1e-9).floor().long() if count is None else 0 * size + count
    # Sorting is stable: of equal entries the first come first.
    order = magnitude.argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    inside = (ranks < wanted.clamp_min(1)[:, None]) & (support | of_all)
    weight = inside.double()
    return WeightedFraction(weight=_elements(weight, layout) if per == "pixel" else weight)


def region(clean: Tensor, layout: Layout, mask: Tensor | Sequence[int] | None) -> WeightedFraction:
    """-(the fraction of sum |A_i| in the region).

    mask: non-zero inside, `[*spatial]` or `[B, *spatial]`; or a box (top, left, height, width) in
    pixels, the starts and then the lengths of all spatial axes; or None for the one of 4 x 4 blocks
    with the smallest fraction of the clean map.
    Source: Ghorbani et al. (2019), targeted attack.
    """
    spatial = _spatial(layout, "target-region")
    if mask is None:
        inside = _least_block(_pixels(clean.abs(), layout), spatial)
    elif isinstance(mask, Tensor):
        inside = _as_mask(mask.to(clean.device), len(clean), spatial)
    else:
        inside = _box(mask, spatial, clean.device).expand(len(clean), -1)
    return WeightedFraction(weight=-_elements(inside.double(), layout))


def centre_shift(clean: Tensor, layout: Layout) -> _CentreShift:
    """-||C - C_0||^2 of the clean map. Source: Ghorbani et al. (2019), mass-centre attack."""
    spatial = _spatial(layout, "mass-centre")
    axes = [torch.arange(length, device=clean.device, dtype=torch.float64) for length in spatial]
    grid = torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], dim=1)
    places = grid.repeat(layout.size // len(grid), 1)
    return _CentreShift(places=places, clean=mass_centre(clean.double(), places))


def map_difference(
    clean: Tensor, layout: Layout, target: Tensor | None, weight: float
) -> _MapDifference:
    """The difference between the map and `target`, of the shape of the inputs, one for all or one
    for each sample; None takes the clean map rotated by 180 degrees. weight: of the mean squared
    difference of fractions at 224 x 224 pixels.

    Errors: ValueError for a target of another shape, of zeros or not finite.
    Source: Dombrowski et al. (2019).
    """
    if target is None:
        pixels = _pixels(clean.abs().double(), layout)
        turned = [part.flip(1) for part in torch.split(pixels, _pixel_counts(layout), dim=1)]
        wanted = torch.cat(turned, dim=1)
    else:
        shape = layout.shapes[0]
        if len(layout.shapes) > 1 or tuple(target.shape) not in (shape, (len(clean), *shape)):
            raise ValueError(
                f"target_map: expected shape {shape} or {(len(clean), *shape)}, of one input, got "
                f"{tuple(target.shape)}"
            )
        flat = target.to(clean.device).double().abs().reshape(-1, layout.size)
        if not bool((flat.sum(1) > 0).all() and torch.isfinite(flat).all()):
            raise ValueError("target_map: expected finite numbers that are not all zero")
        wanted = _pixels(flat.expand(len(clean), -1), layout)
    fraction = wanted / wanted.sum(1, keepdim=True)
    return _MapDifference(target=fraction, weight=weight / PUBLISHED_PIXELS**2, layout=layout)


def _spatial(layout: Layout, name: str) -> Shape:
    """The spatial axes of the input. Errors: ValueError for several inputs, or without axes."""
    if len(layout.shapes) != 1 or len(layout.shapes[0]) < 2:
        raise ValueError(
            f"{name}: expected one input [B, channels, positions...], got samples of shape "
            f"{', '.join(map(str, layout.shapes))}; use top-k"
        )
    return layout.shapes[0][1:]


def _pixels(magnitude: Tensor, layout: Layout) -> Tensor:
    """Entries `[B, n]` summed over the first axis of each input that has more than one."""
    parts = layout.split(magnitude)
    return torch.cat([p.flatten(2).sum(1) if p.ndim > 2 else p for p in parts], dim=1)


def _elements(pixels: Tensor, layout: Layout) -> Tensor:
    """The number of each pixel for all of its entries, `[B, n]`."""
    lengths = _pixel_counts(layout)
    parts = [
        part.repeat(1, size // length)
        for part, size, length in zip(
            torch.split(pixels, lengths, dim=1), layout.sizes, lengths, strict=True
        )
    ]
    return torch.cat(parts, dim=1)


def _pixel_counts(layout: Layout) -> list[int]:
    return [math.prod(shape[1:]) if len(shape) > 1 else shape[0] for shape in layout.shapes]


def _least_block(pixels: Tensor, spatial: Shape) -> Tensor:
    """True on the block of the grid with the smallest sum, `[B, pixels]`."""
    index = torch.zeros(spatial, dtype=torch.long, device=pixels.device)
    for axis, length in enumerate(spatial):
        block = torch.arange(length, device=pixels.device) * min(GRID, length) // length
        index = index * GRID + block.reshape([-1 if i == axis else 1 for i in range(len(spatial))])
    flat = index.flatten()
    total = pixels.new_zeros(len(pixels), GRID ** len(spatial)).index_add_(1, flat, pixels)
    present = torch.bincount(flat, minlength=total.shape[1]) > 0
    return flat == total.masked_fill(~present, math.inf).argmin(1, keepdim=True)


def _as_mask(mask: Tensor, batch: int, spatial: Shape) -> Tensor:
    shape, known = tuple(mask.shape), (spatial, (batch, *spatial))
    expect(shape in known, "region", f"a mask of shape {known[0]} or {known[1]}", shape)
    found = (mask != 0).reshape(-1, math.prod(spatial)).expand(batch, -1)
    if not bool(found.any(1).all()):
        raise ValueError("region: expected a mask that is not empty")
    return found


def _box(given: Sequence[int], spatial: Shape, device: torch.device) -> Tensor:
    axes = len(spatial)
    starts, lengths = given[:axes], given[axes:]
    fits = len(given) == 2 * axes and all(
        start >= 0 and length >= 1 and start + length <= limit
        for start, length, limit in zip(starts, lengths, spatial, strict=True)
    )
    numbers = f"{2 * axes} numbers (a start and then a length for each axis)"
    expect(fits, "region", f"{numbers} of a box inside {spatial}", tuple(given))
    inside = torch.zeros(spatial, dtype=torch.bool, device=device)
    inside[tuple(slice(s, s + n) for s, n in zip(starts, lengths, strict=True))] = True
    return inside.reshape(1, -1)
