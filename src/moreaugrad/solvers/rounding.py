"""What the rounding of a network of reduced precision adds to the error of a deterministic map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from moreaugrad.score.inputs import lengths
from moreaugrad.score.rounding import ROUNDINGS, OtherRounding
from moreaugrad.solvers.descent import Descent
from moreaugrad.solvers.solution import MoreauProblem, Solution, Status

CHECK = 1 + ROUNDINGS
"""Evaluations of the error, for each noise sample."""
FEWEST = 2
"""Evaluations, for each noise sample, that a solution needs before some are kept for that."""
LEAST = 2.0
"""Least error of a map, over its residual; see `Descent`."""


def with_rounding(
    solver: Descent, problem: MoreauProblem, solve: Callable[[Descent], Solution]
) -> Solution:
    """The solution with the rounding of a network of reduced precision in its error.

    PRECISION where a converged sample's error then exceeds the tolerance, and where one stalled as
    near to the solution as rounding lets it come. Without evaluations for it the error is unknown.
    """
    if not problem.score.reduced:
        return solve(solver)
    most, cost = solver.max_evaluations, problem.evaluations
    left = None if most is None else most - CHECK * cost
    if left is not None and left < FEWEST * cost:
        found = solve(solver)
        unknown = torch.full_like(found.error, torch.nan)
        return found.marked(Status.PRECISION, found.having(Status.CONVERGED), unknown)
    return _measured(problem, solve(replace(solver, max_evaluations=left)), solver.tolerance)


def _measured(problem: MoreauProblem, found: Solution, tolerance: float) -> Solution:
    """To the residual come its changes by a few other roundings, whose squares are summed: a single
    one is up to that many standard deviations off."""
    u, problem = found.values, replace(problem, eta=torch.nan_to_num(found.eta))
    stepped = _stepped(problem, u)
    changed = torch.zeros_like(found.error)
    for seed in range(ROUNDINGS):
        with OtherRounding(seed):
            other = _stepped(problem, u)
        changed = changed.hypot(lengths(other - stepped))
    length = torch.maximum(lengths(stepped), lengths(u)).clamp_min(torch.finfo(u.dtype).tiny)
    residual, changed = lengths(stepped - u) / length, changed / length
    factor = torch.nan_to_num(found.error / found.residual, LEAST).clamp_min(LEAST)
    error = factor * (residual + changed)
    rough = found.having(Status.CONVERGED) & ~(error <= tolerance)
    near = found.having(Status.STALLED) & (residual <= changed)
    status = zip(found.status, (rough | near).tolist(), strict=True)
    return replace(
        found,
        status=tuple(Status.PRECISION if poor else one for one, poor in status),
        error=torch.where(found.error.isnan() & ~near, found.error, error),
        evaluations=found.evaluations + CHECK * problem.evaluations,
    )


def _stepped(problem: MoreauProblem, u: Tensor) -> Tensor:
    _, grad = problem.value_and_grad(u)
    return problem.prox(u - problem.rho[:, None] * grad, problem.rho)
