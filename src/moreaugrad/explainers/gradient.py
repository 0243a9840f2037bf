"""The plain gradient of the score, and its mean under Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from moreaugrad.explainers.base import Explainer, Maps
from moreaugrad.noise import RELATIVE, Noise
from moreaugrad.penalties import eta_for
from moreaugrad.score import BoundScore, Score, Smoothed
from moreaugrad.solvers.blocks import Blocks
from moreaugrad.solvers.solution import Status


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
        # Blocks of whole passes where that leaves enough of them for a standard error.
        size = max(bound.chunks.size // len(bound), -(-self.samples // 8))
        size = max(2, min(size, self.samples // 4) // 2 * 2)
        blocks = Blocks()
        whole = self.samples // size * size
        for start in range(0, whole, size):
            blocks.add(bound.value_and_grad(draws=range(start, start + size))[1] * size)
        mean, spread = blocks.jackknife(lambda total: total / size)
        total = mean * whole
        if whole < self.samples:
            rest = range(whole, self.samples)
            total = total + bound.value_and_grad(draws=rest)[1] * len(rest)
        maps = total / self.samples
        return Maps.direct(
            maps,
            evaluations=self.samples,
            status=Status.FIXED_BUDGET,
            error=spread / maps.norm(dim=1),
        )
