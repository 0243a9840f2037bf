"""Attacks without a derivative: Gaussian noise, and random search.

They show how stable a map is under mild changes, and whether its gradients were only hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.attacks.base import Attack
from moreaugrad.attacks.descent import TopK
from moreaugrad.attacks.problem import AttackedBatch
from moreaugrad.attacks.result import AttackStatus
from moreaugrad.attacks.search import BestInputs, Objective, SearchResult
from moreaugrad.explainers.base import Explainer
from moreaugrad.score.noise import DEFAULT_SIGMA, RELATIVE, noise_level
from moreaugrad.settings import expect

TRIES = 100
"""Noise vectors that are tried for one that keeps the class."""
WIDER, NARROWER = 1.5, 1.5**-0.25
"""The one-fifth success rule: the spread is stationary where one point in five is better."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GaussianNoiseAttack(Attack):
    """x' = x + sigma z, z ~ N(0, I). With epsilon, the displacement is also limited to that length.

    >>> result = mg.attacks.GaussianNoiseAttack(mg.SimpleGradient(model), sigma=0.05).attack(x)

    Source: the random attack of Zhang and Farnia (2023), appendix B.2. Differs: keeps the class.
    """

    sigma: float = DEFAULT_SIGMA
    """Standard deviation of the noise, as a fraction of each input's own range (max - min); with
    sigma_mode "absolute" in the input's units."""
    sigma_mode: str = RELATIVE
    """Units of `sigma`: "relative" or "absolute"."""
    preserve_class: bool = True
    """Try up to 100 noise vectors until the class stays."""

    name: ClassVar[str] = "gaussian"
    needs_epsilon: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        noise_level([], self.sigma, self.sigma_mode)

    @classmethod
    def published(cls, explainer: Explainer, **settings: Any) -> Self:
        """As released: without a check of the class. settings: others of the class."""
        chosen: dict[str, Any] = {"preserve_class": False} | settings
        return cls(explainer, **chosen)

    def budget(self) -> int:
        return TRIES if self.preserve_class else 1

    def _search(self, case: AttackedBatch) -> SearchResult:
        bound, layout = case.bound, case.bound.layout
        parts = layout.split(bound.origin)
        real = None if bound.mask is None else layout.split(bound.mask)
        levels = noise_level(parts, self.sigma, self.sigma_mode, real)
        sigma = layout.flatten([s.expand_as(p) for s, p in zip(levels, parts, strict=True)])

        def propose(part: AttackedBatch, rows: Tensor, number: int) -> Tensor:
            return part.ball.at(sigma[rows] * part.normal(number) * part.ball.scale)

        x, evaluations, kept = case.first_kept(self.budget(), propose)
        if not self.preserve_class:
            x = propose(case, torch.arange(len(case), device=x.device), 0)
            kept = torch.ones_like(kept)
        drawn, lost = AttackStatus.DRAWN, AttackStatus.NO_FEASIBLE_STEP
        return SearchResult(
            x=x,
            status=tuple(drawn if fine else lost for fine in kept.tolist()),
            objective=torch.full_like(x[:, :1], torch.nan, dtype=torch.float64),
            evaluations=evaluations,
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RandomSearch(TopK):
    """The best of random points on the sphere of radius epsilon that keeps the class, or x itself.

    >>> result = mg.attacks.RandomSearch(mg.SimpleGradient(model), epsilon=0.5, steps=10).attack(x)

    The first points are uniform (with random signs for "linf"). Later ones are the best one so far
    in a random direction from it, at a distance that follows the one-fifth success rule.
    """

    steps: int = 100
    """Number of points that are tried."""
    draws: int = 64
    """Largest number of noise samples of the map at a point; they are the same at every point."""

    name: ClassVar[str] = "random-search"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.steps >= 1, "steps", "at least 1", self.steps)
        expect(self.draws >= 1, "draws", "at least 1", self.draws)

    def budget(self) -> int:
        return (self.steps + 1) * (self.explainer.fixed(self.draws).budget() + 1)

    def _search(self, case: AttackedBatch) -> SearchResult:
        seen = self.explainer.fixed(self.draws)
        whole = Objective(case=case, stepper=seen, score=case.bind(seen), through="")
        clean = whole.evaluate(case.ball.center)
        best = BestInputs(case, self.steps + 1, clean)
        rows = best.begin()
        best.offer(0, rows, case.ball.center[rows], clean.value[rows])
        spread = torch.ones_like(clean.value)
        for step in range(self.steps if len(rows) else 0):
            part = case.select(rows)
            turned = _unit(part.ball.displacement(best.x[rows]))
            turned = turned + spread[rows, None].to(turned.dtype) * _unit(part.normal(step))
            x = part.ball.at(part.ball.on_sphere(turned))
            kept = part.kept(x)
            best.evaluations[rows] += 1
            tried, x = rows[kept], x[kept]
            before = best.value.clone()
            if len(tried):
                here = whole.select(tried).evaluate(x, clean.select(tried))
                best.evaluations[tried] += here.evaluations
                best.offer(step + 1, tried, x, here.value)
            moved = (best.x != case.ball.center).any(1)
            change = torch.where(best.value < before, WIDER, NARROWER)
            # Points stay uniform before the first success.
            spread = torch.where(moved, (spread * change).clamp_max(1.0), spread)
            case.report((step + 1) / self.steps)
        lost = AttackStatus.NO_FEASIBLE_STEP
        best.fail(rows, [lost] * len(rows))
        best.end()
        return best.found()


def _unit(rows: Tensor) -> Tensor:
    """Each row divided by its length; a row of zeros stays."""
    length = rows.double().norm(dim=1, keepdim=True)
    return torch.where(length == 0, 0.0, rows / length).to(rows.dtype)
