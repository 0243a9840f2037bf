"""The stochastic fixed point: Gaussian-regularised maps, to a standard error for each sample.

A mean over Gaussian draws of a network with kinks is itself piecewise linear for any fixed set of
draws, so no descent method solves it well. Fresh draws at every step make it a stochastic
approximation of the smooth population problem instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moreaugrad.penalties import SparsePenalty, eta_for
from moreaugrad.solvers.blocks import Blocks
from moreaugrad.solvers.problem import MoreauProblem
from moreaugrad.solvers.solution import Collector, Solution, Status

BURN_IN = 4
"""Steps that are left out of the mean."""
CHAIN_KEY = 2**62
"""Added to the sample keys of the second chain, so that its draws are its own."""
APART = 3.0
"""Distance of two chains, in units of its own standard error, that means two solutions."""


def damping(step: int) -> float:
    """alpha_k: large first, decaying, because a constant one leaves a bias.

    The gradient is taken at the prox of a noisy y; that bias shrinks with alpha.
    """
    return float(0.7 * (1 + step / 10) ** -0.6)


@dataclass(frozen=True, kw_only=True)
class StochasticFixedPoint:
    """y <- y + alpha_k (-rho g(P(y)) - y), g a mean gradient over `draws` fresh antithetic draws.

    P is the prox of rho eta R. The mean of g after a short burn-in goes through P once, at the end,
    so that the map is exactly sparse. A sample stops when the jackknife standard error of its map
    over blocks of that mean is at most `tolerance` of the map's norm, or after `max_evaluations`.
    `chains=2` runs a second chain from another start with other draws and tells when they differ
    by more than their errors explain. `sparsity` chooses eta for each sample, such that the map
    has that share of zeros.
    """

    tolerance: float = 0.1
    max_evaluations: int = 4096
    draws: int = 16
    chains: int = 1
    sparsity: float | None = None

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise ValueError(f"tolerance: expected a number > 0, got {self.tolerance!r}")
        if self.draws < 2 or self.draws % 2:
            raise ValueError(f"draws: expected an even number >= 2, got {self.draws!r}")
        if self.max_evaluations < 16 * self.draws:
            raise ValueError(
                f"max_evaluations: expected at least 16 steps of {self.draws} draws "
                f"({16 * self.draws}), got {self.max_evaluations!r}"
            )
        if self.chains not in (1, 2):
            raise ValueError(f"chains: expected 1 or 2, got {self.chains!r}")

    def solve(self, problem: MoreauProblem) -> Solution:
        """Solves for each sample. The problem's score must be smoothed by noise."""
        first, gradient = self._chain(problem, problem.start())
        if self.chains == 1:
            return first
        start = -2 * problem.rho[:, None] * gradient
        second, other = self._chain(_second(problem), start)
        return self._joined(problem, (first, gradient), (second, other))

    def _chain(self, problem: MoreauProblem, y: Tensor) -> tuple[Solution, Tensor]:
        """One chain's solution and its mean gradient `[B, n]`."""
        out, means = Collector(y), torch.zeros_like(y)
        blocks, last = Blocks(), self.max_evaluations // self.draws
        for step in range(last):
            draws = range(step * self.draws, (step + 1) * self.draws)
            u = problem.prox(y, problem.rho)
            _, gradient = problem.score.value_and_grad(u, draws)
            y = y + damping(step) * (-problem.rho[:, None] * gradient - y)
            if step >= BURN_IN:
                blocks.add(gradient)
            problem = self._retuned(problem, y)
            finite = torch.isfinite(gradient).all(1)
            judged = blocks.complete or step == last - 1
            if not judged and bool(finite.all()):
                continue
            if judged:
                mean = blocks.mean()
                problem = self._retuned(problem, -problem.rho[:, None] * mean)
                u, spread = blocks.jackknife(problem.displacement)
                length = u.norm(dim=1)
                error = torch.where(spread == 0, spread, spread / length)
            else:
                mean, error = torch.zeros_like(y), torch.full_like(y[:, 0], torch.inf)
            status = [
                Status.NON_FINITE
                if not good
                else Status.CONVERGED
                if small
                else Status.STEP_LIMIT
                if step == last - 1
                else None
                for good, small in zip(
                    finite.tolist(), (error <= self.tolerance).tolist(), strict=True
                )
            ]
            done = torch.tensor([item is not None for item in status], device=y.device)
            if not bool(done.any()):
                continue
            means[out.rows[done]] = mean[done]
            count = torch.full_like(out.rows, step + 1)
            keep = out.finish(
                done,
                status,
                torch.where(finite[:, None], u, torch.nan),
                residual=torch.full_like(error, torch.nan),
                error=error,
                eta=problem.eta,
                steps=count,
                evaluations=count * self.draws,
            )
            if len(keep) == 0:
                break
            problem, y = problem.select(keep), y[keep]
            blocks.select(keep)
        return out.solution(), means

    def _retuned(self, problem: MoreauProblem, y: Tensor) -> MoreauProblem:
        """With the eta that gives the wanted share of zeros at y, the variable before the prox."""
        if self.sparsity is None:
            return problem
        if not isinstance(problem.penalty, SparsePenalty):
            raise TypeError(
                f"sparsity: expected a penalty that sets entries to zero, got "
                f"{type(problem.penalty).__name__}"
            )
        found = eta_for(problem.penalty.magnitudes(y), self.sparsity)
        return replace(problem, eta=found / problem.rho)

    def _joined(
        self,
        problem: MoreauProblem,
        first: tuple[Solution, Tensor],
        second: tuple[Solution, Tensor],
    ) -> Solution:
        (one, gradient), (two, other) = first, second
        mean = (gradient + other) / 2
        problem = self._retuned(problem, -problem.rho[:, None] * mean)
        u = problem.displacement(mean)
        length = u.norm(dim=1)
        spread = torch.stack([s.error * s.u.norm(dim=1) for s in (one, two)])
        expected = spread.square().sum(0).sqrt()
        apart = (one.u - two.u).norm(dim=1) > APART * expected
        error = torch.where(expected == 0, expected, expected / (2 * length))
        status = tuple(
            Status.BISTABLE if split and a.ok and b.ok else (a if not a.ok else b)
            for split, a, b in zip(apart.tolist(), one.status, two.status, strict=True)
        )
        return Solution(
            u=u,
            status=status,
            residual=one.residual,
            error=error,
            eta=problem.eta,
            steps=one.steps + two.steps,
            evaluations=one.evaluations + two.evaluations,
        )


def _second(problem: MoreauProblem) -> MoreauProblem:
    keys = tuple(key + CHAIN_KEY for key in problem.score.keys)
    return replace(problem, score=replace(problem.score, keys=keys))
