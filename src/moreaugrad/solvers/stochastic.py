"""The stochastic fixed point: Gaussian-regularised maps, to a standard error for each sample.

For any fixed set of noise samples, the mean score of a piecewise linear network is piecewise linear
too, so no descent method solves it well. Fresh noise at every step makes the iteration a stochastic
approximation of the smooth population problem instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.centre import HALVES, Centre
from moreaugrad.score.noise import KEYS
from moreaugrad.settings import expect
from moreaugrad.solvers.block_means import RECORDED
from moreaugrad.solvers.blocks import FEW, FEWEST, MOST, MOST_OF_FEW, Blocks, Tail, sequence_error
from moreaugrad.solvers.descent import FARTHEST
from moreaugrad.solvers.shrinkage import Bands, Shrinkage
from moreaugrad.solvers.solution import Collector, MoreauProblem, Solution, Status
from moreaugrad.solvers.sparsity import eta_for
from moreaugrad.solvers.step_guard import StepGuard

APART = 1.75
"""Distance of two chains, over the error expected of it, from which they count as different."""
FEEDBACK = 1.15
"""Reported error over jackknife error, calibrated: blocks do not show the iteration's feedback."""
DRIFT = 2.0
"""Weight of ||P(mean of moved) - P(mean of y)||, which vanishes when y has stopped drifting.

Along a direction of curvature c the map is off by |rho c / (1 + rho c)| of it, which is below 2
where rho c > -2/3.
"""
BROKEN = (Status.NON_FINITE, Status.UNBOUNDED)
"""A chain with this status has no mean to join with the other's."""
RETUNED_ALWAYS, RETUNED_EVERY = 16, 8
"""An automatic eta is updated at each of the first 16 steps, then at every 8th."""


def damping(evaluations: int) -> float:
    """alpha after that many evaluations of a sample: 1 at first, then .7 and decaying.

    The gradient is taken at the prox of a noisy y, which biases it; the bias shrinks with alpha.
    """
    return float(0.7 * (1 + evaluations / 160) ** -0.6) if evaluations else 1.0


