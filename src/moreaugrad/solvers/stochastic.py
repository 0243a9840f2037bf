"""The stochastic fixed point: Gaussian-regularised maps, to a standard error for each sample.

For any fixed set of noise samples, the mean score of a piecewise linear network is piecewise linear
too, so no descent method solves it well. Fresh noise at every step makes the iteration a stochastic
approximation of the smooth population problem instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.centre import HALVES, Centre
from moreaugrad.score.inputs import lengths
from moreaugrad.score.noise import KEYS
from moreaugrad.settings import expect
from moreaugrad.solvers.active import Active, Found
from moreaugrad.solvers.block_means import RECORDED
from moreaugrad.solvers.blocks import (
    FEW,
    FEWEST,
    MOST,
    MOST_OF_FEW,
    Blocks,
    Mapped,
    Tails,
    centred,
    relative,
    sequence_error,
)
from moreaugrad.solvers.descent import FARTHEST
from moreaugrad.solvers.shrinkage import Bands, Shrinkage
from moreaugrad.solvers.solution import Collector, MoreauProblem, Solution, Status
from moreaugrad.solvers.sparsity import Threshold
from moreaugrad.solvers.stages import Ended, Stages, last, stage
from moreaugrad.solvers.step_guard import StepGuard
from moreaugrad.solvers.z_scores import joined_z_scores, z_scores

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
LATE = 1024
"""Evaluations after which recording for the centre costs more than the centre saves."""
RETUNED_ALWAYS, RETUNED_EVERY = 16, 8
"""An automatic eta is updated at each of the first 16 steps, then at every 8th."""
EARLY = 2
"""Steps after which there is a first stage, without an error."""


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
            return last(self.stages(problem, y))[0]
        solved = [last(self.stages(problem.select(rows), y[rows]))[0] for rows in parts]
        return Solution.joined(solved).select(torch.cat(parts).argsort())

    def stages(self, problem: MoreauProblem, y: Tensor) -> Stages:
        """Solve, stage by stage, for samples that all have few entries, or all many."""
        first, mean = yield from self._chain(problem, y)
        if self.chains == 1:
            return first, mean
        second, other = last(self._chain(_second(problem), -mean))
        return self._joined(problem, (first, mean), (second, other)), (mean + other) / 2

    def _chain(self, problem: MoreauProblem, y: Tensor) -> Stages:
        """The stages of one chain."""
        out, means, rows = Collector(y), torch.zeros_like(y), torch.arange(len(y), device="cpu")
        few = int(problem.score.counts[0]) <= FEW
        blocks = Blocks(y, MOST_OF_FEW if few else MOST)
        guard = StepGuard(y)
        centre = Centre(problem.score) if self.centre else None
        state = self._begin(problem, y)
        spent, used = 0, dict[str, object]()
        for step in count():
            if centre is not None and centre.lacking:
                used, centre = {"centre_lacking": centre.lacking}, None
            self._step(state, step, blocks, guard, centre)
            extra = HALVES if centre is not None else 0
            spent += self.draws
            own = extra if blocks.due else 0
            ends = spent + own + self.draws + extra > self.max_evaluations
            if not blocks.due and not ends:
                if step + 1 == EARLY:
                    yield partial(self._early, state, blocks, spent)
                continue
            tails, shrunk = blocks.tails(), None
            if centre is not None:
                rho = state.problem.rho[:, None]
                centres = -rho * centre.gradients(state.problem.score, state.u)
                shrunk = _shrinkage(state.problem.score, tails, centres)
                spent += extra
            found, mean = self._mean(state, tails, shrunk)
            state.going(torch.isfinite(found.values).all(1))  # means may overflow, terms not
            # Equal terms have no error, but their mean has rounding.
            found = found._replace(error=torch.where(guard.unvaried, 0.0, found.error))
            settled = guard.settled(step + 1) | ends
            done = (found.error <= self.tolerance) & settled
            status = state.verdicts(done, guard.concave, guard.unvaried)
            ended = [None if one is Status.BUDGET_USED and not ends else one for one in status]
            record = partial(self._record, state, found, tails, shrunk, step + 1, spent)
            if not any(ended):
                yield partial(stage, status, record, mean)
                continue
            keep = out.close(ended, **record())
            means[rows] = mean  # of those that go on it is replaced
            if len(keep) == 0:
                break
            if len(keep) < len(rows):
                rows = rows[keep]
                blocks.select(keep)
                guard.select(keep)
                if centre is not None:
                    centre.select(keep)
                state = state.select(keep)
        return replace(out.solution(), settings=used), means

    def _record(
        self, state: Active, found: Found, tails: Tails, shrunk: Shrinkage | None, steps: int,
        evaluations: int,
    ) -> dict[str, Any]:  # fmt: skip
        """What the active samples have, but for the status."""
        return {
            **state.unbroken(found)._asdict(),
            "z_scores": self._z_scores(state, tails, shrunk),
            "steps": steps,
            "evaluations": evaluations,
        }

    def _early(self, state: Active, blocks: Blocks, spent: int) -> Ended:
        """A stage of too few steps for an error, or for the centre."""
        found, mean = self._mean(state, blocks.tails(), None)
        record = {**state.unbroken(found)._asdict(), "steps": EARLY, "evaluations": spent}
        record["error"] = torch.full_like(found.error, torch.nan)
        return stage([Status.BUDGET_USED] * len(mean), lambda: record, mean)

    def _begin(self, problem: MoreauProblem, y: Tensor) -> Active:
        threshold = None if self.sparsity is None else Threshold.of(self.sparsity, problem.counts)
        return Active(
            problem=problem, y=y, u=y, reach=torch.zeros_like(problem.rho), threshold=threshold,
            broken=torch.zeros_like(problem.rho, dtype=torch.long),
        )  # fmt: skip

    def _step(
        self, state: Active, step: int, blocks: Blocks, guard: StepGuard, centre: Centre | None
    ) -> None:
        """One step of all samples. What breaks a sample is noted; it waits for the next verdict."""
        problem, y = state.problem, state.y
        u = state.u = problem.prox(y, problem.rho)
        score = problem.score
        if centre is not None and _recorded(step, self.draws):
            score = centre.recording(score, first=step)
        draws = range(step * self.draws, (step + 1) * self.draws)
        gradient = score.grad(u, draws)
        finite = torch.isfinite(gradient).all(1)
        moved = -problem.rho[:, None] * gradient
        if step == 0:
            state.reach = FARTHEST * (moved.norm(dim=1) + y.norm(dim=1) + problem.extent)
        going = state.going(finite)[:, None]
        moved = torch.where(going, moved, 0.0)
        alpha, cut = guard.limit(damping(step * self.draws), u, moved)
        blocks.restart(cut)
        y = state.y = torch.where(going, y.lerp(moved, alpha[:, None]), y)
        blocks.add(moved, y, moved if step % HALVES else -moved)
        if step < RETUNED_ALWAYS or step % RETUNED_EVERY == 0:
            state.problem = state.retuned(y)

    def _mean(self, state: Active, tails: Tails, shrunk: Shrinkage | None) -> tuple[Found, Tensor]:
        """What the tails of all samples give, and the variable before P."""
        total, y = self._error(tails, shrunk, state.mapped)
        u = state.mapped(y)
        return Found(u, relative(total, u), state.retuned(y).eta), y

    def _error(
        self, tails: Tails, shrunk: Shrinkage | None, mapped: Mapped
    ) -> tuple[Tensor, Tensor]:
        """Length of the error `[B]` of mapped(y), and y `[B, n]`, the mean of -rho g, shrunk."""

        def through(y: Tensor) -> Tensor:
            return mapped(y if shrunk is None else shrunk(y))

        moved, y = tails.mean[:, 0], tails.mean[:, 1]
        ahead = through(moved)
        total = FEEDBACK * sequence_error(tails, through)
        total = torch.hypot(total, DRIFT * lengths(ahead - through(y)))
        if shrunk is None:
            return total, moved
        y = shrunk(moved)
        return torch.hypot(total, lengths(mapped(y + shrunk.doubt) - ahead)), y

    def _z_scores(self, state: Active, tails: Tails, shrunk: Shrinkage | None) -> Tensor:
        """z-scores of the maps' entries, `[B, n]`."""
        total, y = self._error(tails, shrunk, lambda y: state.measured(y).values)
        doubt = None if shrunk is None else shrunk.doubt
        mask = state.problem.score.mask
        return z_scores(state.measured, y, tails.left_out(), total, doubt, mask)

    def _joined(
        self,
        problem: MoreauProblem,
        first: tuple[Solution, Tensor],
        second: tuple[Solution, Tensor],
    ) -> Solution:
        (one, y), (two, other) = first, second
        mean = (y + other) / 2
        problem = self._begin(problem, mean).retuned(mean)
        u = problem.prox(mean, problem.rho)
        length = lengths(u)
        spread = torch.stack([s.error * lengths(s.values) for s in (one, two)])
        expected = lengths(spread, 0)
        distance = lengths(one.values - two.values)
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
            z_scores=joined_z_scores(u, [(s.values, s.z_scores) for s in (one, two)]),
            error=error,
            eta=eta,
            steps=one.steps + two.steps,
            evaluations=one.evaluations + two.evaluations,
            settings=one.settings,
        )


