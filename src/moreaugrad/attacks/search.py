"""What searches share: the samples at an input, and the best input of each so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from moreaugrad.attacks.problem import AttackedBatch, AttackStatus
from moreaugrad.explainers.base import Explainer
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import Batched
from moreaugrad.solvers.solution import Solution

FLAT = 1e-12
"""A change of the objective, to first order over the map or the ball, that counts as zero."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Followed(Batched):
    """An explainer whose noise is fixed, the score that it explains, and its maps at an input."""

    explainer: Explainer
    score: BoundScore
    maps: Solution

    @classmethod
    def at_clean(cls, explainer: Explainer, batch: AttackedBatch) -> Self:
        score = batch.bind(explainer)
        maps = explainer._maps(score)
        maps = replace(maps, evaluations=maps.evaluations + score.spent)
        return cls(explainer=explainer, score=score, maps=maps)

    def moved(self, x: Tensor) -> Self:
        maps = self.explainer._near(self.score.moved(x), self.maps.values)
        return replace(self, maps=maps)


@dataclass(frozen=True, kw_only=True, eq=False)
class Iterate(Batched):
    """The samples of a search at an input x, with their maps and the objective there.

    rows: the samples' places in the group. x: `[B, n]`. value: the objective, `[B]`. stepper: the
    explainer whose maps, and their derivative `through`, the steps use. attacked: the explainer
    whose maps decide how good an input is; None for the stepper.
    """

    batch: AttackedBatch
    rows: Tensor
    x: Tensor
    value: Tensor
    stepper: _Followed
    through: str
    attacked: _Followed | None

    @classmethod
    def clean(
        cls,
        batch: AttackedBatch,
        stepper: Explainer,
        through: str = "",
        attacked: Explainer | None = None,
    ) -> Self:
        """The samples at their clean inputs."""
        found = cls(
            batch=batch,
            rows=torch.arange(len(batch), device=batch.label.device),
            x=batch.ball.center,
            value=torch.full_like(batch.label, torch.nan, dtype=torch.float64),
            stepper=_Followed.at_clean(stepper, batch),
            through=through,
            attacked=None if attacked is None else _Followed.at_clean(attacked, batch),
        )
        return found._evaluated()

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Tensor) -> Self:
        return self if len(rows) == len(self) else super().select(rows)

    def moved(self, x: Tensor) -> Self:
        """The samples at another input; solvers of its maps start from the present ones."""
        attacked = None if self.attacked is None else self.attacked.moved(x)
        return replace(self, x=x, stepper=self.stepper.moved(x), attacked=attacked)._evaluated()

    def _evaluated(self) -> Self:
        assert self.batch.goal is not None
        with torch.no_grad():
            maps = (self.attacked or self.stepper).maps.values
            return replace(self, value=self.batch.goal.value(maps.double()))

    @property
    def evaluations(self) -> Tensor:
        """Passes that computed the maps, `[B]`."""
        spent = self.stepper.maps.evaluations
        return spent if self.attacked is None else spent + self.attacked.maps.evaluations

    def gradient(self) -> tuple[Tensor, list[AttackStatus | None], int]:
        """The gradient of the stepper's objective, `[B, n]` in the budget's coordinates.

        With it the reason why it is useless, for each sample, and the evaluations of one sample
        (the mean over the samples).
        """
        assert self.batch.goal is not None
        stepper, ball, spent = self.stepper, self.batch.ball, list[int]()
        maps = stepper.maps.values
        slope = self.batch.goal.value_and_cotangent(maps)[1].to(maps.dtype)
        bound = replace(stepper.score.moved(self.x), meter=spent.append)
        pulled = stepper.explainer._pull(bound, stepper.maps, slope, self.through)
        gradient = pulled / ball.scale
        useless = useless_steps(maps, slope, gradient, ball.radius or 1.0)
        return gradient, useless, per_sample(spent, len(self))


def per_sample(spent: Sequence[int], samples: int) -> int:
    """The evaluations of one sample, rounded up, from those of all samples."""
    return -(-sum(spent) // samples)


def useless_steps(
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
    return [_useless(*row) for row in checks]


def _useless(zero: bool, change: float, reach: float) -> AttackStatus | None:
    if zero:
        return AttackStatus.ZERO_MAP
    if not (change < float("inf") and reach < float("inf")):
        return AttackStatus.NON_FINITE
    if change <= FLAT:
        return AttackStatus.FLAT_OBJECTIVE
    return AttackStatus.NO_GRADIENT if reach <= FLAT else None


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchResult(Batched):
    """The inputs `[B, n]` that a search returns; the other fields are those of `AttackResult`."""

    x: Tensor
    status: tuple[AttackStatus, ...]
    objective: Tensor
    evaluations: Tensor


class BestInputs:
    """The best input so far that keeps the class, at first the clean one; over several runs."""

    def __init__(self, clean: Iterate, columns: int) -> None:
        """clean: all samples of the group at their clean inputs. columns: inputs of a run."""
        self.x, self.value = clean.x.clone(), clean.value.clone()
        self.evaluations = clean.evaluations.clone()
        self._clean = clean.value
        self._trace = clean.value.new_full((len(clean), columns), torch.nan)
        self._run = self._trace.clone()
        self._best_here = torch.ones_like(clean.rows, dtype=torch.bool)
        self._stepped = torch.zeros_like(self._best_here)
        followed = [
            each.maps.values for each in (clean.stepper, clean.attacked) if each is not None
        ]
        maps = torch.stack([clean.batch.clean, *followed])
        zero, finite = (maps == 0).all(2).any(0), torch.isfinite(maps).all(2).all(0)
        checks = (torch.isfinite(clean.value).tolist(), zero.tolist(), finite.tolist())
        self._wrong = [_without_value(*row) for row in zip(*checks, strict=True)]

    def begin(self) -> Tensor:
        """Begins a run, with the samples whose clean objective is finite.

        The trace is that of the run with the best input, or of the first run.
        """
        self._run = torch.full_like(self._trace, torch.nan)
        return torch.isfinite(self._clean).nonzero()[:, 0]

    def offer(self, column: int, now: Iterate) -> None:
        """Inputs that keep the class: one with a smaller value replaces the best one so far.

        Column 0 is the start of a run, the others are its steps.
        """
        rows, x, value = now.rows, now.x, now.value
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
        """Why runs of these samples stop, or None; it is the status where no step was made and no
        start was better."""
        for row, reason in zip(rows.tolist(), why, strict=True):
            self._wrong[row] = self._wrong[row] or reason

    def found(self) -> SearchResult:
        """The result of all runs."""
        improved, held = AttackStatus.IMPROVED, AttackStatus.HELD
        ended = zip(
            self._stepped.tolist(), (self.value < self._clean).tolist(), self._wrong, strict=True
        )
        return SearchResult(
            x=self.x,
            status=tuple(
                improved if better else held if stepped else why or AttackStatus.NO_FEASIBLE_STEP
                for stepped, better, why in ended
            ),
            objective=self._trace,
            evaluations=self.evaluations,
        )


def _without_value(known: bool, zero: bool, finite: bool) -> AttackStatus | None:
    """Why the clean objective is not known, by the maps that it is of."""
    if known:
        return None
    if zero:
        return AttackStatus.ZERO_MAP
    return AttackStatus.UNDEFINED if finite else AttackStatus.NON_FINITE
