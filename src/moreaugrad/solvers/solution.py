"""What a solver returns: the minimiser and, for each sample, how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor


class Status(Enum):
    """How the computation of one map ended. Failure is data: `ok` tells, nothing is raised."""

    DIRECT = "direct"
    FIXED_BUDGET = "fixed budget"
    CONVERGED = "converged"
    STEP_LIMIT = "step limit"
    STALLED = "stalled"
    NON_FINITE = "non-finite"
    UNBOUNDED = "unbounded"
    BISTABLE = "bistable"
    INCOMPLETE = "incomplete"
    PRECISION = "precision"
    NO_GRADIENT = "no gradient"

    @property
    def ok(self) -> bool:
        return self in (Status.DIRECT, Status.FIXED_BUDGET, Status.CONVERGED)

    @property
    def message(self) -> str:
        return _MESSAGES[self][0]

    @property
    def remedy(self) -> str:
        return _MESSAGES[self][1]


_MESSAGES = {
    Status.DIRECT: ("computed directly, without iteration", ""),
    Status.FIXED_BUDGET: (
        "ran its fixed number of draws or steps; the error, where told, is what that gave",
        "",
    ),
    Status.CONVERGED: ("converged to the stated accuracy of the map", ""),
    Status.STEP_LIMIT: (
        "stopped at the evaluation limit before the stated accuracy was reached",
        "raise max_evaluations or tolerance; the error told is what was reached",
    ),
    Status.STALLED: (
        "no step lowers the objective, yet it is not optimal: the score has kinks (ReLU, pooling)",
        "use Gaussian regularisation (sigma > 0), or a smooth score",
    ),
    Status.NON_FINITE: (
        "the score or its gradient became NaN or infinite",
        "check the model on inputs near this sample, or lower rho or sigma",
    ),
    Status.UNBOUNDED: (
        "the displacement grows without bound: the score falls faster than the quadratic rises",
        "lower rho below 1 / (largest negative curvature of the score)",
    ),
    Status.BISTABLE: (
        "two chains ended at different maps: the problem has more than one solution",
        "lower rho below 1 / (largest negative curvature of the score)",
    ),
    Status.PRECISION: (
        "the accuracy asked for is finer than the rounding of the network's precision",
        "raise tolerance, or use float64",
    ),
    Status.INCOMPLETE: (
        "the contributions do not add up to the score's change from the baseline",
        "use integrated gradients: the network has parts without a rule, as functional activations",
    ),
    Status.NO_GRADIENT: (
        "the objective's gradient is exactly zero at every step, so the map never left its start",
        "explain another target, or a model that does not saturate at this sample and at zero",
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """Per sample: `u` `[B, n]` and, `[B]` each:

    residual: ||A - A+|| / ||A||, A = -u / rho the map and A+ the map after one fixed-point step.
    error: estimated relative error of the map. It is compared with the tolerance.
    eta: the penalty's weight (as chosen, where a sparsity was wanted).
    steps, evaluations: of the sample's own; an evaluation is a forward and an input-backward pass.
    """

    u: Tensor
    status: tuple[Status, ...]
    residual: Tensor
    error: Tensor
    eta: Tensor
    steps: Tensor
    evaluations: Tensor


class Collector:
    """Results of samples that finish at different times, put back into the batch's order."""

    def __init__(self, like: Tensor) -> None:
        batch = len(like)
        self.rows = torch.arange(batch, device=like.device)
        self._status = [Status.STEP_LIMIT] * batch
        self._closed: list[int] = []
        unknown = like.new_full((batch,), torch.nan)
        count = torch.zeros(batch, dtype=torch.long, device=like.device)
        self._store = {"u": torch.full_like(like, torch.nan)}
        self._store |= {name: unknown.clone() for name in ("residual", "error", "eta")}
        self._store |= {name: count.clone() for name in ("steps", "evaluations")}

    def close(self, place: int, status: Status, **values: Tensor | float) -> None:
        """Stores the result of the active sample at `place`."""
        row = int(self.rows[place])
        self._status[row] = status
        self._closed.append(place)
        for name, value in values.items():
            self._store[name][row] = value

    def going_on(self) -> Tensor | None:
        """The places of the samples that go on, when some were closed since the last call."""
        if not self._closed:
            return None
        keep = torch.ones(len(self.rows), dtype=torch.bool, device=self.rows.device)
        keep[self._closed] = False
        self._closed = []
        self.rows = self.rows[keep]
        return keep.nonzero()[:, 0]

    def solution(self) -> Solution:
        return Solution(status=tuple(self._status), **self._store)
