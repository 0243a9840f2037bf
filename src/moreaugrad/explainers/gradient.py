"""The gradient of the score, and its mean under Gaussian noise."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.explainers.anytime import FIRST, GROWTH, Stages
from moreaugrad.explainers.backward import GradientExplainer
from moreaugrad.explainers.derivatives import (
    IMPLICIT,
    STEIN,
    gradient_and_product,
    product,
    pulled_through,
    stein,
)
from moreaugrad.explainers.smoothed import SmoothedExplainer
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import common, rank_from_top
from moreaugrad.settings import expect
from moreaugrad.solvers.block_means import BlockMeans
from moreaugrad.solvers.blocks import relative
from moreaugrad.solvers.solution import Solution, Status
from moreaugrad.solvers.sparsity import zeroed
from moreaugrad.solvers.z_scores import Measured


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SimpleGradient(GradientExplainer):
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
        return Solution.direct(kept(maps, self.keep, bound.counts), evaluations=1)

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        """H c; with `times_input` c * g + H (x * c). Which entries are kept is constant."""
        cotangent = _on_kept(cotangent, maps, self.keep)
        if not self.times_input:
            return gradient_and_product(bound, cotangent)[1]
        gradient, product = gradient_and_product(bound, bound.origin * cotangent)
        return cotangent * gradient + product


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NoisyMean(GradientExplainer, SmoothedExplainer):
    """A = mean of h(grad f(x + z)) over `samples` noise samples z ~ N(0, sigma^2 I).

    The explanation's error is the standard error of this mean.
    """

    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT, STEIN)
    centre: ClassVar[bool] = False
    keep: ClassVar[float] = 1.0

    @abstractmethod
    def _each(self, gradient: Tensor, counts: Tensor) -> Tensor:
        """h: the map of one noise sample from its gradient, `[m, n]` each. counts: number of the
        entries that are not padding, `[m]`."""

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        if through == STEIN:
            return stein(bound, self._each, cotangent, maps.values)
        return pulled_through(bound, self._each, cotangent)

    def _stages(self, bound: BoundScore) -> Stages:
        samples = FIRST
        while self.smoothed and samples * GROWTH <= self.samples:
            yield self._maps(replace(bound, samples=samples)), None
            samples *= GROWTH
        return self._maps(bound), None

    def _maps(self, bound: BoundScore) -> Solution:
        counts = bound.counts

        def each(gradient: Tensor, rows: Tensor) -> Tensor:
            return self._each(gradient, counts[rows])

        def mapped(mean: Tensor) -> Tensor:
            return kept(mean, self.keep, counts)

        means = BlockMeans.of(bound, each, self.centre)
        maps, evaluations = mapped(means.mean), means.evaluations
        if bound.sigma is None:
            return Solution.direct(maps, evaluations)
        error = relative(means.error(mapped, jumps=self.keep < 1), maps)
        found = Solution.direct(maps, evaluations, Status.FIXED_BUDGET, error)
        measured = Measured if self.keep == 1 else partial(_measured, self.keep, counts)
        found = replace(found, z_scores=means.z_scores(measured), settings=means.used)
        return means.marked(found)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothGrad(NoisyMean):
    """A = mean of grad f(x + z) over `samples` antithetic noise samples z ~ N(0, sigma^2 I).

    >>> maps = mg.SmoothGrad(model, samples=8).attribute(x)

    The explanation's error is the standard error of this mean.

    Source: Smilkov et al. (2017). Differs: signed, antithetic, one target for all noise samples;
    shrunk towards a centre.
    """

    centre: bool = True  # type: ignore[misc]
    """Shrink the mean towards the gradient through mean activation derivatives, by as much as the
    noise samples themselves show to be right: a smaller error for the same number of them, and two
    evaluations more. False takes the plain mean."""
    keep: float = 1.0  # type: ignore[misc]
    """Fraction of the mean's entries that is kept, by magnitude; the others are set to zero."""

    method: ClassVar[str] = "smoothgrad"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 < self.keep <= 1, "keep", "a fraction in (0, 1]", self.keep)

    def _each(self, gradient: Tensor, counts: Tensor) -> Tensor:
        return gradient

    def fixed(self, draws: int) -> Self:
        # The derivative is that of the plain mean.
        return replace(super().fixed(draws), centre=False)

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        return product(bound, _on_kept(cotangent, maps, self.keep), through)


def kept(maps: Tensor, fraction: float, counts: Tensor) -> Tensor:
    """Maps `[B, n]` with the entries outside of that fraction of the largest ones set to zero."""
    if fraction == 1:
        return maps
    chosen = largest(maps.abs(), counts - zeroed(1 - fraction, counts))
    # Comparisons with NaN are false: a gradient with NaN must not become zeros.
    return torch.where(chosen | ~torch.isfinite(maps), maps, 0.0)


def _measured(fraction: float, counts: Tensor, maps: Tensor) -> Measured:
    """What decides about the entries of `kept`: a threshold between those kept and the others."""
    size, number = maps.abs(), counts - zeroed(1 - fraction, counts)
    least = rank_from_top(size, common(number))
    most = rank_from_top(size, common((number + 1).clamp_max(counts)))
    return Measured(maps, size, size - ((least + most) / 2)[:, None])


def _on_kept(cotangent: Tensor, maps: Solution, fraction: float) -> Tensor:
    """A cotangent without the entries that are not kept, which are held constant."""
    return cotangent if fraction == 1 else torch.where(maps.values != 0, cotangent, 0.0)


def largest(g: Tensor, count: Tensor) -> Tensor:
    """True on the `count` `[m]` largest entries of rows `[m, n]`, equal ones in their order."""
    least = rank_from_top(g, common(count))[:, None]
    above, equal = g > least, g == least
    return above | (equal & (equal.cumsum(1) <= count[:, None] - above.sum(1, keepdim=True)))
