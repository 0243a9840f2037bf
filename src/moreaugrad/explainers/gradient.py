"""The plain gradient of the score, and its mean under Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.derivatives import IMPLICIT, gradient_and_product, product
from moreaugrad.explainers.noisy_mean import NoisyMean
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.solvers.solution import Solution
from moreaugrad.solvers.sparsity import eta_for


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SimpleGradient(Explainer):
    """A = grad f(x); with `times_input`, x * grad f(x).

    >>> maps = mg.SimpleGradient(model).attribute(x)

    Source: Simonyan et al. (2014). Differs: signed.
    """

    times_input: bool = False
    """Multiply by the input."""
    keep: float = 1.0
    """Fraction of the entries with the largest magnitude that stays; the rest is set to zero."""

    method: ClassVar[str] = "simple-gradient"
    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep: expected a share in (0, 1], got {self.keep!r}")

    def _maps(self, bound: BoundScore) -> Solution:
        _, maps = bound.value_and_grad()
        if self.times_input:
            maps = maps * bound.origin
        if self.keep < 1:
            magnitude = maps.abs()
            largest_out = eta_for(magnitude, 1 - self.keep, bound.counts)
            maps = torch.where(magnitude <= largest_out[:, None], 0.0, maps)
        return Solution.direct(maps, evaluations=1)

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        """H c; with `times_input` c * g + H (x * c). Which entries stay is held."""
        if self.keep < 1:
            cotangent = torch.where(maps.values != 0, cotangent, 0.0)
        if not self.times_input:
            return gradient_and_product(bound, cotangent)[1]
        gradient, product = gradient_and_product(bound, bound.origin * cotangent)
        return cotangent * gradient + product


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothGrad(NoisyMean):
    """A = mean over z ~ N(0, sigma^2 I) of grad f(x + z), by `samples` antithetic draws.

    >>> maps = mg.SmoothGrad(model, samples=8).attribute(x)

    The explanation's error is the standard error of that mean.

    Source: Smilkov et al. (2017). Differs: signed, antithetic, one target for all draws.
    """

    sigma: float = 0.15

    method: ClassVar[str] = "smoothgrad"

    def _each(self, gradient: Tensor, counts: Tensor) -> Tensor:
        return gradient

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        return product(bound, cotangent, through)
