"""The gradient of the score, and means over Gaussian noise of what is made of it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.derivatives import (
    IMPLICIT,
    STEIN,
    gradient_and_product,
    product,
    pulled_through,
    stein,
)
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.noise import DEFAULT_SIGMA, RELATIVE, Noise
from moreaugrad.score.score import Score
from moreaugrad.solvers.blocks import student_factor
from moreaugrad.solvers.solution import Solution, Status
from moreaugrad.solvers.sparsity import eta_for

BLOCKS = 32
"""Most groups of noise samples from whose means the standard error is estimated."""


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
class NoisyMean(Explainer):
    """A = mean over z ~ N(0, sigma^2 I) of h(grad f(x + z)), by `samples` draws.

    The explanation's error is the standard error of that mean.
    """

    sigma: float = DEFAULT_SIGMA
    """Standard deviation of the noise, as a fraction of each input's own range (max - min); with
    sigma_mode "absolute" in the input's units."""
    samples: int = 64
    """Noise samples that the mean is over."""
    sigma_mode: str = RELATIVE
    """Units of `sigma`: "relative" or "absolute"."""
    seed: int = 0
    """Random seed of the noise, which is a function of (seed, id of the sample, draw)."""

    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT, STEIN)

    @abstractmethod
    def _each(self, gradient: Tensor, counts: Tensor) -> Tensor:
        """h: the map of one draw from its gradient, `[m, n]` both; `counts` `[m]` of its entries
        are real."""

    def _noise(self) -> Noise:
        return Noise(self.seed)

    @cached_property
    def _score(self) -> Score:
        return replace(
            super()._score, sigma=self.sigma, samples=self.samples,
            sigma_mode=self.sigma_mode, noise=self._noise(),
        )  # fmt: skip

    def _draws(self) -> int:
        return self.samples

    def fixed(self, draws: int) -> Self:
        return replace(self, samples=min(self.samples, draws))

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        if through == STEIN:
            return stein(bound, self._each, cotangent, maps.values)
        return pulled_through(bound, self._each, cotangent)

    def _maps(self, bound: BoundScore) -> Solution:
        counts = bound.counts

        def work(points: Tensor, rows: Tensor) -> tuple[Tensor]:
            return (self._each(bound.value_and_grad_at(points, rows)[1], counts[rows]),)

        if bound.sigma is None:
            return Solution.direct(bound.mean(work)[0], evaluations=1)
        size = 2 * -(-self.samples // (2 * BLOCKS))  # even: antithetic draws stay together
        (sums,) = bound.block_sums(work, None, range(self.samples), 1, size)
        maps = sums.sum(0) / self.samples
        found = Solution.direct(maps, evaluations=self.samples, status=Status.FIXED_BUDGET)
        if len(sums) == 1:
            return found
        counts = maps.new_tensor([min(size, self.samples - i * size) for i in range(len(sums))])
        means = sums / counts[:, None, None]
        # Between blocks: sum_j m_j |mean_j - mean|^2 / (J - 1) is one draw's variance.
        weights = (counts / (len(sums) - 1) / self.samples).sqrt()
        apart = (means - maps) * weights[:, None, None]
        wider = maps.new_tensor([student_factor(rows) for rows in apart.unbind(1)])
        error = wider * apart.square().sum((0, 2)).sqrt() / maps.norm(dim=1)
        same = (means == means[0]).all(2).all(0)
        # Not the rounding of a sum of equal terms.
        return found.marked(Status.UNVARIED, same, error.masked_fill(same, 0.0))


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
