"""The mean of the noisy gradient's largest entries, and its moments for certificates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.explainers.calling import Progress, metered, reporting
from moreaugrad.explainers.derivatives import (
    IMPLICIT,
    STEIN,
)
from moreaugrad.explainers.gradient import NoisyMean, largest
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.inputs import MaskLike, common, rank_from_top
from moreaugrad.score.noise import DEFAULT_SIGMA, Noise
from moreaugrad.score.score import Inputs
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import expect
from moreaugrad.solvers.solution import Status

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
class SparsifiedSmoothGrad(NoisyMean):
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
        if self.variant == SPARSIFIED:
            object.__setattr__(self, "derivatives", (STEIN,))
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
                # Of a gradient with fewer entries than that, v = 0, and h is 1 where it has some.
                h *= (g / v[:, None].clamp_min(torch.finfo(g.dtype).tiny)).clamp_max(1)
        return h.masked_fill(broken, torch.nan)


def _counted(fraction: float, counts: Tensor) -> Tensor:
    # The slack keeps .29 * 100 from rounding down to 28.
    return (fraction * counts.double() + 1e-9).floor().long().clamp_min(1)


def _ratio(g: Tensor, v: Tensor) -> Tensor:
    """g / v, and 0 where v = 0."""
    return torch.where(v > 0, g / v, 0.0)
