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
    Status.INCOMPLETE: (
        "the contributions do not add up to the score's change from the baseline",
        "use integrated gradients: the network has parts without a rule, as functional activations",
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
        self._u = torch.zeros_like(like)
        self._floats = {
            name: like.new_full((batch,), torch.nan) for name in ("residual", "error", "eta")
        }
        self._counts = {
            name: torch.zeros(batch, dtype=torch.long, device=like.device)
            for name in ("steps", "evaluations")
        }

    def finish(
        self, done: Tensor, status: list[Status | None], u: Tensor, **values: Tensor
    ) -> Tensor:
        """Stores the samples of the active batch that are `done`; returns the rows that go on."""
        rows = self.rows[done]
        for place, row in zip(done.nonzero()[:, 0].tolist(), rows.tolist(), strict=True):
            self._status[row] = status[place] or Status.STEP_LIMIT
        self._u[rows] = u[done]
        for name, store in (self._floats | self._counts).items():
            store[rows] = values[name][done].to(store.dtype)
        keep = (~done).nonzero()[:, 0]
        self.rows = self.rows[keep]
        return keep

    def solution(self) -> Solution:
        return Solution(u=self._u, status=tuple(self._status), **self._floats, **self._counts)
