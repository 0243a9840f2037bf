"""A group of samples under attack: where inputs may go, what they are judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from moreaugrad.attacks.ball import Ball
from moreaugrad.attacks.objectives import Goal
from moreaugrad.attacks.result import AttackStatus
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.maps import Maps
from moreaugrad.score.bound import BoundScore
from moreaugrad.score.noise import Noise
from moreaugrad.score.readout import Readout, Target, TargetLike

FIRST = 2**40
"""Number of an attack's first draw: far behind those of the method that it attacks."""
MARGIN = Readout("margin")
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
class Case:
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

    def select(self, rows: Tensor) -> Case:
        return replace(
            self,
            bound=self.bound.select(rows),
            ball=self.ball.select(rows),
            clean=self.clean[rows],
            goal=None if self.goal is None else self.goal.select(rows),
            label=self.label[rows],
        )

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
class Look:
    """What is seen at an input: the maps that steps are made with, and how good it is."""

    maps: Maps
    judged: Maps | None
    value: Tensor
    evaluations: Tensor

    def select(self, rows: Tensor) -> Look:
        return Look(
            maps=_rows(self.maps, rows),
            judged=None if self.judged is None else _rows(self.judged, rows),
            value=self.value[rows],
            evaluations=self.evaluations[rows],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Pursuit:
    """A case with a goal, and explainers to follow it with.

    stepper: gives maps and their derivative; its noise is fixed. judge: its maps tell how good an
    input is, None for the stepper's own.
    """

    case: Case
    goal: Goal
    stepper: Explainer
    score: BoundScore
    through: str
    judge: Explainer | None = None
    judged: BoundScore | None = None

    def __len__(self) -> int:
        return len(self.case)

    def select(self, rows: Tensor) -> Pursuit:
        return replace(
            self,
            case=self.case.select(rows),
            goal=self.goal.select(rows),
            score=self.score.select(rows),
            judged=None if self.judged is None else self.judged.select(rows),
        )

    def look(self, x: Tensor, near: Look | None = None) -> Look:
        """The objective at `x` `[B, n]`, warm from a look at a point nearby."""
        maps = _maps(self.stepper, self.score.moved(x), None if near is None else near.maps)
        evaluations, judged = maps.evaluations, None
        if self.judge is not None and self.judged is not None:
            start = None if near is None else near.judged
            judged = _maps(self.judge, self.judged.moved(x), start)
            evaluations = evaluations + judged.evaluations
        with torch.no_grad():
            value = self.goal.value((judged or maps).flat.double())
        return Look(maps=maps, judged=judged, value=value, evaluations=evaluations)

    def gradient(self, x: Tensor, look: Look) -> Slope:
        """The stepper's objective at `x`, differentiated in the budget's coordinates."""
        flat, ball = look.maps.flat, self.case.ball
        _, slope = self.goal.value_and_cotangent(flat)
        slope, meter = slope.to(flat.dtype), Meter()
        bound = replace(self.score.moved(x), meter=meter)
        pulled = self.stepper._pull(bound, look.maps, slope, self.through)
        gradient = pulled / ball.scale
        wrong = wrong_with(flat, slope, gradient, ball.radius or 1.0)
        return Slope(gradient=gradient, wrong=wrong, evaluations=meter.each(len(self)))


class Meter:
    """Counts evaluations."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, evaluations: int) -> None:
        self.count += evaluations

    def each(self, samples: int) -> int:
        """Of one sample, rounded up."""
        return -(-self.count // samples)


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


def _maps(explainer: Explainer, bound: BoundScore, near: Maps | None) -> Maps:
    return explainer._maps(bound) if near is None else explainer._near(bound, near.flat)


def _rows(maps: Maps, rows: Tensor) -> Maps:
    changed: dict[str, Any] = {}
    for item in fields(maps):
        value = getattr(maps, item.name)
        if isinstance(value, Tensor):
            changed[item.name] = value[rows]
        elif item.name == "status":
            changed[item.name] = tuple(value[row] for row in rows.tolist())
        elif item.name == "settings":
            changed[item.name] = value
        else:
            changed[item.name] = {name: each[rows] for name, each in value.items()}
    return Maps(**changed)
