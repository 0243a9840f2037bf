"""Penalties that follow a reference attention map A of each image."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from moreaugrad.penalties import Penalty, Weight, WeightedL2
from moreaugrad.score.inputs import per_sample
from moreaugrad.settings import Documented, expect

LENGTH_FLOOR = 1e-12
"""Gradients shorter than this count as zero: they have no direction."""


@dataclass(frozen=True, kw_only=True)
class GuidedPenalty(metaclass=Documented):
    """A penalty that differs for each image."""

    epsilon: float = field(kw_only=False)
    """Weight, a number >= 0."""
    blank: bool = False
    """Accept maps that are zero everywhere, as of images without anything to look at (an empty
    image, a crop next to the object), instead of refusing them as a mistake."""

    def __post_init__(self) -> None:
        expect(0 <= self.epsilon < math.inf, "epsilon", "a finite number >= 0", self.epsilon)

    @abstractmethod
    def at(self, attention: Tensor) -> Penalty:
        """The penalty of a batch with attention A in [0, 1], of the inputs' shape."""

    def of(self, attention: Tensor | None, x: Tensor) -> Penalty:
        """The penalty of the inputs x. Errors: ValueError for attention that is missing or not
        valid."""
        if attention is None:
            raise ValueError(
                f"attention: {type(self).__name__} needs a map for each image, [B, 1, H, W] in "
                "[0, 1], got None"
            )
        wanted = (len(x), 1, *x.shape[2:])
        if tuple(attention.shape) not in (wanted, tuple(x.shape)):
            raise ValueError(
                f"attention: expected shape {wanted} for inputs of shape {tuple(x.shape)}, got "
                f"{tuple(attention.shape)}"
            )
        flat = attention.detach().to(x.device).flatten(1)
        outside = ~((flat >= 0) & (flat <= 1)).all(1)
        if bool(outside.any()):
            raise ValueError(
                f"attention: expected numbers in [0, 1], got others in sample(s) {_rows(outside)}"
            )
        empty = (flat == 0).all(1)
        if not self.blank and bool(empty.any()):
            raise ValueError(
                f"attention: expected maps with an entry above 0, got only zeros in sample(s) "
                f"{_rows(empty)}; blank=True accepts them as images without anything to look at"
            )
        dtype = torch.promote_types(x.dtype, torch.float32)
        return self.at(flat.reshape(attention.shape).to(dtype).expand(x.shape))


@dataclass(frozen=True, kw_only=True)
class Harmonisation(GuidedPenalty):
    """R(g) = epsilon sum_i (max A - A_i + floor) g_i^2: strongest where A is low.

    >>> adversary = mg.training.Fast(mg.training.Harmonisation(0.1))
    >>> found = adversary.perturb(model, x, y, attention=torch.rand(1, 1, *x.shape[2:]))

    max A is that of each image, and 1 where A is zero everywhere.

    Source: AdvGrad section 4.3, with weights that are never negative, so that R is convex and the
    perturbation 2 epsilon (max A - A + floor) g solves the inner problem.
    """

    floor: float = 0.01
    """Weight of the entry with the most attention, a number >= 0 in the units of A."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 <= self.floor < math.inf, "floor", "a finite number >= 0", self.floor)

    def at(self, attention: Tensor) -> Penalty:
        peak = _peak(attention)
        return WeightedL2(self.epsilon * (per_sample(peak, attention) - attention + self.floor))


@dataclass(frozen=True, kw_only=True)
class PublishedHarmonisation(GuidedPenalty):
    """delta = 2 epsilon (1/2 - A) g / ||g||_2 as released: a heuristic, not a maximiser.

    >>> adversary = mg.training.Fast(mg.training.PublishedHarmonisation(0.1))
    >>> found = adversary.perturb(model, x, y, attention=torch.rand(1, 1, *x.shape[2:]))

    Where A > 1/2 the perturbation lowers the loss; the quadratic form behind it is indefinite.

    Source: AdvGrad section 4.3 and the released code.
    """

    peak: bool = False
    """Use max A / 2 of each image instead of 1/2, as printed in the paper."""

    def at(self, attention: Tensor) -> Penalty:
        half = per_sample(_peak(attention) / 2, attention) if self.peak else 0.5
        return _Heuristic(2 * self.epsilon * (half - attention))


@dataclass(frozen=True, eq=False)
class _Heuristic(Penalty):
    """The direction w * g / ||g||_2 with weights of any sign; R and R* do not exist and are NaN."""

    weight: Tensor

    def value(self, u: Tensor) -> Tensor:
        return self.conjugate(u)

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        raise ValueError(
            "expected a penalty, but the published harmonisation is a heuristic direction and "
            "has no projection: use Harmonisation"
        )

    def conjugate(self, d: Tensor) -> Tensor:
        still = (self.weight == 0).flatten(1).all(1)
        return d.new_zeros(len(d)).masked_fill(~still.to(d.device), torch.nan)

    def maximiser(self, g: Tensor) -> Tensor:
        return self.weight.to(g) * unit(g)


def unit(g: Tensor) -> Tensor:
    """g / ||g||_2 of each sample, zero where g is."""
    return g / per_sample(g.flatten(1).norm(dim=1).clamp_min(LENGTH_FLOOR), g)


def _peak(attention: Tensor) -> Tensor:
    """max A of each image, `[B]`, and 1 where A is zero everywhere."""
    peak = attention.flatten(1).amax(1)
    return torch.where(peak > 0, peak, 1.0)


def _rows(found: Tensor) -> list[int]:
    return [int(row) for row in found.nonzero()[:, 0][:10]]
