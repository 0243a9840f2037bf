"""A group of samples under attack: where inputs may go, what they are judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moreaugrad.attacks.ball import Ball
from moreaugrad.attacks.objectives import Goal
from moreaugrad.attacks.result import AttackStatus
from moreaugrad.explainers.base import Explainer
from moreaugrad.score.batched import Batched
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.noise import Noise
from moreaugrad.score.targets import Readout, Target, TargetLike
from moreaugrad.solvers.solution import Solution

FIRST = 2**40
"""Number of an attack's first draw: far behind those of the method that it attacks."""
MARGIN = Readout(kind="margin")
ROUNDINGS = 64
"""Of the largest output, by which the label's must exceed all others."""
FLAT = 1e-12
"""Change of an objective, to first order over the map or the ball, that is numerically zero."""


def target_like(target: Target) -> TargetLike:
    """A fixed target in the form that binding takes."""
    if target.positions is None:
        return target.classes
    rows = torch.cat((target.classes[:, None], target.positions), dim=1).tolist()
    return [tuple(row) for row in rows]


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackedBatch(Batched):
    """Samples to attack: the attacked explainer's score at them, and its clean maps `[B, n]`.

    `label` `[B]`: the class that must stay, the clean prediction.
    """

    bound: BoundScore
    ball: Ball
    clean: Tensor
    goal: Goal | None
    label: Tensor
    seed: int
    tell: Callable[[float], None] = lambda _: None
    """Told of the share of the work that is done."""

    def __len__(self) -> int:
        return len(self.bound)

    def normal(self, number: int) -> Tensor:
        """Standard normal vector `number` of each sample, `[B, n]`."""
        bound = self.bound
        drawn = Noise(self.seed).normals(bound.keys, FIRST + number, self.clean, bound.mask)
        return drawn.expand_as(self.clean)

    def kept(self, x: Tensor) -> Tensor:
        """Whether the label is predicted at `x` `[B, n]`, beyond rounding: `[B]`. A forward pass.

        Without the margin a point on the class's edge would be judged by its batch mates.
        """
        bound = self.bound.moved(x)
        with torch.no_grad():
            outputs = bound.in_chunks(lambda rows: bound.outputs(x[rows], rows))
        largest = outputs.reshape(len(x), -1).abs().amax(1)
        if bound.readout.task == "regression":
            return torch.isfinite(largest)
        margin = MARGIN.read(outputs, replace(bound.target, classes=self.label))
        slack = min(ROUNDINGS * torch.finfo(outputs.dtype).eps, 0.02)
        return margin > slack * largest  # False for NaN

    def bind(self, explainer: Explainer) -> BoundScore:
        """The score that another explainer explains, at these samples and for the same target."""
        own = self.bound
        parts = own.layout.restore(own.origin)
        mask = None if own.mask is None else own.layout.split(own.mask)
        found = explainer.bind(parts, target_like(own.target), own.args, own.keys, mask)
        return replace(found, follows=own.follows)


@dataclass(frozen=True, kw_only=True, eq=False)
class Look(Batched):
    """What is seen at an input: the maps that steps are made with, and how good it is."""

    maps: Solution
    judged: Solution | None
    value: Tensor
    evaluations: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Pursuit(Batched):
    """A case with a goal, and explainers to follow it with.

    stepper: gives maps and their derivative; its noise is fixed. judge: its maps tell how good an
    input is, None for the stepper's own.
    """

    case: AttackedBatch
    goal: Goal
    stepper: Explainer
    score: BoundScore
    through: str
    judge: Explainer | None = None
    judged: BoundScore | None = None

    def __len__(self) -> int:
        return len(self.case)

    def look(self, x: Tensor, near: Look | None = None) -> Look:
        """The objective at `x` `[B, n]`, warm from a look at a point nearby."""
        maps = _maps(self.stepper, self.score.moved(x), None if near is None else near.maps)
        evaluations, judged = maps.evaluations, None
        if self.judge is not None and self.judged is not None:
            start = None if near is None else near.judged
            judged = _maps(self.judge, self.judged.moved(x), start)
            evaluations = evaluations + judged.evaluations
        with torch.no_grad():
            value = self.goal.value((judged or maps).values.double())
        return Look(maps=maps, judged=judged, value=value, evaluations=evaluations)

    def gradient(self, x: Tensor, look: Look) -> Slope:
        """The stepper's objective at `x`, differentiated in the budget's coordinates."""
        flat, ball = look.maps.values, self.case.ball
        _, slope = self.goal.value_and_cotangent(flat)
        slope, spent = slope.to(flat.dtype), list[int]()
        bound = replace(self.score.moved(x), meter=spent.append)
        pulled = self.stepper._pull(bound, look.maps, slope, self.through)
        gradient = pulled / ball.scale
        wrong = wrong_with(flat, slope, gradient, ball.radius or 1.0)
        return Slope(gradient=gradient, wrong=wrong, evaluations=per_sample(spent, len(self)))


def per_sample(spent: Sequence[int], samples: int) -> int:
    """Evaluations of one sample, rounded up, from those of all."""
    return -(-sum(spent) // samples)


@dataclass(frozen=True, kw_only=True, eq=False)
class Slope:
    """A gradient `[B, n]` and, for each sample, what is wrong with it, None where it is fine.

    evaluations: of one sample, in the mean over the samples that were done together.
    """

    gradient: Tensor
    wrong: list[AttackStatus | None]
    evaluations: int


def wrong_with(
    maps: Tensor, slope: Tensor, gradient: Tensor, radius: float
) -> list[AttackStatus | None]:
    """Why a step by this gradient would follow nothing, for each sample: None where it is fine.

    slope: the objective's derivative by the map; gradient: by the input, in the budget's units.
    """
    # To first order: what the objective may change by over the map, and over the ball.
    change = (slope.double() * maps.double()).abs().sum(1)
    reach = gradient.double().norm(dim=1) * radius
    zero = (maps == 0).all(1)
    checks = zip(zero.tolist(), change.tolist(), reach.tolist(), strict=True)
    return [_wrong(*row) for row in checks]


def _wrong(zero: bool, change: float, reach: float) -> AttackStatus | None:
    if zero:
        return AttackStatus.ZERO_MAP
    if not (change < float("inf") and reach < float("inf")):
        return AttackStatus.NON_FINITE
    if change <= FLAT:
        return AttackStatus.FLAT_OBJECTIVE
    return AttackStatus.NO_GRADIENT if reach <= FLAT else None


def _maps(explainer: Explainer, bound: BoundScore, near: Solution | None) -> Solution:
    return explainer._maps(bound) if near is None else explainer._near(bound, near.values)
