"""The gradient of the score, means of it under Gaussian noise, and of its largest entries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.calling import Progress, metered, reporting
from moreaugrad.explainers.derivatives import (
    IMPLICIT,
    STEIN,
    gradient_and_product,
    product,
    pulled_through,
    stein,
)
from moreaugrad.explainers.smoothed import SmoothedExplainer
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.inputs import MaskLike, common, rank_from_top
from moreaugrad.score.noise import DEFAULT_SIGMA, Noise
from moreaugrad.score.score import Inputs
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import expect
from moreaugrad.solvers.block_means import BlockMeans
from moreaugrad.solvers.blocks import relative
from moreaugrad.solvers.solution import Solution, Status
from moreaugrad.solvers.sparsity import zeroed
from moreaugrad.solvers.z_scores import Measured


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
        return Solution.direct(kept(maps, self.keep, bound.counts), evaluations=1)

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        """H c; with `times_input` c * g + H (x * c). Which entries are kept is constant."""
        cotangent = _on_kept(cotangent, maps, self.keep)
        if not self.times_input:
            return gradient_and_product(bound, cotangent)[1]
        gradient, product = gradient_and_product(bound, bound.origin * cotangent)
        return cotangent * gradient + product


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class _NoisyMean(SmoothedExplainer):
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
        if len(means.blocks) == 1:
            return found
        # Equal terms have no error, but their sum has rounding.
        return found.marked(Status.UNVARIED, means.unvaried, error.masked_fill(means.unvaried, 0.0))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothGrad(_NoisyMean):
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


SPARSIFIED, RELAXED, SCALED = "sparsified", "relaxed", "scaled"
VARIANTS = (SPARSIFIED, RELAXED, SCALED)
SUMMED = 64
"""Noise samples summed in the working precision: the rounding is far below any bound."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Moments of h(|grad f(x + z)|) over the noise samples: the basis of bounds on its mean."""

    mean: Tensor
    """Mean, `[B, n]` in float64."""
    square: Tensor
    """Mean of the square, `[B, n]` in float64."""
    samples: int
    """Number of noise samples."""
    binary: bool
    """Whether h is 0 or 1."""
    independent: bool = True
    """Whether the noise samples are independent (not antithetic)."""
    target: Tensor | None = None
    """The class of each sample's gradient, `[B]`."""
    masked: bool = False
    """Whether some entries are padding, which has no noise."""

    @property
    def variance(self) -> Tensor:
        """The unbiased sample variance of h, `[B, n]`."""
        spread = (self.square - self.mean.square()).clamp_min(0)
        return spread * self.samples / max(1, self.samples - 1)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SparsifiedSmoothGrad(_NoisyMean):
    """A = mean of h(|grad f(x + z)|) over noise samples z ~ N(0, sigma^2 I), h in [0, 1]^n.

    >>> maps = mg.SparsifiedSmoothGrad(model, samples=8).attribute(x)

    At least one entry counts as largest, and equal entries count in their order; h = 0 for a
    gradient of zeros. n is the number of entries of all inputs, without padding. The noise samples
    are independent unless `antithetic`, for the bounds of `moreaugrad.certificates`. The
    explanation's error is the standard error of the mean. The derivative "implicit" keeps the set
    of largest entries constant; the sparsified variant, a step function, has only "stein".

    Source: Levine et al. (2019). Differs: one target for all noise samples.
    """

    sigma: float | str = DEFAULT_SIGMA
    variant: str = RELAXED
    """Which h: "sparsified", 1 on the floor(tau n) largest entries g_i > 0, otherwise 0; "relaxed",
    min(g_i, v) / v on these entries, v the floor(gamma n)-th largest one (0: the largest); or
    "scaled", g_i / max g."""
    tau: float = 0.1
    """Fraction of a noisy gradient's entries that count as largest."""
    gamma: float = 0.01
    """Fraction of the entries with the value 1, for the relaxed variant."""
    antithetic: bool = False
    """Noise samples in pairs z, -z; the bounds of certificates need independent ones."""

    method: ClassVar[str] = "sparsified-smoothgrad"
    derivatives: ClassVar[tuple[str, ...]] = (STEIN, IMPLICIT)

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("variant", self.variant, VARIANTS)
        expect(0 < self.tau <= 1, "tau", "a fraction in (0, 1]", self.tau)
        most = self.tau if self.variant == RELAXED else 1
        expect(
            0 <= self.gamma <= most, "gamma", f"a fraction from 0 to tau = {self.tau!r}", self.gamma
        )

    @classmethod
    def published(cls, forward_func: ForwardFunc, **settings: Any) -> Self:
        """The paper's settings: sigma a fifth of the range, 8192 noise samples."""
        chosen: dict[str, Any] = {"tau": 0.1, "gamma": 0.01, "sigma": 0.2, "samples": 8192}
        return cls(forward_func, **(chosen | settings))

    def moments(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        additional_forward_args: object = None,
        *,
        ids: Sequence[int] | Tensor | None = None,
        mask: MaskLike = None,
        progress: Progress | bool | None = None,
    ) -> Moments:
        """First and second moments of h over the noise samples, for bounds on its mean.

        Errors: FloatingPointError for a gradient that is not finite, ValueError for an input whose
        noise is zero.
        """
        bound = self.bind(inputs, target, additional_forward_args, ids, mask)
        if bool(bound.silent().any()):
            raise ValueError(f"{self.method}: {Status.NO_NOISE.message}; {Status.NO_NOISE.remedy}")
        with reporting(progress, self.method) as report:
            if report is not None:
                count = len(bound)
                meter = metered(report, 0, count, count, count * self.budget())
                bound = replace(bound, meter=meter)
            return self._moments(bound)

    def _moments(self, bound: BoundScore) -> Moments:
        counts = bound.counts
        total = torch.zeros_like(bound.origin, dtype=torch.float64)
        squares = torch.zeros_like(total)

        def powers(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            h = self._each(bound.value_and_grad_at(points, rows)[1], counts[rows])
            return h, h.square()

        for start in range(0, bound.passes, SUMMED):
            draws = range(start, min(start + SUMMED, bound.passes))
            mean, square = bound.mean(powers, draws=draws)
            total += mean.double() * len(draws)
            squares += square.double() * len(draws)
        broken = (~torch.isfinite(total).all(1)).nonzero()[:, 0].tolist()
        if broken:
            raise FloatingPointError(
                f"{self.method}: the gradient is NaN or infinite for sample(s) {broken}; check "
                "the model on inputs near them, or lower sigma"
            )
        return Moments(
            mean=total / bound.passes,
            square=squares / bound.passes,
            samples=bound.passes,
            binary=self.variant == SPARSIFIED,
            independent=not self.antithetic,
            target=bound.target.classes,
            masked=bound.mask is not None,
        )

    def _smoothing(self) -> dict[str, Any]:
        return super()._smoothing() | {"noise": Noise(self.seed, self.antithetic)}

    def _each(self, gradient: Tensor, counts: Tensor) -> Tensor:
        g = gradient.abs()
        # Comparisons with NaN are false: a gradient with NaN must not count as zeros.
        broken = ~torch.isfinite(g).all(1, keepdim=True)
        if self.variant == SCALED:
            h = _ratio(g, g.amax(1, keepdim=True))
        else:
            kept = largest(g, _counted(self.tau, counts)) & (g > 0)
            h = kept.to(g.dtype)
            if self.variant == RELAXED:
                v = rank_from_top(g, common(_counted(self.gamma, counts)))
                h *= _ratio(g, v[:, None]).clamp_max(1)
        return h.masked_fill(broken, torch.nan)


def kept(maps: Tensor, fraction: float, counts: Tensor) -> Tensor:
    """Maps `[B, n]` with the entries outside of that fraction of the largest ones set to zero."""
    if fraction == 1:
        return maps
    return torch.where(largest(maps.abs(), counts - zeroed(1 - fraction, counts)), maps, 0.0)


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


def _counted(fraction: float, counts: Tensor) -> Tensor:
    # The slack keeps .29 * 100 from rounding down to 28.
    return (fraction * counts.double() + 1e-9).floor().long().clamp_min(1)


def _ratio(g: Tensor, v: Tensor) -> Tensor:
    """g / v, and 0 where v = 0."""
    return torch.where(v > 0, g / v, 0.0)