@dataclass(frozen=True, kw_only=True)
class StochasticFixedPoint:
    """y <- y + alpha_k (-rho g(P(y)) - y), g a mean gradient over fresh antithetic noise samples.

    P is the prox of rho eta R. P is applied to the mean of -rho g once, at the end, so that the map
    is exactly sparse. Where the score's curvature makes alpha_k unstable, alpha_k is cut for that
    sample, whose mean then starts again.
    """

    tolerance: float = 0.1
    """Standard error of a map, relative to its norm, at which a sample is done."""
    max_evaluations: int = 4096
    """Evaluations at which a sample stops short of that, in each chain."""
    draws: int = 8
    """Noise samples of each step."""
    chains: int = 1
    """2 runs a second chain from another start with other noise, and reports where the two differ
    by more than their errors explain."""
    centre: bool = True
    """Shrink the mean of -rho g towards the one through mean activation derivatives."""
    sparsity: float | None = None
    """Fraction of zeros for which eta is chosen for each sample; None keeps the problem's eta."""

    def __post_init__(self) -> None:
        expect(self.tolerance > 0, "tolerance", "a number > 0", self.tolerance)
        even = self.draws >= 2 and self.draws % 2 == 0
        expect(even, "draws", "an even number >= 2", self.draws)
        least, most = FEWEST * self.draws + HALVES, self.max_evaluations
        steps = f"{FEWEST} steps of {self.draws} noise samples"
        expected = f"at least {steps} and {HALVES} for the centre ({least})"
        expect(most >= least, "max_evaluations", expected, most)
        expect(self.chains in (1, 2), "chains", "1 or 2", self.chains)

    def solve(self, problem: MoreauProblem, start: Tensor | None = None) -> Solution:
        """Solve a problem whose score is smoothed by noise. start: of y, the variable before P."""
        y = problem.start if start is None else start
        # The number of blocks depends on the sample's own entries, not on those of the batch.
        few = problem.score.counts <= FEW
        parts = [part.nonzero()[:, 0] for part in (few, ~few) if bool(part.any())]
        if len(parts) == 1:
            return self._alike(problem, y)
        solved = [self._alike(problem.select(rows), y[rows]) for rows in parts]
        return Solution.joined(solved).select(torch.cat(parts).argsort())

    def _alike(self, problem: MoreauProblem, y: Tensor) -> Solution:
        """Solve for samples that all have few entries, or all many."""
        first, mean = self._chain(problem, y)
        if self.chains == 1:
            return first
        second, other = self._chain(_second(problem), -mean)
        return self._joined(problem, (first, mean), (second, other))

    def _chain(self, problem: MoreauProblem, y: Tensor) -> tuple[Solution, Tensor]:
        """One chain's solution and its mean y `[B, n]`, whose prox is the solution."""
        out, means = Collector(y), torch.zeros_like(y)
        few = int(problem.score.counts[0]) <= FEW
        blocks = Blocks(len(y), MOST_OF_FEW if few else MOST)
        guard = StepGuard(y)
        centre = Centre(problem.score) if self.centre else None
        spent, used = 0, dict[str, object]()
        for step in count():
            u = problem.prox(y, problem.rho)
            score = problem.score
            if centre is not None and centre.lacking:
                used, centre = {"centre_lacking": centre.lacking}, None
            if centre is not None and _recorded(step, self.draws):
                score = centre.recording(score, first=step)
            draws = range(step * self.draws, (step + 1) * self.draws)
            _, gradient = score.value_and_grad(u, draws)
            moved = -problem.rho[:, None] * gradient
            if step == 0:
                reach = FARTHEST * (moved.norm(dim=1) + y.norm(dim=1) + problem.extent)
            alpha, cut = guard.limit(damping(step * self.draws), u, moved)
            for row in cut:
                blocks.restart(row)
            y = y + alpha[:, None] * (moved - y)
            blocks.add(torch.stack([moved, y, moved if step % HALVES else -moved], dim=1))
            if step < RETUNED_ALWAYS or step % RETUNED_EVERY == 0:
                problem = self._retuned(problem, y)
            extra = HALVES if centre is not None else 0
            spent += self.draws
            own = extra if blocks.due else 0
            last = spent + own + self.draws + extra > self.max_evaluations
            judged = blocks.due or last
            centres = None
            if centre is not None and judged:
                centres = -problem.rho[:, None] * centre.gradients(problem.score, u)
                spent += extra
            escaped = (u.norm(dim=1) > reach).tolist()
            ends = {"steps": step + 1, "evaluations": spent}
            for row, finite in enumerate(torch.isfinite(gradient).all(1).tolist()):
                if escaped[row]:
                    eta = problem.eta[row]
                    out.close(
                        row, Status.UNBOUNDED, values=u[row], error=torch.inf, eta=eta, **ends
                    )
                elif not finite:
                    out.close(row, Status.NON_FINITE, **ends)
                elif judged:
                    one = problem.select(torch.tensor([row], device=y.device))
                    tail = blocks.tail(row)
                    found = self._mean(one, tail, None if centres is None else centres[:, [row]])
                    # Equal terms have no error, but their mean has rounding.
                    exact = guard.unvaried(row)
                    error = torch.zeros_like(found.error) if exact else found.error
                    settled = last or guard.settled(row, step + 1)
                    status = self._verdict(guard, row, error if settled else torch.inf + error)
                    if status is not Status.BUDGET_USED or last:
                        out.close(
                            row, status, values=found.values, error=error, eta=found.eta, **ends
                        )
                        means[out.rows[row]] = found.y
            keep = out.remaining()
            if keep is not None:
                if len(keep) == 0:
                    break
                problem, y, reach = problem.select(keep), y[keep], reach[keep]
                blocks.select(keep)
                guard.select(keep)
                if centre is not None:
                    centre.select(keep)
        return replace(out.solution(), settings=used), means

    def _mean(self, one: MoreauProblem, tail: Tail, centres: Tensor | None) -> _Mean:
        """What the tail of one sample's sequence gives; shrunk towards `centres` `[2, 1, n]`."""
        enough = len(tail.terms) >= FEWEST  # and then both halves have terms
        shrunk = None if centres is None or not enough else _shrinkage(one.score, tail, centres)

        def mapped(y: Tensor) -> Tensor:
            return self._mapped(one, y if shrunk is None else shrunk(y))

        moved, y = tail.mean[:1], tail.mean[1:2]
        ahead = mapped(moved)
        total = FEEDBACK * sequence_error(tail.terms, mapped)
        drift = DRIFT * (ahead - mapped(y)).norm()
        total = torch.hypot(total, drift)
        y = moved if shrunk is None else shrunk(moved)
        if shrunk is not None:
            total = torch.hypot(total, (self._mapped(one, y + shrunk.doubt) - ahead).norm())
        error = torch.where(total > 0, total / ahead.norm(), 0.0)
        return _Mean(ahead[0], error, self._retuned(one, y).eta[0], y[0])

    def _verdict(self, guard: StepGuard, row: int, error: Tensor) -> Status:
        if guard.unvaried(row):
            return Status.UNVARIED
        if not bool(error <= self.tolerance):
            return Status.BUDGET_USED
        return Status.NOT_UNIQUE if guard.concave(row) else Status.CONVERGED

    def _mapped(self, problem: MoreauProblem, y: Tensor) -> Tensor:
        """P(y) with an automatic eta chosen at y, so that eta's error is part of the map's."""
        problem = self._retuned(problem, y)
        return problem.prox(y, problem.rho)

    def _retuned(self, problem: MoreauProblem, y: Tensor) -> MoreauProblem:
        """The problem with the eta that gives the wanted fraction of zeros at y."""
        if self.sparsity is None:
            return problem
        found = eta_for(problem.penalty.magnitudes(y), self.sparsity, problem.counts)
        return replace(problem, eta=found / problem.rho)

    def _joined(
        self,
        problem: MoreauProblem,
        first: tuple[Solution, Tensor],
        second: tuple[Solution, Tensor],
    ) -> Solution:
        (one, y), (two, other) = first, second
        mean = (y + other) / 2
        problem = self._retuned(problem, mean)
        u = problem.prox(mean, problem.rho)
        length = u.norm(dim=1)
        spread = torch.stack([s.error * s.values.norm(dim=1) for s in (one, two)])
        expected = spread.square().sum(0).sqrt()
        distance = (one.values - two.values).norm(dim=1)
        apart = distance > APART * expected
        expected = torch.where(apart, torch.maximum(distance, expected), expected)
        error = torch.where(expected == 0, expected, expected / (2 * length))
        status, eta = [], problem.eta.clone()
        for row, ends in enumerate(zip(one.status, two.status, strict=True)):
            broken = next((s for s in (one, two) if s.status[row] in BROKEN), None)
            if broken is not None:
                u[row], error[row] = broken.values[row], broken.error[row]
                eta[row] = broken.eta[row]
                status.append(broken.status[row])
            elif Status.BUDGET_USED in ends:
                status.append(Status.BUDGET_USED)
            elif bool(apart[row]):
                status.append(Status.BISTABLE)
            elif Status.NOT_UNIQUE in ends:
                status.append(Status.NOT_UNIQUE)
            else:
                status.append(ends[0] if ends[0] is ends[1] else Status.CONVERGED)
        return Solution(
            values=u,
            status=tuple(status),
            residual=one.residual,
            error=error,
            eta=eta,
            steps=one.steps + two.steps,
            evaluations=one.evaluations + two.evaluations,
            settings=one.settings,
        )


