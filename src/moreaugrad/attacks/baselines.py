"""Attacks to compare others with: Gaussian noise, random search, and top-k as it was released.

The first two use no derivative. They show how stable a map is under mild changes, and whether its
gradients were only hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.attacks.base import Attack
from moreaugrad.attacks.matched import Matched
from moreaugrad.attacks.objectives import Aim, Goal, top_k
from moreaugrad.attacks.problem import AttackedBatch, AttackStatus
from moreaugrad.attacks.search import BestInputs, Iterate, SearchResult, per_sample, useless_steps
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.gradient import SimpleGradient
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.explainers.published import PublishedMoreauGrad
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.noise import DEFAULT_SIGMA, RELATIVE, noise_level
from moreaugrad.settings import expect
from moreaugrad.solvers.solution import Solution

ENVELOPES = (Moreau, PublishedMoreauGrad)
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

    @classmethod
    def aimed_at(cls, settings: Mapping[str, Any]) -> None:
        return None

    def budget(self) -> int:
        return TRIES if self.preserve_class else 0

    def _search(self, batch: AttackedBatch) -> SearchResult:
        bound, layout = batch.bound, batch.bound.layout
        parts = layout.split(bound.origin)
        real = None if bound.mask is None else layout.split(bound.mask)
        levels = noise_level(parts, self.sigma, self.sigma_mode, real)
        sigma = layout.flatten([s.expand_as(p) for s, p in zip(levels, parts, strict=True)])

        def propose(part: AttackedBatch, rows: Tensor, number: int) -> Tensor:
            return part.ball.at(sigma[rows] * part.normal(number) * part.ball.scale)

        if self.preserve_class:
            x, evaluations, kept = batch.first_kept(TRIES, propose)
        else:
            evaluations = torch.zeros_like(batch.label)
            kept = torch.ones_like(batch.label, dtype=torch.bool)
            x = propose(batch, torch.arange(len(batch), device=kept.device), 0)
        drawn, lost = AttackStatus.DRAWN, AttackStatus.NO_FEASIBLE_STEP
        return SearchResult(
            x=x,
            status=tuple(drawn if fine else lost for fine in kept.tolist()),
            objective=torch.full_like(x[:, :1], torch.nan, dtype=torch.float64),
            evaluations=evaluations,
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RandomSearch(Matched):
    """The best of random points on the sphere of radius epsilon that keeps the class, or x itself.

    >>> result = mg.attacks.RandomSearch(mg.SimpleGradient(model), epsilon=0.5, steps=10).attack(x)

    The first points are uniform (with random signs for "linf"), ever nearer to x until one keeps
    the class. Later ones are the best one so far, moved in a random direction by a distance that
    follows the one-fifth success rule.
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
        of_map = self.explainer.fixed(self.draws).map_budget()
        return of_map + self.steps * (of_map + 1)

    def _search(self, batch: AttackedBatch) -> SearchResult:
        clean = Iterate.clean(batch, self.explainer.fixed(self.draws))
        best = BestInputs(clean, self.steps + 1)
        rows = best.begin()
        best.offer(0, clean.select(rows))
        spread, reach = torch.ones_like(clean.value), torch.ones_like(clean.value)
        fits = torch.zeros_like(clean.rows, dtype=torch.bool)
        for step in range(self.steps if len(rows) else 0):
            part = batch.select(rows)
            turned = _unit(part.ball.displacement(best.x[rows]))
            turned = turned + spread[rows, None].to(turned.dtype) * _unit(part.normal(step))
            x = part.ball.at(reach[rows, None].to(turned) * part.ball.on_sphere(turned))
            kept = part.kept(x)
            best.evaluations[rows] += 1
            tried, x = rows[kept], x[kept]
            fits[tried] = True
            reach = torch.where(fits, reach, reach / 2)
            before = best.value.clone()
            if len(tried):
                now = clean.select(tried).moved(x)
                best.evaluations[tried] += now.evaluations
                best.offer(step + 1, now)
            moved = (best.x != batch.ball.center).any(1)
            change = torch.where(best.value < before, WIDER, NARROWER)
            # Points stay uniform before the first success.
            spread = torch.where(moved, (spread * change).clamp_max(1.0), spread)
            batch.report((step + 1) / self.steps)
        best.end()
        return best.found()


