"""Random search: no derivative of anything, a check that gradients were not just hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from moreaugrad.attacks.gradient import TopK
from moreaugrad.attacks.problem import AttackedBatch, Pursuit
from moreaugrad.attacks.result import AttackStatus
from moreaugrad.attacks.search import Found, Incumbents

WIDER, NARROWER = 1.5, 1.5**-0.25
"""The fifth-success rule: the spread stays where one proposal in five is better."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RandomSearch(TopK):
    """Points on the sphere of radius epsilon; the best one that keeps the class, or x itself.

    >>> result = mg.attacks.RandomSearch(mg.SimpleGradient(model), epsilon=0.5, steps=10).attack(x)

    The first are uniform (of random signs for "linf"). Then each is the best one so far, turned at
    random; how far follows the fifth-success rule.
    """

    steps: int = 100
    """Points that are tried."""
    draws: int = 64
    """Noise samples of each point's map at most, the same ones for every point."""

    name: ClassVar[str] = "random-search"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)!r}")

    def budget(self) -> int:
        return (self.steps + 1) * (self.explainer.fixed(self.draws).budget() + 1)

    def _search(self, case: AttackedBatch) -> Found:
        assert case.goal is not None
        seen = self.explainer.fixed(self.draws)
        whole = Pursuit(case=case, goal=case.goal, stepper=seen, score=case.bind(seen), through="")
        clean = whole.look(case.ball.center)
        best = Incumbents(case, self.steps + 1, clean)
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
                look = whole.select(tried).look(x, clean.select(tried))
                best.evaluations[tried] += look.evaluations
                best.offer(step + 1, tried, x, look.value)
            moved = (best.x != case.ball.center).any(1)
            change = torch.where(best.value < before, WIDER, NARROWER)
            # Before the first success there is nothing to turn, so points stay uniform.
            spread = torch.where(moved, (spread * change).clamp_max(1.0), spread)
            case.tell((step + 1) / self.steps)
        lost = AttackStatus.NO_FEASIBLE_STEP
        best.fail(rows, [lost] * len(rows))
        best.end()
        return best.found()


def _unit(rows: Tensor) -> Tensor:
    """Each row at length one; a row of zeros stays."""
    length = rows.double().norm(dim=1, keepdim=True)
    return torch.where(length == 0, 0.0, rows / length).to(rows.dtype)
