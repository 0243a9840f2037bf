"""What searches share: the gradient of the objective, and the best input of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moreaugrad.attacks.problem import AttackedBatch
from moreaugrad.attacks.result import AttackStatus
from moreaugrad.explainers.base import Explainer
from moreaugrad.score.batched import Batched
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.solvers.solution import Solution

FLAT = 1e-12
"""A change of the objective, to first order over the map or the ball, that counts as zero."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation(Batched):
    """The maps and the objective at an input.

    maps: those that steps are computed from. attacked: the attacked explainer's own maps; None
    where `maps` are used for the objective. value: the objective, `[B]`.
    """

    maps: Solution
    attacked: Solution | None
    value: Tensor
    evaluations: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective(Batched):
    """Samples with an objective, and the explainers that follow it.

    stepper: computes maps and their derivative; its noise is fixed. score: that of the stepper.
    through: the derivative that is used. attacked: the explainer whose maps decide how good an
    input is, None for the stepper. attacked_score: its score.
    """

    case: AttackedBatch
    stepper: Explainer
    score: BoundScore
    through: str
    attacked: Explainer | None = None
    attacked_score: BoundScore | None = None

    def __len__(self) -> int:
        return len(self.case)

    def evaluate(self, x: Tensor, near: Evaluation | None = None) -> Evaluation:
        """The objective at `x` `[B, n]`; maps start from those of `near`, at a nearby input."""
        maps = _maps(self.stepper, self.score.moved(x), None if near is None else near.maps)
        evaluations, own = maps.evaluations, None
        if self.attacked is not None and self.attacked_score is not None:
            start = None if near is None else near.attacked
            own = _maps(self.attacked, self.attacked_score.moved(x), start)
            evaluations = evaluations + own.evaluations
        assert self.case.goal is not None
        with torch.no_grad():
            value = self.case.goal.value((own or maps).values.double())
        return Evaluation(maps=maps, attacked=own, value=value, evaluations=evaluations)

    def gradient(
        self, x: Tensor, seen: Evaluation
    ) -> tuple[Tensor, list[AttackStatus | None], int]:
        """The gradient of the stepper's objective at `x`, `[B, n]` in the budget's coordinates.

        With it the reason why it is useless, for each sample, and the evaluations of one sample
        (the mean over the samples).
        """
        assert self.case.goal is not None
        flat, ball = seen.maps.values, self.case.ball
        _, slope = self.case.goal.value_and_cotangent(flat)
        slope, spent = slope.to(flat.dtype), list[int]()
        bound = replace(self.score.moved(x), meter=spent.append)
        pulled = self.stepper._pull(bound, seen.maps, slope, self.through)
        gradient = pulled / ball.scale
        wrong = wrong_with(flat, slope, gradient, ball.radius or 1.0)
        return gradient, wrong, per_sample(spent, len(self))


def per_sample(spent: Sequence[int], samples: int) -> int:
    """The evaluations of one sample, rounded up, from those of all samples."""
    return -(-sum(spent) // samples)


def wrong_with(
    maps: Tensor, slope: Tensor, gradient: Tensor, radius: float
) -> list[AttackStatus | None]:
    """The reason why a step along the gradient would be useless, for each sample, None otherwise.

    slope: the derivative of the objective with respect to the map. gradient: with respect to the
    input, in the budget's coordinates.
    """
    # To first order, by how much the objective may change over the map, and over the ball.
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


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchResult(Batched):
    """The inputs `[B, n]` that a search returns; the other fields are those of `AttackResult`."""

    x: Tensor
    status: tuple[AttackStatus, ...]
    objective: Tensor
    evaluations: Tensor


class BestInputs:
    """The best input so far that keeps the class, at first the clean one; over several runs."""

    def __init__(self, case: AttackedBatch, columns: int, clean: Evaluation) -> None:
        """columns: inputs of a run. clean: the maps and the objective at the clean inputs."""
        self.x, self.value = case.ball.center.clone(), clean.value.clone()
        self.evaluations = clean.evaluations.clone()
        self.rows = torch.arange(len(case), device=case.label.device)
        self._clean = clean.value
        self._trace = clean.value.new_full((len(case), columns), torch.nan)
        self._run = self._trace.clone()
        self._best_here = torch.ones_like(case.label, dtype=torch.bool)
        self._stepped = torch.zeros_like(self._best_here)
        zero = (case.clean == 0).all(1) | (clean.maps.values == 0).all(1)
        self._void = [
            None if known else AttackStatus.ZERO_MAP if empty else AttackStatus.NON_FINITE
            for known, empty in zip(
                torch.isfinite(clean.value).tolist(), zero.tolist(), strict=True
            )
        ]
        self._wrong: list[AttackStatus | None] = [None] * len(case)

    def begin(self) -> Tensor:
        """Begins a run, with the samples whose clean objective is finite.

        The trace is that of the run with the best input, or of the first run.
        """
        self._run = torch.full_like(self._trace, torch.nan)
        return torch.isfinite(self._clean).nonzero()[:, 0]

    def offer(self, column: int, rows: Tensor, x: Tensor, value: Tensor) -> None:
        """Inputs that keep the class: one with a smaller value replaces the best one so far.

        Column 0 is the start of a run, the others are its steps.
        """
        defined = torch.isfinite(value)
        self._run[rows, column] = torch.where(defined, value, torch.nan)
        if column:
            self._stepped[rows] |= defined
        better = defined & (value < self.value[rows])
        chosen = rows[better]
        self._best_here[chosen] = True
        self.x[chosen], self.value[chosen] = x[better], value[better]

    def end(self) -> None:
        """Ends a run."""
        self._trace = torch.where(self._best_here[:, None], self._run, self._trace)
        self._best_here = torch.zeros_like(self._best_here)

    def fail(self, rows: Tensor, why: Sequence[AttackStatus | None]) -> None:
        """Why runs of these samples stop, or None; it is the status where no step was made."""
        for row, reason in zip(rows.tolist(), why, strict=True):
            self._wrong[row] = self._wrong[row] or reason

    def found(self) -> SearchResult:
        """The result of all runs."""
        ended = zip(
            self._void,
            self._stepped.tolist(),
            (self.value < self._clean).tolist(),
            self._wrong,
            strict=True,
        )
        return SearchResult(
            x=self.x,
            status=tuple(_status(*sample) for sample in ended),
            objective=self._trace,
            evaluations=self.evaluations,
        )


def _status(
    void: AttackStatus | None, stepped: bool, improved: bool, wrong: AttackStatus | None
) -> AttackStatus:
    if void is not None:
        return void
    if not stepped:
        return wrong or AttackStatus.NO_FEASIBLE_STEP
    return AttackStatus.IMPROVED if improved else AttackStatus.HELD