def _unit(rows: Tensor) -> Tensor:
    """Each row divided by its length; a row of zeros stays."""
    length = rows.double().norm(dim=1, keepdim=True)
    return torch.where(length == 0, 0.0, rows / length).to(rows.dtype)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PublishedTopKAttack(Attack):
    """x <- project(x - step epsilon sign(grad D)), `steps` times; D as in `TopKAttack`, but k is
    `ratio` of all entries.

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
    every step, a map is solved from the last one, and a misclassified sample is not changed even if
    a step reaches its label.
    """

    steps: int = 10
    """Number of steps; the result of the last one is not evaluated."""
    step: float = 0.01
    """Fraction of epsilon that each entry moves by."""
    ratio: float = 0.4
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
        expect(0 < self.ratio < 1, "ratio", "a number between 0 and 1", self.ratio)
        seen = self.source or self.explainer
        if not (seen.derivatives or isinstance(seen, ENVELOPES)):
            raise ValueError(
                f"{seen.method} has no derivative of its map: give source=, another explainer for "
                "the steps, or use random-search"
            )

    def budget(self) -> int:
        seen = self._seen()
        choices = 0 if self.source is None else seen._choices()
        return choices + self.steps * (seen.map_budget() + 2 * seen._draws() + 1)

    def _goal(self, clean: Tensor, bound: BoundScore) -> Goal:
        return top_k(clean, bound.layout, ratio=self.ratio, of_all=True)

    @classmethod
    def aimed_at(cls, settings: Mapping[str, Any]) -> Aim:
        return Aim("top-k", {"ratio": settings["ratio"], "nonzero": False})

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

    def _search(self, batch: AttackedBatch) -> SearchResult:
        assert self.epsilon is not None
        seen = self._seen()
        score, ball = batch.bind(seen), batch.ball
        x, best = ball.center, ball.center.clone()
        least = torch.full_like(x[:, 0], torch.inf, dtype=torch.float64)
        evaluations = torch.full_like(batch.label, score.spent)
        any_kept = torch.zeros_like(batch.label, dtype=torch.bool)
        going, own = ~any_kept, batch.label == batch.bound.prediction
        goal, wrong, values, known = batch.goal, [], [], None
        for step in range(self.steps):
            spent_here: list[int] = []
            at = replace(score.moved(x), meter=spent_here.append)
            maps = seen._maps(at) if known is None else seen._near(at, known)
            shown, pull, spent = _straight_through(seen, at, maps)
            known = maps.values
            if step == 0:
                goal = self._goal(shown, batch.bound)
            assert goal is not None
            value, slope = goal.value_and_cotangent(shown)
            kept = own & batch.kept(x)
            better = kept & (value < least)
            best = torch.where(better[:, None], x, best)
            least = torch.where(better, value, least)
            any_kept |= kept
            values.append(value)
            slope = slope.to(shown.dtype)
            spent_here.clear()
            gradient = pull(slope) / ball.scale
            evaluations += torch.where(going, spent + 1 + per_sample(spent_here, len(batch)), 0)
            if step == 0:
                wrong = useless_steps(shown, slope, gradient, self.epsilon)
            before = x
            x = ball.at(ball.displacement(x) - self.step * self.epsilon * gradient.sign())
            going = (x != before).any(1)
            batch.report((step + 1) / self.steps)
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
    rho = explainer._rho(bound)[:, None] if isinstance(explainer, Moreau) else explainer.rho
    u = maps.values if released else -rho * maps.values
    support = (maps.values != 0).to(u.dtype)
    gradient = SimpleGradient(explainer.forward_func, score=explainer.score, task=explainer.task)
    point = replace(bound.moved(bound.origin + u), sigma=None, samples=1)
    plain = gradient._maps(point)

    def pull(cotangent: Tensor) -> Tensor:
        return gradient._pull(point, plain, support * cotangent, gradient.derivatives[0])

    return support * plain.values, pull, maps.evaluations + plain.evaluations
