"""Attacks that follow the gradient of an objective: top-k, mass-centre, target-region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from moreaugrad.attacks.base import Attack
from moreaugrad.attacks.objectives import PER, Aim, Goal, centre_shift, region, top_k
from moreaugrad.attacks.problem import LINF, AttackedBatch, AttackStatus
from moreaugrad.attacks.search import BestInputs, Iterate, SearchResult
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.derivatives import STEIN
from moreaugrad.metrics.maps import AS_IS
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.settings import expect

GRADIENT, SIGN = "gradient", "sign"
INPUT_START, SPHERE = "input", "sphere"
TRIES = 20
"""Random starts that are tried for one that keeps the class."""
HALVINGS = 10
"""Halvings of a step that changes the class, before a run ends."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GradientAttack(Attack):
    """An attack on an objective, with the explainer that computes its steps."""

    source: Explainer | None = None
    """The explainer whose maps and derivative the steps use; None is the attacked one. Use the same
    method on a softplus surrogate to attack a ReLU network, or another method for a transfer
    attack."""
    measured: bool = True
    """With a source: whether the attacked explainer's own maps decide which step is the best. False
    uses those of the source (a transfer attack, whose steps never run the attacked explainer)."""
    through: str | None = None
    """The derivative of the map: one of the source's `derivatives`; None takes the first, the exact
    one, but not Stein's identity where there is another: its steps are mostly noise."""
    draws: int = 64
    """Largest number of noise samples of the map in a step; they are the same in every step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.draws >= 1, "draws", "at least 1", self.draws)

    def _clean(self, batch: AttackedBatch) -> Iterate:
        """The samples at their clean inputs, where the search starts."""
        stepper = self._stepper()
        attacked = self.explainer.fixed(self.draws) if self._measures() else None
        return Iterate.clean(batch, stepper, self._through(stepper), attacked)

    def _measures(self) -> bool:
        """Whether the attacked explainer's own map is computed at every step too."""
        return self.source is not None and self.measured

    def _stepper(self) -> Explainer:
        return (self.source or self.explainer).fixed(self.draws)

    def _costs(self) -> tuple[int, int, int]:
        """Most evaluations of the clean maps, of those at a step, and of a step's gradient."""
        stepper = self._stepper()
        used = [stepper, self.explainer.fixed(self.draws)] if self._measures() else [stepper]
        maps = sum(each.map_budget() for each in used)
        # The attacked explainer's automatic settings are those of the clean explanation.
        choices = 0 if self.source is None else stepper._choices()
        return maps + choices, maps, 2 * stepper.map_budget()

    def _through(self, stepper: Explainer) -> str:
        if not stepper.derivatives:
            raise ValueError(
                f"{stepper.method} has no derivative of its map: give source=, another explainer "
                "for the steps, or use random-search"
            )
        followed = _followed(stepper)
        # Without a name it warns of a first derivative that is not the method's usual one.
        usual = None if followed == stepper.derivatives[0] else followed
        return stepper.way(self.through or usual)

    def settings(self) -> dict[str, Any]:
        stepper = self.source or self.explainer
        followed = _followed(stepper)
        exact = followed == next(iter(type(stepper).derivatives), None)
        return ({} if exact else {"through": followed}) | super().settings()


