"""Gaussian noise on the input: the mildest test of a map's stability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from moreaugrad.attacks.base import Attack
from moreaugrad.attacks.problem import AttackedBatch
from moreaugrad.attacks.result import AttackStatus
from moreaugrad.attacks.search import Found
from moreaugrad.explainers.base import Explainer
from moreaugrad.score.noise import DEFAULT_SIGMA, RELATIVE, noise_level

TRIES = 100


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GaussianNoiseAttack(Attack):
    """x' = x + sigma z, z ~ N(0, I). With epsilon the displacement is also cut to that length.

    >>> result = mg.attacks.GaussianNoiseAttack(mg.SimpleGradient(model), sigma=0.05).attack(x)

    Source: the random attack of Zhang and Farnia (2023), appendix B.2. Differs: keeps the class.
    """

    sigma: float = DEFAULT_SIGMA
    """Standard deviation of the noise, as a fraction of each input's own range (max - min); with
    sigma_mode "absolute" in the input's units."""
    sigma_mode: str = RELATIVE
    """Units of `sigma`: "relative" or "absolute"."""
    preserve_class: bool = True
    """Draw again, up to 100 times, until the class stays."""

    name: ClassVar[str] = "gaussian"
    needs_epsilon: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        noise_level([], self.sigma, self.sigma_mode)

    @classmethod
    def published(cls, explainer: Explainer, **settings: Any) -> Self:
        """As released: without a look at the class."""
        chosen: dict[str, Any] = {"preserve_class": False} | settings
        return cls(explainer, **chosen)

    def budget(self) -> int:
        return TRIES if self.preserve_class else 1

    def _search(self, case: AttackedBatch) -> Found:
        bound, layout = case.bound, case.bound.layout
        parts = layout.split(bound.origin)
        real = None if bound.mask is None else layout.split(bound.mask)
        levels = noise_level(parts, self.sigma, self.sigma_mode, real)
        sigma = layout.flatten([s.expand_as(p) for s, p in zip(levels, parts, strict=True)])
        x, kept = case.ball.center.clone(), torch.zeros_like(case.label, dtype=torch.bool)
        evaluations = torch.zeros_like(case.label)
        left = torch.arange(len(case), device=x.device)
        for number in range(TRIES if self.preserve_class else 1):
            part = case.select(left)
            shift = sigma[left] * part.normal(number)
            tried = part.ball.at(shift * part.ball.scale)
            good = part.kept(tried)
            evaluations[left] += 1
            taken = good if self.preserve_class else torch.ones_like(good)
            x[left[taken]], kept[left] = tried[taken], good
            left = left[~good]
            if len(left) == 0:
                break
        drawn, lost = AttackStatus.DRAWN, AttackStatus.NO_FEASIBLE_STEP
        return Found(
            x=x,
            status=tuple(
                drawn if fine or not self.preserve_class else lost for fine in kept.tolist()
            ),
            objective=torch.full_like(x[:, :1], torch.nan, dtype=torch.float64),
            evaluations=evaluations,
        )
