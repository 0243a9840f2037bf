"""A sparsity that is asked for instead of a weight eta."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moreaugrad.score.inputs import rank_from_top
from moreaugrad.solvers.descent import Descent
from moreaugrad.solvers.problem import MoreauProblem, Solver
from moreaugrad.solvers.solution import Solution, Status

ROUNDS = 12
"""Refinements of eta, each started at the last one's solution."""
CLOSE = 0.005
"""Deviation of the fraction of zeros that is left alone."""


def eta_for(magnitudes: Tensor, zeros: float, counts: Tensor | None = None) -> Tensor:
    """The smallest threshold that sets the fraction `zeros` of magnitudes `[B, G]` to zero, `[B]`.

    At least one stays, unless the fraction is 1: a map of a few groups would else be empty.
    counts `[B]`: how many of a sample's magnitudes are of real entries; the rest are zero and do
    not count. None: all are real.
    Errors: ValueError for a fraction outside [0, 1].
    """
    if not 0 <= zeros <= 1:
        raise ValueError(f"sparsity: expected a fraction from 0 to 1, got {zeros!r}")
    n = all_of(magnitudes) if counts is None else counts
    # The slack keeps .9 * 10 from rounding up to ten.
    k = n if zeros == 1 else torch.minimum(n - 1, (zeros * n.double() - 1e-9).ceil().long())
    found = rank_from_top(magnitudes, (n + 1 - k).clamp_max(magnitudes.shape[1]))
    return torch.where(k > 0, found, 0.0)


def all_of(magnitudes: Tensor) -> Tensor:
    """How many each row has, `[B]`."""
    return torch.full(magnitudes.shape[:1], magnitudes.shape[1], device=magnitudes.device)


@dataclass(frozen=True, kw_only=True)
class ForSparsity(Solver[MoreauProblem]):
    """Solves for each sample with the eta whose map has the fraction `sparsity` of zeros.

    Of entries, or of the penalty's groups. eta is set to the quantile of the penalty's magnitudes
    of grad f(x + u), first at the start and then at each solution, while evaluations last.
    The deviation that remains shows in the map.
    rounds: refinements of eta at most, each started at the last one's solution.
    Errors: TypeError for a penalty that sets nothing to zero.
    """

    solver: Descent
    sparsity: float
    rounds: int = ROUNDS

    def solve(
        self, problem: MoreauProblem, start: Tensor | None = None, allowed: Tensor | None = None
    ) -> Solution:
        penalty, counts, each = problem.penalty, problem.counts, problem.evaluations
        allowed = self.solver.limit(problem) if allowed is None else allowed
        u = problem.start if start is None else start
        eta = eta_for(penalty.magnitudes(_slope(problem, u)), self.sparsity, counts)
        solution = self.solver.solve(replace(problem, eta=eta), u, allowed - each)
        spent = solution.evaluations + each
        for _ in range(self.rounds):
            zeros = 1 - (penalty.magnitudes(solution.values) != 0).sum(1).double() / counts
            off = (zeros - self.sparsity).abs() > CLOSE + 0.5 / counts
            finite = torch.isfinite(solution.values).all(1) & torch.isfinite(solution.eta)
            rows = (off & finite & (spent + 3 * each <= allowed)).nonzero()[:, 0]
            if len(rows) == 0:
                break
            part, u = problem.select(rows), solution.values[rows]
            eta = eta_for(penalty.magnitudes(_slope(part, u)), self.sparsity, counts[rows])
            left = (allowed - spent)[rows] - each
            refined = self.solver.solve(replace(part, eta=eta), u, left)
            spent[rows] += refined.evaluations + each
            solution = _updated(solution, rows, refined)
        return replace(solution, evaluations=spent)


def _slope(problem: MoreauProblem, u: Tensor) -> Tensor:
    """grad f(x + u), `[B, n]`."""
    return problem.value_and_grad(u)[1] - u / problem.rho[:, None]


def _updated(solution: Solution, rows: Tensor, part: Solution) -> Solution:
    """With the results of some samples replaced; their steps add up."""
    order = torch.arange(len(solution), device=rows.device)
    order[rows] = len(solution) + torch.arange(len(rows), device=rows.device)
    before = solution.select(rows)
    part = replace(part, steps=before.steps + part.steps)
    # The curvature that was seen is the score's, whatever eta.
    seen = before.having(Status.NOT_UNIQUE) & part.having(Status.CONVERGED)
    return Solution.joined([solution, part.marked(Status.NOT_UNIQUE, seen)]).select(order)