def _recorded(step: int, draws: int) -> bool:
    """Whether the noise samples of a step count for the centre: the first ones, then a quarter, and
    none once the mean is so good that a centre adds little."""
    spent = step * draws
    return spent < RECORDED or (spent < LATE and (step // HALVES) % 4 == 0)


def _shrinkage(score: BoundScore, tails: Tails, centres: Tensor) -> Shrinkage:
    """The shrinkage, whose halves are the even and the odd steps; none of too few blocks."""
    moved, signed = tails.mean[:, 0], tails.mean[:, 2]
    steps, odd = tails.stop - tails.start, tails.stop // 2 - tails.start // 2
    halves = [
        steps[:, None] * (moved + sign * signed) / (2 * number.clamp_min(1)[:, None])
        for sign, number in ((-1, steps - odd), (1, odd))
    ]
    bands = Bands.of(score, centres)
    size = tails.blocks
    apart, _ = centred(tails.terms, tails.valid)
    variance = bands.sums(bands.coefficients(apart).square().sum(0))
    variance = variance / (size * (size - 1)).clamp_min(1)[:, None]
    enough = size >= FEWEST  # and then both halves have terms
    return Shrinkage.of(bands, torch.stack(halves), variance, centres, enough)


def _second(problem: MoreauProblem) -> MoreauProblem:
    """The problem of the second chain, whose noise differs from the first one's."""
    keys = tuple(key + KEYS for key in problem.score.keys)
    return replace(problem, score=replace(problem.score, keys=keys))
