"""Shrinkage of a noisy mean towards a centre, band by band, with the weights taken from the data.

The mean M of a gradient over noise is unbiased and noisy; the centre S, the gradient through mean
activation derivatives, has hardly any noise and a bias. In each band of frequencies M becomes

    (1 - w) k S + w M,   w = (Q - C) / (V + Q - 2 C),

which has the least expected squared distance from the true mean: V is the variance of M, Q the
expected squared distance of k S, and C the covariance of the two, as S is made of the same noise
samples. All of them are estimated from two halves of the noise samples: distances between the mean
of one half and the centre of the other have no common noise. w tends to 1 as noise samples grow in
number, so that the estimate is consistent.
Source: James and Stein (1961). Differs: by bands, and with a centre that is not independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from moreaugrad.score.bound_score import BoundScore

RINGS = 11
"""Bands of radial frequency."""
LEAST_AXIS = 8
"""Axes shorter than this have no frequencies to speak of."""
LEAST_BAND = 40
"""Bands of fewer coefficients are not shrunk: they do not show how far the centre is off."""

_COLOURS = (
    (1 / math.sqrt(3), 1 / math.sqrt(3), 1 / math.sqrt(3)),
    (1 / math.sqrt(2), -1 / math.sqrt(2), 0.0),
    (1 / math.sqrt(6), 1 / math.sqrt(6), -2 / math.sqrt(6)),
)
"""Sum, red against green, yellow against blue: an orthonormal basis of three channels."""


@dataclass(frozen=True, eq=False)
class Bands:
    """An orthonormal transform of maps `[.., n]`, and the band of each of its coefficients.

    Images `[C, H, W]` and volumes have the cosine transform of their spatial axes and bands of
    radial frequency, for each colour component of images with three channels; other inputs are one
    band. So are samples with padding, and sequences, whose bands would change with their padding.
    """

    shape: tuple[int, ...]
    """The input's shape; () for one band."""
    like: Tensor
    """Of the maps' dtype and device."""
    entries: Tensor
    """Entries of each sample that are not padding, `[B]`."""

    @classmethod
    def of(cls, bound: BoundScore, like: Tensor) -> Bands:
        shape, *others = bound.layout.shapes
        spatial = not others and bound.mask is None and len(shape) in (3, 4)
        spatial = spatial and min(shape[1:]) >= LEAST_AXIS
        return cls(shape if spatial else (), like[:0], bound.counts)

    @cached_property
    def index(self) -> Tensor:
        """The band of each coefficient, `[n]`."""
        return _bands(self.shape)[0].to(self.like.device)

    @cached_property
    def _bases(self) -> list[Tensor]:
        found = [_cosines(size) for size in self.shape[1:]]
        colours = torch.tensor(_COLOURS, dtype=torch.float64, device="cpu")
        found = [colours if _coloured(self.shape) else self.like.new_empty(0), *found]
        return [basis.to(self.like) for basis in found]

    def coefficients(self, maps: Tensor, inverse: bool = False) -> Tensor:
        """The transform of maps `[.., n]`, or back."""
        if not self.shape:
            return maps
        found = maps.reshape(-1, *self.shape)
        for axis, basis in enumerate(self._bases, start=1):
            if len(basis):
                matrix = basis.T if inverse else basis
                found = (found.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
        return found.reshape(maps.shape)

    def sums(self, values: Tensor) -> Tensor:
        """Sums of `[.., n]` over each band, `[.., bands]`."""
        if not self.shape:
            return values.sum(-1, keepdim=True)
        flat = values.reshape(-1, values.shape[-1])
        found = flat.new_zeros(len(flat), len(_bands(self.shape)[1]))
        return found.index_add_(1, self.index, flat).reshape(*values.shape[:-1], -1)

    @property
    def counts(self) -> Tensor:
        """Number of coefficients in each band, `[B, bands]` or `[1, bands]`."""
        if not self.shape:
            return self.entries[:, None]
        return _bands(self.shape)[1][None].to(self.like.device)

    def spread(self, weights: Tensor) -> Tensor:
        """Weights of bands `[.., bands]` for each coefficient, `[.., n]`."""
        return weights[..., self.index] if self.shape else weights


def _coloured(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] == 3


@lru_cache
def _bands(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The band of each coefficient of images of that shape, `[n]`, and the size of each band."""
    radius = torch.zeros(shape[1:], dtype=torch.float64, device="cpu")
    for axis, size in enumerate(shape[1:]):
        own = torch.arange(size, dtype=torch.float64, device="cpu").div_(size).square()
        radius = radius + own.reshape([-1 if i == axis else 1 for i in range(radius.ndim)])
    ring = (radius / radius.ndim).sqrt().mul(RINGS).long().clamp_max(RINGS - 1)
    each = 1 if _coloured(shape) else shape[0]
    counts = each * ring.flatten().bincount(minlength=RINGS)
    band = ring.new_tensor(_merged(counts.tolist()))
    parts = torch.arange(shape[0], device="cpu") * _coloured(shape)
    found = band[ring] + (band[-1] + 1) * parts.reshape(-1, *[1] * ring.ndim)
    return found.flatten(), found.flatten().bincount()


def _merged(counts: list[int]) -> list[int]:
    """The band of each ring: neighbours are one band until it has `LEAST_BAND` coefficients."""
    bands, filled = [0], counts[0]
    for count in counts[1:]:
        fresh = filled >= LEAST_BAND
        bands.append(bands[-1] + fresh)
        filled = count if fresh else filled + count
    if filled < LEAST_BAND:  # the last band joins the one before
        bands = [min(band, max(0, bands[-1] - 1)) for band in bands]
    return bands


@lru_cache
def _cosines(size: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) of one axis, `[size, size]`."""
    order = torch.arange(size, dtype=torch.float64, device="cpu")
    found = (math.pi / size * order[:, None] * (order + 0.5)).cos() * math.sqrt(2 / size)
    found[0] /= math.sqrt(2)
    return found


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """How the means of samples are shrunk towards their centre: (1 - w) k S + w M in the bands."""

    bands: Bands
    weight: Tensor
    """w of each band, `[B, bands]`."""
    fixed: Tensor
    """(1 - w) k S, as coefficients `[B, n]`."""
    doubt: Tensor
    """M - k S in the size of the error that M's own variance does not have, `[B, n]`."""
    square: Tensor
    """Expected squared distance of the shrunk mean from the true one, `[B]`."""

    @classmethod
    def of(
        cls,
        bands: Bands,
        halves: Tensor,
        variance: Tensor,
        centres: Tensor,
        where: Tensor | None = None,
    ) -> Shrinkage:
        """halves, centres: the mean and the centre of each half of the noise samples, `[2, B, n]`.
        variance: V of each band, `[B, bands]`. where: which samples are shrunk, `[B]`; None: all
        whose centres are finite.
        """
        # 0 times inf where a slope that is 0 almost everywhere meets one that is not finite.
        usable = torch.isfinite(centres).all(2).all(0)
        where = usable if where is None else where & usable
        centres = torch.where(usable[:, None], centres, 0.0)
        m, s = bands.coefficients(halves), bands.coefficients(centres)
        tiny = torch.finfo(m.dtype).tiny
        # Where the centre itself is mostly noise, its halves hardly agree.
        common = torch.maximum(bands.sums(s[0] * s[1]), bands.sums(s.square()).mean(0) / 4)
        k = bands.sums(s[0] * m[1] + s[1] * m[0]) / (2 * common).clamp_min(tiny)
        scaled = bands.spread(k) * s
        across = bands.sums((m - scaled.flip(0)).square()).mean(0)
        within = bands.sums((m - scaled).square()).mean(0)
        own = bands.sums((scaled[0] - scaled[1]).square()) / 4  # variance of k S
        far = (across - 2 * variance - own).clamp_min(0)
        most, least = torch.minimum(variance, far), -(variance * far).sqrt()
        both = ((across - within) / 4).clamp(least, most)
        apart = variance + far - 2 * both
        count = bands.counts.to(m).clamp_min(1)
        plain = (count < LEAST_BAND) | (apart <= 0)
        weight = torch.where(plain | ~where[:, None], 1.0, (far - both) / apart).clamp(0, 1)
        # What this many coefficients cannot tell from zero.
        far = torch.maximum(far, variance * (2 / count).sqrt())
        varied = weight.square() * variance
        square = varied + (1 - weight).square() * far + 2 * weight * (1 - weight) * both
        start, rest = scaled.mean(0), m.mean(0) - scaled.mean(0)
        size = bands.sums(rest.square()).clamp_min(tiny)
        lost = ((square - varied).clamp_min(0) / size).sqrt()
        return cls(
            bands=bands,
            weight=weight,
            fixed=bands.spread(1 - weight) * start,
            doubt=bands.coefficients(bands.spread(lost) * rest, inverse=True),
            square=square.sum(1).clamp_min(0),
        )

    def __call__(self, means: Tensor) -> Tensor:
        """Means of the same samples `[.., B, n]`, shrunk with the same weights."""
        kept = self.bands.spread(self.weight) * self.bands.coefficients(means)
        return self.bands.coefficients(self.fixed + kept, inverse=True)