class _Mean(NamedTuple):
    """The solution of one sample, from the mean of a sequence."""

    values: Tensor
    error: Tensor
    eta: Tensor
    y: Tensor
    """The variable before the prox, `[n]`."""


def _recorded(step: int, draws: int) -> bool:
    """Whether the noise samples of a step count for the centre: the first ones, then a quarter."""
    return step * draws < RECORDED or (step // HALVES) % 4 == 0


def _shrinkage(score: BoundScore, tail: Tail, centres: Tensor) -> Shrinkage:
    """The shrinkage for one sample, whose even and odd steps are the halves."""
    moved, _, signed = tail.mean
    steps = tail.steps
    odd = sum(step % HALVES for step in steps)
    counts = (len(steps) - odd, odd)
    halves = [
        len(steps) * (moved + sign * signed) / (2 * number)
        for sign, number in zip((-1, 1), counts, strict=True)
    ]
    bands = Bands.of(score, centres)
    apart = bands.coefficients(tail.terms - tail.terms.mean(0)).square().sum(0, keepdim=True)
    size = len(tail.terms)
    variance = bands.sums(apart) / (size * max(1, size - 1))
    return Shrinkage.of(bands, torch.stack(halves)[:, None], variance, centres)


def _second(problem: MoreauProblem) -> MoreauProblem:
    """The problem of the second chain, whose noise differs from the first one's."""
    keys = tuple(key + KEYS for key in problem.score.keys)
    return replace(problem, score=replace(problem.score, keys=keys))
