"""A mean over Gaussian draws of what is made of each draw's gradient, with its standard error."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.bound import BoundScore
from moreaugrad.explainers.base import Explainer, Maps
from moreaugrad.explainers.derivatives import IMPLICIT, STEIN, pulled_through, stein
from moreaugrad.noise import DEFAULT_SIGMA, RELATIVE, Noise
from moreaugrad.score import Score, Smoothed
from moreaugrad.solvers.solution import Status


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NoisyMean(Explainer):
    """A = mean over z ~ N(0, sigma^2 I) of h(grad f(x + z)), by `samples` draws.

    sigma is a share of each input's own range (max - min), or absolute with sigma_mode="absolute".
    The explanation's error is the standard error of that mean.
    """

    sigma: float = DEFAULT_SIGMA
    samples: int = 64
    sigma_mode: str = RELATIVE
    seed: int = 0

    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT, STEIN)

    def __post_init__(self) -> None:
        self._score()

    @abstractmethod
    def _each(self, gradient: Tensor, counts: Tensor) -> Tensor:
        """h: the map of one draw from its gradient, `[m, n]` both; `counts` `[m]` of its entries
        are real."""

    def _noise(self) -> Noise:
        return Noise(self.seed)

    def _score(self) -> Smoothed:
        plain = super()._score()
        assert isinstance(plain, Score)
        return Smoothed(
            plain,
            sigma=self.sigma,
            samples=self.samples,
            sigma_mode=self.sigma_mode,
            noise=self._noise(),
        )

    def _draws(self) -> int:
        return self.samples

    def fixed(self, draws: int) -> Self:
        return replace(self, samples=min(self.samples, draws))

    def _pull(self, bound: BoundScore, maps: Maps, cotangent: Tensor, through: str) -> Tensor:
        if through == STEIN:
            return stein(bound, self._each, cotangent, maps.flat)
        return pulled_through(bound, self._each, cotangent)

    def _maps(self, bound: BoundScore) -> Maps:
        counts = bound.counts

        def work(points: Tensor, rows: Tensor) -> tuple[Tensor]:
            return (self._each(bound.value_and_grad_at(points, rows)[1], counts[rows]),)

        if bound.sigma is None:
            return Maps.direct(bound.mean(work)[0], evaluations=1)
        # At least four blocks for a standard error, of 16 draws where there are enough; the same
        # ones whatever the batch and the chunk.
        size = max(2, min(max(16, self.samples // 8), self.samples // 4) // 2 * 2)
        total, squares = torch.zeros_like(bound.origin), bound.origin.new_zeros(len(bound)).double()
        for start in range(0, self.samples, size):
            draws = range(start, min(start + size, self.samples))
            block = bound.mean(work, draws=draws)[0] * len(draws)
            total += block
            squares += block.double().square().sum(1) / len(draws)
        maps, count = total / self.samples, -(-self.samples // size)
        # Between blocks: sum_j m_j |mean_j - mean|^2 / (J - 1) is one draw's variance.
        between = squares - self.samples * maps.double().square().sum(1)
        variance = between.clamp_min(0) / max(1, count - 1) / self.samples
        error = variance.sqrt() / maps.double().norm(dim=1)
        return Maps.direct(
            maps,
            evaluations=self.samples,
            status=Status.FIXED_BUDGET,
            error=error.to(maps.dtype) if count > 1 else None,
        )
