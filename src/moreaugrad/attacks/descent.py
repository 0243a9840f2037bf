"""Attacks that follow the objective's gradient: top-k, mass-centre, targeted region."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from moreaugrad.attacks.ball import LINF
from moreaugrad.attacks.base import Attack
from moreaugrad.attacks.problem import AttackedBatch, Look, Pursuit
from moreaugrad.attacks.result import AttackStatus
from moreaugrad.attacks.search import Found, Incumbents
from moreaugrad.explainers.base import Explainer
from moreaugrad.registry import choose
from moreaugrad.score.batched import Batched

GRADIENT, SIGN = "gradient", "sign"
INPUT_START, SPHERE = "input", "sphere"
TRIES = 20
"""Random starts that are tried for one that keeps the class."""
HALVINGS = 10
"""Halvings of a step that changes the class, before a run ends."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Pursuing(Attack):
    """An attack on a goal, with explainers that its steps are made with."""

    source: Explainer | None = None
    """The explainer whose maps and derivative the steps use; None is the attacked one. The same
    method on a softplus surrogate attacks a ReLU network; another method makes a transfer
    attack."""
    measured: bool = True
    """With a source: the attacked explainer's own maps decide which step is the best; False takes
    the source's (a transfer that never asks the attacked one)."""
    through: str | None = None
    """How the change of a map is carried back to the input: one of the source's `derivatives`; None
    takes the first, the exact one."""
    draws: int = 64
    """Noise samples of each step's map at most, the same ones at every step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1:
            raise ValueError(f"draws: expected at least 1, got {self.draws!r}")

    def _pursuit(self, case: AttackedBatch) -> Pursuit:
        stepper = self._stepper()
        assert case.goal is not None
        judge = self.explainer.fixed(self.draws) if self._judges() else None
        return Pursuit(
            case=case,
            goal=case.goal,
            stepper=stepper,
            score=case.bind(stepper),
            through=self._through(stepper),
            judge=judge,
            judged=None if judge is None else case.bind(judge),
        )

    def _judges(self) -> bool:
        """Whether the attacked explainer's own map is asked at every step too."""
        return self.source is not None and self.measured

    def _stepper(self) -> Explainer:
        return (self.source or self.explainer).fixed(self.draws)

    def _through(self, stepper: Explainer) -> str:
        if not stepper.derivatives:
            raise ValueError(
                f"{stepper.method} has no derivative of its map: give source=, another explainer "
                "to make the steps with, or use random-search"
            )
        return stepper.way(self.through)

    def settings(self) -> dict[str, Any]:
        stepper = self.source or self.explainer
        exact = stepper.derivatives[:1] == type(stepper).derivatives[:1]
        return ({} if exact else {"through": stepper.derivatives[0]}) | super().settings()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DescentAttack(Pursuing):
    """x <- project(x - t d): the best of all iterates that keep the class, the last one included.

    The first step has the length step * epsilon, the others shrink linearly to 0. One that changes
    the class is halved, up to 10 times, and all after it.

    Source: Levine et al. (2019), enhanced L2 attack. Differs: steps of known length, which are
    stronger than ones that shrink with the gradient.
    """

    steps: int = 50
    """Steps of a run."""
    restarts: int = 1
    """Runs; from the second on they start at random on the sphere of radius epsilon."""
    optimizer: str | None = None
    """Direction of a step: "gradient", d = grad D, or "sign", d = sign(grad D); None takes the
    gradient for "l2" and its sign for "linf"."""
    step: float = 1.0
    """Length of the first step, as a fraction of epsilon."""
    start: str = INPUT_START
    """Where the first run starts: the "input" itself, or a random point on the "sphere" of radius
    epsilon that keeps the class."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer is not None:
            choose("optimizer", self.optimizer, (GRADIENT, SIGN))
        choose("start", self.start, (INPUT_START, SPHERE))
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)!r}")
        if not 0 < self.step < float("inf"):
            raise ValueError(f"step: expected a number > 0, got {self.step!r}")
        if self.epsilon:
            self._through(self._stepper())

    def budget(self) -> int:
        stepper = self._stepper()
        look = stepper.budget()
        pull = 2 * look
        if self._judges():
            look += self.explainer.fixed(self.draws).budget()
        return look + self.restarts * (TRIES + look + self.steps * (pull + look + 1))

    def _search(self, case: AttackedBatch) -> Found:
        whole = self._pursuit(case)
        clean = whole.look(case.ball.center)
        best = Incumbents(case, self.steps + 1, clean)
        for run in range(self.restarts):
            rows = best.begin()
            if len(rows) == 0:
                break
            pursuit, look = whole.select(rows), clean.select(rows)
            x = pursuit.case.ball.center
            if run > 0 or self.start == SPHERE:
                x, tries = self._started(pursuit.case, run)
                look = pursuit.look(x, look)
                best.evaluations[rows] += tries + look.evaluations
            best.offer(0, rows, x, look.value)
            self._descend(_Moving(pursuit=pursuit, rows=rows, x=x, look=look), best, run)
            best.end()
        return best.found()

    def _descend(self, run: _Moving, best: Incumbents, number: int) -> None:
        """One run. A sample leaves it where there is no gradient, or no step keeps the class."""
        assert self.epsilon is not None
        signed = (self.optimizer or (SIGN if self.norm == LINF else GRADIENT)) == SIGN
        share = torch.ones_like(run.x[:, 0])
        for step in range(self.steps):
            slope = run.pursuit.gradient(run.x, run.look)
            best.evaluations[run.rows] += slope.evaluations
            best.fail(run.rows, slope.wrong)
            going = run.places([why is None for why in slope.wrong])
            run, gradient, share = run.select(going), slope.gradient[going], share[going]
            if len(run) == 0:
                return
            direction = gradient.sign() if signed else gradient
            reach = share * (self.step * self.epsilon * (1 - step / self.steps))
            length = reach / run.pursuit.case.ball.length(direction).to(reach.dtype)
            x, halvings = _kept_step(run.pursuit.case, run.x, direction, length)
            stuck = halvings > HALVINGS
            best.evaluations[run.rows] += halvings + torch.where(stuck, 0, 1)
            lost = AttackStatus.NO_FEASIBLE_STEP
            best.fail(run.rows, [lost if no else None for no in stuck.tolist()])
            going = run.places((~stuck).tolist())
            run, share = run.select(going), (share * 0.5**halvings)[going]
            if len(run) == 0:
                return
            x = x[going]
            look = run.pursuit.look(x, run.look)
            run = replace(run, x=x, look=look)
            best.evaluations[run.rows] += look.evaluations
            best.offer(step + 1, run.rows, x, look.value)
            run.pursuit.case.tell((number + (step + 1) / self.steps) / self.restarts)

    def _started(self, case: AttackedBatch, run: int) -> tuple[Tensor, Tensor]:
        """Where a run starts, `[B, n]`, and how many points were tried for it; the input itself
        where none of them keeps the class."""
        x, tries = case.ball.center.clone(), torch.zeros_like(case.label)
        left = torch.arange(len(case), device=x.device)
        for number in range(run * TRIES, (run + 1) * TRIES):
            part = case.select(left)
            tried = part.ball.at(part.ball.on_sphere(part.normal(number)))
            kept = part.kept(tried)
            tries[left] += 1
            x[left[kept]] = tried[kept]
            left = left[~kept]
            if len(left) == 0:
                break
        return x, tries


@dataclass(frozen=True, kw_only=True, eq=False)
class _Moving(Batched):
    """The samples that a run still moves: `rows` of their group, where they are, what is there."""

    pursuit: Pursuit
    rows: Tensor
    x: Tensor
    look: Look

    def __len__(self) -> int:
        return len(self.rows)

    def places(self, chosen: list[bool]) -> Tensor:
        return torch.tensor(chosen, device=self.rows.device).nonzero()[:, 0]

    def select(self, rows: Tensor) -> Self:
        return self if len(rows) == len(self) else super().select(rows)


def _kept_step(
    case: AttackedBatch, x: Tensor, direction: Tensor, length: Tensor
) -> tuple[Tensor, Tensor]:
    """Points that keep the class `[B, n]`, and how often their step was halved for it `[B]`;
    HALVINGS + 1 where that was not enough."""
    w, moved = case.ball.displacement(x), x.clone()
    halvings = torch.zeros_like(case.label)
    left = torch.arange(len(case), device=x.device)
    for count in range(HALVINGS + 1):
        part = case.select(left)
        shift = (length[left] * 0.5**count)[:, None] * direction[left]
        tried = part.ball.at(w[left] - shift)
        kept = part.kept(tried)
        moved[left[kept]] = tried[kept]
        left = left[~kept]
        halvings[left] += 1
        if len(left) == 0:
            break
    return moved, halvings
