"""The plain gradient of the score, and its mean under Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from moreaugrad.explainers.base import Explainer, Maps
from moreaugrad.noise import RELATIVE, Noise
from moreaugrad.score import BoundScore, Score, Smoothed
from moreaugrad.solvers.solution import Status
from moreaugrad.solvers.sparsity import eta_for


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SimpleGradient(Explainer):
    """A = grad f(x); with `times_input`, x * grad f(x).

    `keep`: the share of entries with the largest magnitude that stays, the rest is set to zero.
    Source: Simonyan et al. (2014); Differs: signed.
    """

    times_input: bool = False
    keep: float = 1.0

    method: ClassVar[str] = "simple-gradient"

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep: expected a share in (0, 1], got {self.keep!r}")

    def _maps(self, bound: BoundScore) -> Maps:
        _, maps = bound.value_and_grad()
        if self.times_input:
            maps = maps * bound.origin
        if self.keep < 1:
            magnitude = maps.abs()
            smallest_out = eta_for(magnitude, 1 - self.keep)
            maps = torch.where(magnitude > smallest_out[:, None], maps, 0.0)
        return Maps.direct(maps, evaluations=1)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothGrad(Explainer):
    """A = mean over z ~ N(0, sigma^2 I) of grad f(x + z), by `samples` antithetic draws.

    sigma is a share of each input's own range (max - min), or absolute with sigma_mode="absolute".
    The explanation's error is the standard error of that mean.
    Source: Smilkov et al. (2017); SPEC 4.1. Differs: signed, antithetic, one target for all draws.
    """

    sigma: float = 0.15
    samples: int = 64
    sigma_mode: str = RELATIVE
    seed: int = 0

    method: ClassVar[str] = "smoothgrad"

    def __post_init__(self) -> None:
        self._score()

    def _score(self) -> Smoothed:
        plain = super()._score()
        assert isinstance(plain, Score)
        return Smoothed(
            plain,
            sigma=self.sigma,
            samples=self.samples,
            sigma_mode=self.sigma_mode,
            noise=Noise(self.seed),
        )

    def _draws(self) -> int:
        return self.samples

    def _maps(self, bound: BoundScore) -> Maps:
        if bound.sigma is None:
            return Maps.direct(bound.value_and_grad()[1], evaluations=1)
        # At least four blocks for a standard error, of 16 draws where there are enough; the same
        # ones whatever the batch and the chunk.
        size = max(2, min(max(16, self.samples // 8), self.samples // 4) // 2 * 2)
        total, squares = torch.zeros_like(bound.origin), bound.origin.new_zeros(len(bound)).double()
        for start in range(0, self.samples, size):
            draws = range(start, min(start + size, self.samples))
            block = bound.value_and_grad(draws=draws)[1] * len(draws)
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
