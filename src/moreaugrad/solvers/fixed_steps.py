"""Solvers that take a fixed number of steps with fresh noise, as they were published."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moreaugrad.solvers.problem import MaskProblem, MoreauProblem, Solver
from moreaugrad.solvers.solution import Solution, Status


@dataclass(frozen=True, kw_only=True)
class MomentumDescent(Solver[MaskProblem]):
    """v <- momentum v + d / ||d||, u <- project(u - rate v), d a subgradient over fresh draws.

    An entry that the smooth part never depended on ends at zero; a sample without any other has
    the status `NO_GRADIENT`. Source: Lim et al. (2021) and the released code.
    """

    steps: int
    rate: float
    momentum: float
    draws: int

    def solve(self, problem: MaskProblem, start: Tensor | None = None) -> Solution:
        u = problem.start if start is None else start
        velocity, moved = torch.zeros_like(u), torch.zeros_like(u, dtype=torch.bool)
        for step in range(self.steps):
            slope = problem.slope(u, range(step * self.draws, (step + 1) * self.draws))
            moved |= slope != 0
            slope = slope + problem.eta[:, None] * problem.penalty.maximiser(u)
            velocity = self.momentum * velocity + _unit(slope)
            u = problem.projected(u - self.rate * velocity)
        # What the loss does not see has no evidence: not the chance of the start.
        u = torch.where(moved, u, 0.0)
        found = Solution.direct(u, problem.evaluations * self.steps, Status.FIXED_BUDGET)
        return replace(
            found.marked(Status.NO_GRADIENT, ~moved.any(1)),
            steps=torch.full_like(found.steps, self.steps),
        )


@dataclass(frozen=True, kw_only=True)
class AveragedSteps(Solver[MoreauProblem]):
    """u <- prox((1 - step / rho) u - step g), g a mean gradient over fresh draws; the mean of the
    last `average` of them. Source: MoreauGrad Algorithm 1 and the released code.
    """

    steps: int
    step: float
    average: int
    draws: int

    def solve(self, problem: MoreauProblem, start: Tensor | None = None) -> Solution:
        u = problem.start if start is None else start
        total = torch.zeros_like(u)
        shrink = (1 - self.step / problem.rho)[:, None]
        for step in range(self.steps):
            draws = range(step * self.draws, (step + 1) * self.draws)
            _, gradient = problem.score.value_and_grad(u, draws)
            u = problem.prox(shrink * u - self.step * gradient, torch.full_like(u[:, 0], self.step))
            if step >= self.steps - self.average:
                total = total + u
        mean = total / min(self.average, self.steps)
        each = 1 if problem.score.sigma is None else self.draws
        return Solution.direct(mean, self.steps * each, status=Status.FIXED_BUDGET)


def _unit(slope: Tensor) -> Tensor:
    """Each row at Euclidean length one; a row of zeros stays."""
    length = slope.double().norm(dim=1, keepdim=True)
    return torch.where(length == 0, 0.0, slope / length).to(slope.dtype)
