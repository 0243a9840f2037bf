"""A mean over Gaussian draws of what is made of each draw's gradient, with its standard error."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

from torch import Tensor

from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.derivatives import IMPLICIT, STEIN, pulled_through, stein
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.noise import DEFAULT_SIGMA, RELATIVE, Noise
from moreaugrad.score.score import Score
from moreaugrad.solvers.blocks import student
from moreaugrad.solvers.solution import Solution, Status

BLOCKS = 32
"""Groups of draws, at most, whose means differ by the standard error."""


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

    def __post_init__(self) -> None:
        super().__post_init__()

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
        wider = maps.new_tensor([student(rows) for rows in apart.unbind(1)])
        error = wider * apart.square().sum((0, 2)).sqrt() / maps.norm(dim=1)
        same = (means == means[0]).all(2).all(0)
        # Not the rounding of a sum of equal terms.
        return found.marked(Status.UNVARIED, same, error.masked_fill(same, 0.0))
