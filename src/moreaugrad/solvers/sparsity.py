"""A wanted share of zeros in place of a given eta."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from moreaugrad.penalties import SparsePenalty
from moreaugrad.score.masks import rank_from_top
from moreaugrad.solvers.descent import Descent
from moreaugrad.solvers.problem import MoreauProblem
from moreaugrad.solvers.solution import Solution, Status

ROUNDS = 12
"""Refinements of eta, each started at the last one's solution."""
CLOSE = 0.005
"""Deviation of the share of zeros that is left alone."""


def eta_for(magnitudes: Tensor, zeros: float, counts: Tensor | None = None) -> Tensor:
    """`[B]`: the smallest threshold that sets the share `zeros` of the magnitudes `[B, G]` to zero.

    At least one stays, unless the share is 1: a map of a few groups would else be empty.
    counts `[B]`: how many of a sample's magnitudes are of real entries; the rest are zero and do
    not count. None: all are real.
    Errors: ValueError for a share outside [0, 1].
    """
    if not 0 <= zeros <= 1:
        raise ValueError(f"sparsity: expected a share from 0 to 1, got {zeros!r}")
    n = all_of(magnitudes) if counts is None else counts
    # The slack keeps .9 * 10 from rounding up to ten.
    k = n if zeros == 1 else torch.minimum(n - 1, (zeros * n.double() - 1e-9).ceil().long())
    found = rank_from_top(magnitudes, (n + 1 - k).clamp_max(magnitudes.shape[1]))
    return torch.where(k > 0, found, 0.0)


def all_of(magnitudes: Tensor) -> Tensor:
    """How many each row has, `[B]`."""
    return torch.full(magnitudes.shape[:1], magnitudes.shape[1], device=magnitudes.device)


def solve_for_sparsity(
    solver: Descent, problem: MoreauProblem, zeros: float, allowed: Tensor
) -> Solution:
    """Solves for each sample with the eta whose map has the share `zeros` of zero entries (groups).

    eta is set to the quantile of |grad f(x + u)|, first at u = 0 and then at each solution, while
    the evaluations that are `allowed` `[B]` last. The deviation that remains shows in the map.
    """
    penalty = problem.penalty
    if not isinstance(penalty, SparsePenalty):
        raise TypeError(f"sparsity: {type(penalty).__name__} sets nothing to zero")
    each = problem.evaluations()
    # At u = 0 the gradient of h is that of f.
    slope = problem.value_and_grad(problem.start())[1]
    counts = problem.counts
    eta = eta_for(penalty.magnitudes(slope), zeros, counts)
    solution = solver.solve(replace(problem, eta=eta), allowed=allowed - each)
    spent = solution.evaluations + each
    for _ in range(ROUNDS):
        share = 1 - (penalty.magnitudes(solution.u) != 0).sum(1).double() / counts
        off = (share - zeros).abs() > CLOSE + 0.5 / counts
        finite = torch.isfinite(solution.u).all(1) & torch.isfinite(solution.eta)
        rows = (off & finite & (spent + 3 * each <= allowed)).nonzero()[:, 0]
        if len(rows) == 0:
            break
        part, u = problem.select(rows), solution.u[rows]
        slope = part.value_and_grad(u)[1] - u / part.rho[:, None]
        part = replace(part, eta=eta_for(penalty.magnitudes(slope), zeros, counts[rows]))
        refined = solver.solve(part, start=u, allowed=(allowed - spent)[rows] - each)
        spent[rows] += refined.evaluations + each
        solution = _updated(solution, rows, refined)
    return replace(solution, evaluations=spent)


def _updated(solution: Solution, rows: Tensor, part: Solution) -> Solution:
    status = list(solution.status)
    for row, item in zip(rows.tolist(), part.status, strict=True):
        # The curvature that was seen is the score's, whatever eta.
        seen = status[row] is Status.NOT_UNIQUE and item is Status.CONVERGED
        status[row] = Status.NOT_UNIQUE if seen else item

    def put(name: str) -> Tensor:
        whole: Tensor = getattr(solution, name).clone()
        whole[rows] = getattr(part, name)
        return whole

    return Solution(
        status=tuple(status),
        u=put("u"),
        residual=put("residual"),
        error=put("error"),
        eta=put("eta"),
        steps=solution.steps.index_add(0, rows, part.steps),
        evaluations=put("evaluations"),
    )
