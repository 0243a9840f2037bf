"""The top-k attack as it was released, with the properties that make it weak, for comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from moreaugrad.attacks.base import Attack
from moreaugrad.attacks.objectives import Goal, top_k
from moreaugrad.attacks.problem import AttackedBatch
from moreaugrad.attacks.result import AttackStatus
from moreaugrad.attacks.search import SearchResult, per_sample, wrong_with
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.gradient import SimpleGradient
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.explainers.published import PublishedMoreauGrad
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import Layout
from moreaugrad.settings import expect
from moreaugrad.solvers.solution import Solution

ENVELOPES = (Moreau, PublishedMoreauGrad)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PublishedTopKAttack(Attack):
    """x <- project(x - step epsilon sign(grad D)), `steps` times; D as in `TopK`, but k is `share`
    of all entries.

    >>> explainer = mg.SparseMoreauGrad(model, sigma=0)
    >>> result = mg.attacks.PublishedTopKAttack(explainer, epsilon=0.5, steps=2).attack(x)

    Maps look robust under it for these reasons:
    - k counts the zeros too: where a sparse map has fewer entries than k, D = 1, and the attack
      follows the sign of rounding errors (status "flat objective");
    - the last iterate is not evaluated;
    - the labels of the data set must be predicted, so that a misclassified sample is not changed
      (status "no feasible step"); `labels=None` requires the clean prediction instead;
    - a step has the length step * epsilon * sqrt(n), so that with many entries each step ends on
      the sphere;
    - MoreauGrad maps are replaced by 1{A != 0} |grad f(x + u)| without noise, for D, for K and for
      the gradient, with fixed support and displacement u ("straight-through").

    Source: the code released with Zhang and Farnia (2023). Differs: noise samples are the same at
    every step, and a map is solved from the last one.
    """

    steps: int = 10
    """Number of steps; the result of the last one is not evaluated."""
    step: float = 0.01
    """Fraction of epsilon that each entry moves by."""
    share: float = 0.4
    """k as a fraction of all entries."""
    labels: Tensor | None = None
    """The labels of the data set, `[B]`, which must be predicted; None requires the clean
    prediction."""
    source: Explainer | None = None
    """Another explainer, for D and its gradient, such as one of a softplus surrogate."""
    draws: int = 64
    """Largest number of noise samples of the map in a step."""

    name: ClassVar[str] = "published-top-k"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.steps >= 1, "steps", "at least 1", self.steps)
        expect(self.draws >= 1, "draws", "at least 1", self.draws)
        expect(0 < self.share < 1, "share", "a number between 0 and 1", self.share)
        seen = self.source or self.explainer
        if not (seen.derivatives or isinstance(seen, ENVELOPES)):
            raise ValueError(
                f"{seen.method} has no derivative of its map: give source=, another explainer for "
                "the steps, or use random-search"
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
                f"labels: expected {len(bound)}, one for each sample, got shape "
                f"{tuple(self.labels.shape)}"
            )
        return self.labels.to(bound.prediction)

    def _seen(self) -> Explainer:
        return (self.source or self.explainer).fixed(self.draws)

    def _search(self, case: AttackedBatch) -> SearchResult:
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
            case.report((step + 1) / self.steps)
            if not bool(going.any()):  # all further steps would be the same
                values += [value] * (self.steps - step - 1)
                break
        moved = (best != ball.center).any(1)
        ended = zip(wrong, any_kept.tolist(), moved.tolist(), strict=True)
        lost = AttackStatus.NO_FEASIBLE_STEP
        return SearchResult(
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
    """What the released attack uses as the map at `bound.origin`, `[B, n]`, the transpose of its
    derivative, and the evaluations of the map."""
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
