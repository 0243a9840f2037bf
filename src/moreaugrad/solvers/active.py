"""The samples that a stochastic solve is still computing, and how each of them ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from moreaugrad.score.inputs import Batched
from moreaugrad.solvers.solution import MoreauProblem, Status
from moreaugrad.solvers.sparsity import Threshold
from moreaugrad.solvers.z_scores import Measured, through

_CODES = (
    Status.BUDGET_USED, Status.CONVERGED, Status.NOT_UNIQUE, Status.UNVARIED, Status.UNBOUNDED,
    Status.NON_FINITE,
)  # fmt: skip
_BUDGET_USED, _CONVERGED, _NOT_UNIQUE, _UNVARIED, _UNBOUNDED, _NON_FINITE = range(len(_CODES))
"""Statuses as numbers, so that those of a batch are read at once."""


@dataclass(kw_only=True, eq=False)
class Active(Batched):
    """The active samples."""

    problem: MoreauProblem
    y: Tensor
    u: Tensor
    """P(y) at the last step."""
    reach: Tensor
    """Length of u from which on a sample counts as unbounded, `[B]`."""
    broken: Tensor
    """Place in `_CODES` of what ended a sample, 0 while it goes on, `[B]`."""
    threshold: Threshold | None
    """Of an automatic eta."""

    def going(self, finite: Tensor) -> Tensor:
        """Which samples go on, by whether what was computed is `finite` `[B]`; why not is noted."""
        fault = torch.where(finite, 0, _NON_FINITE)
        fault = torch.where(self.u.norm(dim=1) > self.reach, _UNBOUNDED, fault)
        self.broken = torch.where(self.broken == 0, fault, self.broken)
        return self.broken == 0

    def verdicts(self, done: Tensor, concave: Tensor, unvaried: Tensor) -> list[Status]:
        """The statuses of samples that end now, by three answers for each, `[B]`."""
        code = torch.where(concave, _NOT_UNIQUE, _CONVERGED)
        code = torch.where(done, code, _BUDGET_USED)
        code = torch.where(unvaried, _UNVARIED, code)
        code = torch.where(self.broken > 0, self.broken, code)
        return [_CODES[each] for each in code.tolist()]

    def unbroken(self, found: Found) -> Found:
        """The last displacement of what grows without bound, and nothing of what is not finite."""
        escaped, lost = self.broken == _UNBOUNDED, self.broken == _NON_FINITE
        rows = escaped[:, None]
        values = torch.where(rows, self.u, found.values).masked_fill(lost[:, None], torch.nan)
        error = torch.where(escaped, torch.inf, found.error).masked_fill(lost, torch.nan)
        eta = torch.where(escaped, self.problem.eta, found.eta).masked_fill(lost, torch.nan)
        return Found(values, error, eta)

    def mapped(self, y: Tensor) -> Tensor:
        """P(y) with an automatic eta chosen at y, so that eta's error is part of the map's."""
        problem = self.retuned(y)
        return problem.prox(y, problem.rho)

    def measured(self, y: Tensor) -> Measured:
        """What decides about the entries of P(y), eta likewise."""
        problem = self.retuned(y)
        return through(problem.penalty, y, problem.rho * problem.eta)

    def retuned(self, y: Tensor) -> MoreauProblem:
        """The problem with the eta that gives the wanted fraction of zeros at y."""
        if self.threshold is None:
            return self.problem
        found = self.threshold(self.problem.penalty.magnitudes(y))
        return replace(self.problem, eta=found / self.problem.rho)


class Found(NamedTuple):
    """What the means of the active samples' sequences give."""

    values: Tensor
    error: Tensor
    eta: Tensor
