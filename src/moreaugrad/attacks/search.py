"""The best input that a search has seen, kept for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.attacks.problem import AttackedBatch, Look
from moreaugrad.attacks.result import AttackStatus
from moreaugrad.score.batched import Batched


@dataclass(frozen=True, kw_only=True, eq=False)
class Found(Batched):
    """Inputs `[B, n]` that a search ends with, and what `AttackResult` says of them."""

    x: Tensor
    status: tuple[AttackStatus, ...]
    objective: Tensor
    evaluations: Tensor


class Incumbents:
    """The best feasible input so far, which is the clean one at first; runs, and what they cost."""

    def __init__(self, case: AttackedBatch, columns: int, clean: Look) -> None:
        """`clean`: what is seen at the clean inputs."""
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
        """A run: the samples whose clean objective is a number.

        The trace is that of the run with the best input, or of the first.
        """
        self._run = torch.full_like(self._trace, torch.nan)
        return torch.isfinite(self._clean).nonzero()[:, 0]

    def offer(self, column: int, rows: Tensor, x: Tensor, value: Tensor) -> None:
        """Inputs that keep the class. A smaller value replaces the incumbent, an equal one not.

        Column 0 is the start of a run, others are steps of it.
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
        """Of a run."""
        self._trace = torch.where(self._best_here[:, None], self._run, self._trace)
        self._best_here = torch.zeros_like(self._best_here)

    def fail(self, rows: Tensor, why: Sequence[AttackStatus | None]) -> None:
        """Why runs of these samples stop, or None; it counts where no step was made at all."""
        for row, reason in zip(rows.tolist(), why, strict=True):
            self._wrong[row] = self._wrong[row] or reason

    def found(self) -> Found:
        ended = zip(
            self._void,
            self._stepped.tolist(),
            (self.value < self._clean).tolist(),
            self._wrong,
            strict=True,
        )
        return Found(
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