def _followed(stepper: Explainer) -> str | None:
    """The derivative that is followed unless `through` says otherwise."""
    ways = [way for way in stepper.derivatives if way != STEIN] or stepper.derivatives
    return next(iter(ways), None)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DescentAttack(GradientAttack):
    """x <- project(x - t d): the best of all iterates that keep the class, including the last.

    The first step has the length step * epsilon; lengths decrease linearly to 0. A step that
    changes the class is halved, up to 10 times, and so are all later ones.

    Source: Levine et al. (2019), enhanced L2 attack. Differs: steps of known length, which are
    stronger than steps that shrink with the gradient.
    """

    steps: int = 50
    """Steps of a run."""
    restarts: int = 1
    """Runs; from the second on they start at a random point on the sphere of radius epsilon, or
    nearer where no such point keeps the class."""
    optimizer: str | None = None
    """Direction of a step: "gradient", d = grad D, or "sign", d = sign(grad D); None takes the
    gradient for "l2" and its sign for "linf"."""
    step: float = 1.0
    """Length of the first step, as a fraction of epsilon."""
    start: str = INPUT_START
    """Where the first run starts: the "input" itself, or a random point on the "sphere" of radius
    epsilon, or nearer, that keeps the class."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer is not None:
            choose("optimizer", self.optimizer, (GRADIENT, SIGN))
        choose("start", self._start(), (INPUT_START, SPHERE))
        expect(self.steps >= 1, "steps", "at least 1", self.steps)
        expect(self.restarts >= 1, "restarts", "at least 1", self.restarts)
        expect(0 < self.step < float("inf"), "step", "a number > 0", self.step)
        if self.epsilon:
            self._through(self._stepper())

    def _start(self) -> str:
        return self.start

    def budget(self) -> int:
        clean, maps, gradient = self._costs()
        return clean + self.restarts * (TRIES + maps + self.steps * (gradient + maps + 1))

    def _search(self, batch: AttackedBatch) -> SearchResult:
        clean = self._clean(batch)
        best = BestInputs(clean, self.steps + 1)
        for run in range(self.restarts):
            rows = best.begin()
            if len(rows) == 0:
                break
            now = clean.select(rows)
            if run > 0 or self._start() == SPHERE:
                x, tries, kept = _started(now.batch, run)
                best.evaluations[rows] += tries
                lost = AttackStatus.NO_FEASIBLE_STEP
                best.fail(rows, [None if fine else lost for fine in kept.tolist()])
                now = now.moved(x)
                best.evaluations[rows] += now.evaluations
            best.offer(0, now)
            self._descend(now, best, run)
            best.end()
        return best.found()

    def _descend(self, now: Iterate, best: BestInputs, run: int) -> None:
        """One run. Samples without a gradient, or without a step that keeps the class, leave it."""
        assert self.epsilon is not None
        signed = (self.optimizer or (SIGN if self.norm == LINF else GRADIENT)) == SIGN
        scale = torch.ones_like(now.x[:, 0])
        for step in range(self.steps):
            gradient, useless, spent = now.gradient()
            best.evaluations[now.rows] += spent
            best.fail(now.rows, useless)
            going = _places([why is None for why in useless], now.rows)
            now, gradient, scale = now.select(going), gradient[going], scale[going]
            if len(now) == 0:
                return
            direction = gradient.sign() if signed else gradient
            reach = scale * (self.step * self.epsilon * (1 - step / self.steps))
            length = reach / now.batch.ball.length(direction).to(reach.dtype)
            x, tries, kept = _kept_step(now, direction, length)
            best.evaluations[now.rows] += tries
            lost = AttackStatus.NO_FEASIBLE_STEP
            best.fail(now.rows, [None if fine else lost for fine in kept.tolist()])
            going = _places(kept.tolist(), now.rows)
            now, scale = now.select(going), (scale * 0.5 ** (tries - 1))[going]
            if len(now) == 0:
                return
            now = now.moved(x[going])
            best.evaluations[now.rows] += now.evaluations
            best.offer(step + 1, now)
            now.batch.report((run + (step + 1) / self.steps) / self.restarts)


def _places(chosen: list[bool], like: Tensor) -> Tensor:
    return torch.tensor(chosen, device=like.device).nonzero()[:, 0]


def _started(batch: AttackedBatch, run: int) -> tuple[Tensor, Tensor, Tensor]:
    """The start of a run: `first_kept` of random points, the later ones ever nearer to the input:
    all points at the full distance may have another class."""

    def propose(part: AttackedBatch, rows: Tensor, number: int) -> Tensor:
        nearer = 0.5 ** max(0, number + 1 - TRIES // 2)
        return part.ball.at(nearer * part.ball.on_sphere(part.normal(run * TRIES + number)))

    return batch.first_kept(TRIES, propose)


def _kept_step(now: Iterate, direction: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A step, halved until it keeps the class: `first_kept` of its lengths."""
    w = now.batch.ball.displacement(now.x)

    def propose(part: AttackedBatch, rows: Tensor, number: int) -> Tensor:
        shift = (length[rows] * 0.5**number)[:, None] * direction[rows]
        return part.ball.at(w[rows] - shift)

    return now.batch.first_kept(HALVINGS + 1, propose)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TopKAttack(DescentAttack):
    """Minimises D, the fraction of the map's magnitude on the clean map's k largest entries.

    >>> result = mg.attacks.TopKAttack(mg.SimpleGradient(model), epsilon=0.5, steps=10).attack(x)

    Source: Ghorbani et al. (2019); Levine et al. (2019); Zhang and Farnia (2023), appendix B.2.
    """

    ratio: float = 0.4
    """k as a fraction of the clean map's entries that are not zero."""
    count: int | None = None
    """k itself instead; where it covers all of these entries, an attack by gradients ends with the
    status "flat objective"."""
    per: str = PER[0]
    """What is counted: "element", or "pixel" (channels summed)."""

    name: ClassVar[str] = "top-k"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("per", self.per, PER)
        expect(0 < self.ratio < 1, "ratio", "a number between 0 and 1", self.ratio)
        expect(self.count is None or self.count >= 1, "count", "at least 1", self.count)

    def _goal(self, clean: Tensor, bound: BoundScore) -> Goal:
        return top_k(clean, bound.layout, ratio=self.ratio, count=self.count, per=self.per)

    @classmethod
    def aimed_at(cls, settings: Mapping[str, Any]) -> Aim:
        reduction = AS_IS if settings["per"] == PER[0] else "abs-sum"
        number = {"ratio": settings["ratio"], "count": settings.get("count")}
        return Aim("top-k", {**number, "reduction": reduction})


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MassCentreAttack(DescentAttack):
    """Minimises D = -||C(x') - C(x)||^2, C the centre of the map's magnitude in pixels.

    >>> attack = mg.attacks.MassCentreAttack(mg.SimpleGradient(model), epsilon=0.5, steps=10)
    >>> result = attack.attack(x)

    Source: Ghorbani et al. (2019).
    """

    start: str = SPHERE
    """The "sphere" only: the gradient is zero at the input itself."""

    name: ClassVar[str] = "mass-centre"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = "'sphere' for mass-centre, whose gradient is zero at the input itself"
        expect(self.start == SPHERE, "start", known, self.start)

    def _goal(self, clean: Tensor, bound: BoundScore) -> Goal:
        return centre_shift(clean, bound.layout)

    @classmethod
    def aimed_at(cls, settings: Mapping[str, Any]) -> Aim:
        return Aim("mass-centre-shift")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TargetRegionAttack(DescentAttack):
    """Maximises the fraction of the map's magnitude in a region.

    >>> attack = mg.attacks.TargetRegionAttack(mg.SimpleGradient(model), epsilon=0.5, steps=10)
    >>> result = attack.attack(x)

    Source: Ghorbani et al. (2019), targeted attack.
    """

    region: Tensor | Sequence[int] | None = None
    """A mask, non-zero inside, `[*spatial]` or `[B, *spatial]`; or a box (top, left, height, width)
    in pixels; None is the least important of 4 x 4 blocks."""

    name: ClassVar[str] = "target-region"
    aim: ClassVar[str] = "region"

    def _goal(self, clean: Tensor, bound: BoundScore) -> Goal:
        return region(clean, bound.layout, self.region)
