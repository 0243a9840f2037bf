"""The base of methods whose score is a mean under Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.guidance import AUTO, sigma_cost, with_best_sigma
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.noise import RELATIVE, Noise
from moreaugrad.settings import expect


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothedExplainer(Explainer):
    """A method whose score is the mean over `samples` noise samples z ~ N(0, sigma^2 I)."""

    sigma: float | str = 0.15
    """Standard deviation of the noise, as a fraction of each input's own range (max - min); with
    sigma_mode "absolute" in the input's units. "auto" chooses it for each sample as `guidance`
    does, of images and vectors."""
    samples: int = 64
    """Number of noise samples."""
    sigma_mode: str = RELATIVE
    """Units of `sigma`: "relative" or "absolute"."""
    seed: int = 0
    """Random seed; the noise is a function of (seed, id of the sample, number of the draw)."""

    def __post_init__(self) -> None:
        if isinstance(self.sigma, str):
            expect(self.sigma == AUTO, "sigma", "a number >= 0 or 'auto'", self.sigma)
            expect(self.sigma_mode == RELATIVE, "sigma_mode", "'relative' with sigma='auto'",
                   self.sigma_mode)  # fmt: skip
        super().__post_init__()

    @property
    def smoothed(self) -> bool:
        """Whether there is noise."""
        return isinstance(self.sigma, str) or self.sigma > 0

    def _smoothing(self) -> dict[str, Any]:
        sigma = 1.0 if isinstance(self.sigma, str) else self.sigma
        return {
            "sigma": sigma, "samples": self.samples, "sigma_mode": self.sigma_mode,
            "noise": Noise(self.seed),
        }  # fmt: skip

    def _prepared(self, bound: BoundScore) -> BoundScore:
        bound = super()._prepared(bound)
        return with_best_sigma(bound) if isinstance(self.sigma, str) else bound

    def _draws(self) -> int:
        return self.samples if self.smoothed else 1

    def _choices(self) -> int:
        return super()._choices() + (sigma_cost() if isinstance(self.sigma, str) else 0)

    def fixed(self, draws: int) -> Self:
        return replace(super().fixed(draws), samples=min(self.samples, draws))
