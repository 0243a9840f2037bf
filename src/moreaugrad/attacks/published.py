"""The top-k attack as it was released, with what makes it weak, for comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from moreaugrad.attacks.base import Attack
from moreaugrad.attacks.objectives import Goal, top_k
from moreaugrad.attacks.problem import AttackedBatch, per_sample, wrong_with
from moreaugrad.attacks.result import AttackStatus
from moreaugrad.attacks.search import Found
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.gradient import SimpleGradient
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.explainers.published import PublishedMoreauGrad
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import Layout
from moreaugrad.solvers.solution import Solution

ENVELOPES = (Moreau, PublishedMoreauGrad)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PublishedTopKAttack(Attack):
    """x <- project(x - step epsilon sign(grad D)), `steps` times; D as in `TopK`, but k is `share`
    of all entries.

    >>> explainer = mg.SparseMoreauGrad(model, sigma=0)
    >>> result = mg.attacks.PublishedTopKAttack(explainer, epsilon=0.5, steps=2).attack(x)

    As released; what makes it weak, so that maps look robust:
    - k counts the zeros too: where a sparse map has fewer entries than k, D = 1, and the sign of
      rounding errors is followed (status "flat objective");
    - the last iterate is not judged;
    - labels: those of the data set must be predicted, so that a misclassified sample stays as it
      is (status "no feasible step"); None asks for the clean prediction instead;
    - a step has the length step * epsilon * sqrt(n), so that with many entries each lands on the
      sphere;
    - MoreauGrad maps are replaced by 1{A != 0} |grad f(x + u)| without noise, the support and the
      displacement u held ("straight-through"): for D, for K and for the gradient.

    Source: the code released with Zhang and Farnia (2023). Differs: draws of noise are the same at
    every step, and a map is solved from the last one.
    """

    steps: int = 10
    """Steps, of which the last one's result is not judged."""
    step: float = 0.01
    """Fraction of epsilon that each entry moves by."""
    share: float = 0.4
    """k as a fraction of all entries."""
    labels: Tensor | None = None
    """The data set's labels `[B]`, which must be predicted; None asks for the clean prediction."""
    source: Explainer | None = None
    """Another explainer that D and its gradient are computed on, as with a softplus surrogate."""
    draws: int = 64
    """Noise samples of each step's map at most."""

    name: ClassVar[str] = "published-top-k"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)!r}")
        if not 0 < self.share < 1:
            raise ValueError(f"share: expected a number between 0 and 1, got {self.share!r}")
        seen = self.source or self.explainer
        if not (seen.derivatives or isinstance(seen, ENVELOPES)):
            raise ValueError(
                f"{seen.method} has no derivative of its map: give source=, another explainer to "
                "make the steps with, or use random-search"
            )

    def budget(self) -> int:
        seen = self._seen()
        return self.steps * (seen.budget() + 2 * seen._draws() + 1)

    def _goal(self, clean: Tensor, layout: Layout) -> Goal:
        return top_k(clean, layout, share=self.share, of_all=True)

    def _label(self, bound: BoundScore) -> Tensor:
        if self.labels is None:
            return bound.prediction
        if self.labels.shape != bound.prediction.shape:
            raise ValueError(
                f"labels: expected {len(bound)}, one a sample, got shape {tuple(self.labels.shape)}"
            )
        return self.labels.to(bound.prediction)

    def _seen(self) -> Explainer:
        return (self.source or self.explainer).fixed(self.draws)

    def _search(self, case: AttackedBatch) -> Found:
        assert self.epsilon is not None
        seen = self._seen()
        score, ball = case.bind(seen), case.ball
        x, best = ball.center, ball.center.clone()
        least = torch.full_like(x[:, 0], torch.inf, dtype=torch.float64)
        evaluations = torch.zeros_like(case.label)
        any_kept = torch.zeros_like(case.label, dtype=torch.bool)
        going = ~any_kept
        goal, wrong, values, known = case.goal, [], [], None
        for step in range(self.steps):
            spent_here: list[int] = []
            at = replace(score.moved(x), meter=spent_here.append)
            maps = seen._maps(at) if known is None else seen._near(at, known)
            shown, pull, spent = _straight_through(seen, at, maps)
            known = maps.values
            if step == 0:
                goal = self._goal(shown, case.bound.layout)
            assert goal is not None
            value, slope = goal.value_and_cotangent(shown)
            kept = case.kept(x)
            better = kept & (value < least)
            best = torch.where(better[:, None], x, best)
            least = torch.where(better, value, least)
            any_kept |= kept
            values.append(value)
            slope = slope.to(shown.dtype)
            spent_here.clear()
            gradient = pull(slope) / ball.scale
            evaluations += torch.where(going, spent + 1 + per_sample(spent_here, len(case)), 0)
            if step == 0:
                wrong = wrong_with(shown, slope, gradient, self.epsilon)
            before = x
            x = ball.at(ball.displacement(x) - self.step * self.epsilon * gradient.sign())
            going = (x != before).any(1)
            case.tell((step + 1) / self.steps)
            if not bool(going.any()):  # every further step would be this one
                values += [value] * (self.steps - step - 1)
                break
        moved = (best != ball.center).any(1)
        ended = zip(wrong, any_kept.tolist(), moved.tolist(), strict=True)
        lost = AttackStatus.NO_FEASIBLE_STEP
        return Found(
            x=best,
            status=tuple(
                (why or (AttackStatus.IMPROVED if off else AttackStatus.HELD)) if held else lost
                for why, held, off in ended
            ),
            objective=torch.stack(values, dim=1),
            evaluations=evaluations,
        )


def _straight_through(
    explainer: Explainer, bound: BoundScore, maps: Solution
) -> tuple[Tensor, Callable[[Tensor], Tensor], Tensor]:
    """What the released attack takes for the map at `bound.origin`, `[B, n]`, its derivative's
    transpose, and the evaluations of the map."""
    if not isinstance(explainer, ENVELOPES):
        through = explainer.way()
        return maps.values, lambda c: explainer._pull(bound, maps, c, through), maps.evaluations
    released = isinstance(explainer, PublishedMoreauGrad) and explainer.sign == "displacement"
    u = maps.values if released else -explainer.rho * maps.values
    support = (maps.values != 0).to(u.dtype)
    gradient = SimpleGradient(explainer.forward_func, score=explainer.score, task=explainer.task)
    point = replace(bound.moved(bound.origin + u), sigma=None, samples=1)
    plain = gradient._maps(point)

    def pull(cotangent: Tensor) -> Tensor:
        return gradient._pull(point, plain, support * cotangent, gradient.derivatives[0])

    return support * plain.values, pull, maps.evaluations + plain.evaluations
