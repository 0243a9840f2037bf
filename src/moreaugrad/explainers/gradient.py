"""The gradient of the score, and means of it under Gaussian noise."""

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
from moreaugrad.score.noise import RELATIVE, Noise
from moreaugrad.score.score import Score
from moreaugrad.settings import expect
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
    """Fraction of the entries that is kept, by magnitude; the others are set to zero."""

    method: ClassVar[str] = "simple-gradient"
    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT,)

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 < self.keep <= 1, "keep", "a fraction in (0, 1]", self.keep)

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
        """H c; with `times_input` c * g + H (x * c). The entries that are kept are constant."""
        if self.keep < 1:
            cotangent = torch.where(maps.values != 0, cotangent, 0.0)
        if not self.times_input:
            return gradient_and_product(bound, cotangent)[1]
        gradient, product = gradient_and_product(bound, bound.origin * cotangent)
        return cotangent * gradient + product


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothedExplainer(Explainer):
    """A method whose score is the mean over `samples` noise samples z ~ N(0, sigma^2 I)."""

    sigma: float = 0.15
    """Standard deviation of the noise, as a fraction of each input's own range (max - min); with
    sigma_mode "absolute" in the input's units."""
    samples: int = 64
    """Number of noise samples."""
    sigma_mode: str = RELATIVE
    """Units of `sigma`: "relative" or "absolute"."""
    seed: int = 0
    """Random seed; the noise is a function of (seed, id of the sample, number of the draw)."""

    def _noise(self) -> Noise:
        return Noise(self.seed)

    @cached_property
    def _score(self) -> Score:
        return replace(
            super()._score, sigma=self.sigma, samples=self.samples,
            sigma_mode=self.sigma_mode, noise=self._noise(),
        )  # fmt: skip

    def _draws(self) -> int:
        return self.samples if self.sigma > 0 else 1

    def fixed(self, draws: int) -> Self:
        return replace(super().fixed(draws), samples=min(self.samples, draws))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NoisyMean(SmoothedExplainer):
    """A = mean of h(grad f(x + z)) over `samples` noise samples z ~ N(0, sigma^2 I).

    The explanation's error is the standard error of this mean.
    """

    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT, STEIN)

    @abstractmethod
    def _each(self, gradient: Tensor, counts: Tensor) -> Tensor:
        """h: the map of one noise sample from its gradient, `[m, n]` each. counts: number of the
        entries that are not padding, `[m]`."""

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
        size = 2 * -(-self.samples // (2 * BLOCKS))  # even: antithetic pairs stay together
        (sums,) = bound.block_sums(work, None, range(self.samples), 1, size)
        maps = sums.sum(0) / self.samples
        found = Solution.direct(maps, evaluations=self.samples, status=Status.FIXED_BUDGET)
        if len(sums) == 1:
            return found
        counts = maps.new_tensor([min(size, self.samples - i * size) for i in range(len(sums))])
        means = sums / counts[:, None, None]
        # sum_j m_j |mean_j - mean|^2 / (J - 1) estimates the variance of one noise sample.
        weights = (counts / (len(sums) - 1) / self.samples).sqrt()
        apart = (means - maps) * weights[:, None, None]
        wider = maps.new_tensor([student_factor(rows) for rows in apart.unbind(1)])
        error = wider * apart.square().sum((0, 2)).sqrt() / maps.norm(dim=1)
        same = (means == means[0]).all(2).all(0)
        # Equal terms have no error, but their sum has rounding.
        return found.marked(Status.UNVARIED, same, error.masked_fill(same, 0.0))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothGrad(NoisyMean):
    """A = mean of grad f(x + z) over `samples` antithetic noise samples z ~ N(0, sigma^2 I).

    >>> maps = mg.SmoothGrad(model, samples=8).attribute(x)

    The explanation's error is the standard error of this mean.

    Source: Smilkov et al. (2017). Differs: signed, antithetic, one target for all noise samples.
    """

    method: ClassVar[str] = "smoothgrad"

    def _each(self, gradient: Tensor, counts: Tensor) -> Tensor:
        return gradient

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        return product(bound, cotangent, through)
