"""Proximal gradient methods for deterministic problems: plain, accelerated, spectral.

All share one loop and differ in how they propose the next step length and whether they extrapolate.
Every iteration evaluates each active sample once: a sample whose trial point is rejected halves its
own step and stays where it is, while the others proceed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from moreaugrad.score.inputs import lengths
from moreaugrad.settings import expect
from moreaugrad.solvers.solution import Collector, MoreauProblem, Solution, Status

SHORTEST = 1e-6
"""Step length, over the problem's unit step, below which a sample has stalled."""
PATIENCE = 40
"""Iterations without progress after which a sample has stalled."""
PROGRESS = 0.97
"""Ratio of errors that counts as progress where rounding hides that of the objective."""
RESOLVED = 1e3
"""Roundings of u that a move must exceed for the curvature along it to be measured."""
FARTHEST = 1e4
"""Displacement that counts as unbounded, over the length of the first fixed-point step, which may
start near a stationary point, and the input's."""

MET = (Status.CONVERGED, Status.NOT_UNIQUE)
"""Of samples within the tolerance."""


@dataclass(eq=False)
class _State:
    """The active samples: accepted points, values and gradients, and the history of the steps."""

    problem: MoreauProblem
    u: Tensor
    value: Tensor
    grad: Tensor
    previous: Tensor
    step: Tensor
    momentum: Tensor
    history: Tensor
    curvature: Tensor
    lowest: Tensor
    reach: Tensor
    eps: Tensor
    """Rounding of the score, over its size."""
    escaped: Tensor
    best: Tensor
    best_u: Tensor
    best_error: Tensor
    waited: Tensor
    steps: Tensor
    evaluations: Tensor
    allowed: Tensor

    def select(self, rows: Tensor) -> None:
        for name, item in vars(self).items():
            setattr(self, name, item.select(rows) if name == "problem" else item[rows])

    def objective(self, value: Tensor, u: Tensor) -> Tensor:
        return value + self.problem.eta * self.problem.penalty.value(u)


@dataclass(frozen=True, kw_only=True)
class Descent(ABC):
    """Stops a sample when the estimated relative error of its map is at most `tolerance`.

    With r the fixed-point residual at the problem's unit step rho, and M and lambda the largest and
    the most negative curvature seen along the last steps, the error is at most
    (2 + rho M) r / (1 - rho lambda). This is an estimate, because curvatures are only seen along
    the steps; a stalled sample has none. If rho lambda reached 1 on the way, the problem may have
    other solutions, and the status is NOT_UNIQUE.
    """

    tolerance: float = 1e-3
    """Relative error at which a sample is done."""
    max_steps: int = 300
    """Iterations at which a sample stops short of that."""
    max_evaluations: int | None = None
    """Evaluations at which a sample stops short of that; None: no limit."""

    window: ClassVar[int] = 1
    """Number of last objectives that are remembered."""
    extrapolates: ClassVar[bool] = False
    """Whether steps start at an extrapolated point, which costs another evaluation."""

    def __post_init__(self) -> None:
        expect(self.tolerance > 0, "tolerance", "a number > 0", self.tolerance)
        expect(self.max_steps >= 1, "max_steps", "at least 1", self.max_steps)

    @abstractmethod
    def propose(self, step: Tensor, unit: Tensor, curvature: Tensor) -> Tensor:
        """The next step length after an accepted step, given h's curvature along it, `[B]` each."""

    def solve(
        self,
        problem: MoreauProblem,
        start: Tensor | None = None,
        allowed: Tensor | None = None,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Solution:
        """Minimise for each sample, from `start` (default: the problem's).

        allowed: most evaluations of each sample, `[B]` (default: `max_evaluations`). known: what
        `problem.value_and_grad` has found at the start, which is then not evaluated.
        """
        u = problem.start if start is None else start
        state = self._begin(problem, u, self.limit(problem) if allowed is None else allowed, known)
        out = Collector(u)
        for iteration in range(self.max_steps + 1):
            error, residual = self._accuracy(state)
            # Progress is a lower objective or, below its rounding, a smaller error.
            state.waited = torch.where(error < PROGRESS * state.best_error, 0, state.waited)
            state.best_error = torch.minimum(state.best_error, error)
            costs = (1 + self.extrapolates) * state.problem.evaluations
            last = (state.evaluations + costs > state.allowed) | (iteration == self.max_steps)
            found = self._judge(state, error, last)
            if any(found):
                # Without convergence, return the point with the lowest objective.
                met = _where(found, lambda status: status in MET, u.device)[:, None]
                trusted = _where(found, lambda status: not status.failed, u.device)
                lost = _where(found, lambda status: status is Status.NON_FINITE, u.device)
                values = torch.where(met, state.u, state.best_u)
                keep = out.close(
                    found,
                    values=values.masked_fill(lost[:, None], torch.nan),
                    residual=residual,
                    error=torch.where(trusted & (error <= 1), error, torch.nan),
                    eta=state.problem.eta,
                    steps=state.steps,
                    evaluations=state.evaluations,
                )
                if len(keep) == 0:
                    break
                state.select(keep)
            self._iterate(state)
        return out.solution()

    def limit(self, problem: MoreauProblem) -> Tensor:
        """`max_evaluations` for each sample, `[B]`."""
        most = torch.iinfo(torch.long).max if self.max_evaluations is None else self.max_evaluations
        return torch.full_like(problem.eta, most, dtype=torch.long)

    def _begin(
        self,
        problem: MoreauProblem,
        u: Tensor,
        allowed: Tensor,
        known: tuple[Tensor, Tensor] | None,
    ) -> _State:
        value, grad = problem.value_and_grad(u) if known is None else known
        count = torch.zeros(len(u), dtype=torch.long, device=u.device)
        nothing = u.new_zeros(len(u))
        state = _State(
            problem=problem,
            u=u,
            value=value,
            grad=grad,
            previous=u,
            step=problem.rho.clone(),
            momentum=nothing + 1,
            history=u.new_full((len(u), self.window), -torch.inf),
            curvature=u.new_zeros(len(u), 5, 2),
            lowest=nothing,
            reach=FARTHEST * (problem.rho * grad.norm(dim=1) + problem.extent) + u.norm(dim=1),
            eps=nothing + max(problem.score.resolution, torch.finfo(u.dtype).eps),
            escaped=count.bool(),
            best=nothing,
            best_u=u,
            best_error=nothing + torch.inf,
            waited=count,
            steps=count,
            evaluations=count + (problem.evaluations if known is None else 0),
            allowed=allowed,
        )
        state.best = state.objective(value, u)
        state.history[:, 0] = state.best
        return state

    def _accuracy(self, state: _State) -> tuple[Tensor, Tensor]:
        """The map's estimated relative error and relative residual, `[B]` each."""
        unit = state.problem.rho
        stepped = state.problem.prox(state.u - unit[:, None] * state.grad, unit)
        length = torch.maximum(lengths(stepped), lengths(state.u))
        gap = lengths(stepped - state.u)
        residual = torch.where(gap == 0, gap, gap / length)
        lowest, highest = state.curvature[..., 0].amin(1), state.curvature[..., 1].amax(1)
        margin = 1 + (unit * lowest).clamp_max(0)
        factor = (2 + unit * highest) / margin.clamp_min(0)
        return torch.where(residual == 0, residual, residual * factor), residual

    def _judge(self, state: _State, error: Tensor, last: Tensor) -> list[Status | None]:
        finite = torch.isfinite(state.value) & torch.isfinite(state.grad).all(1)
        short = state.step < SHORTEST * state.problem.rho
        stuck = short | (state.waited > PATIENCE)
        concave = state.problem.rho * state.lowest <= -1
        named = {
            Status.NON_FINITE: ~finite,
            Status.NOT_UNIQUE: (error <= self.tolerance) & concave,
            Status.CONVERGED: error <= self.tolerance,
            Status.UNBOUNDED: state.escaped,
            Status.STALLED: stuck,
            Status.BUDGET_USED: last,
        }
        columns = torch.stack(list(named.values())).T.tolist()
        return [
            next((name for name, holds in zip(named, column, strict=True) if holds), None)
            for column in columns
        ]

    def _iterate(self, state: _State) -> None:
        problem, at, value, grad = state.problem, state.u, state.value, state.grad
        if self.extrapolates:
            following = (1 + (1 + 4 * state.momentum.square()).sqrt()) / 2
            weight = (state.momentum - 1) / following
            at = state.u + weight[:, None] * (state.u - state.previous)
            value, grad = problem.value_and_grad(at)
            state.evaluations = state.evaluations + problem.evaluations
        trial = problem.prox(at - state.step[:, None] * grad, state.step)
        trial_value, trial_grad = problem.value_and_grad(trial)
        move, turn = trial - at, trial_grad - grad
        length = move.square().sum(1)
        along = (turn * move).sum(1) / length.clamp_min(torch.finfo(length.dtype).tiny)
        model = value + (grad * move).sum(1) + length / (2 * state.step)
        accepted = self._accepts(state, trial, trial_value, model, along)
        size = lengths(turn) / lengths(move).clamp_min(torch.finfo(length.dtype).tiny)
        proposed = self.propose(state.step, problem.rho, along)
        if self.extrapolates:
            onward = ((at - trial) * (trial - state.u)).sum(1) <= 0
            state.momentum = torch.where(accepted & onward, following, torch.ones_like(following))
        row = accepted[:, None]
        state.previous = torch.where(row, state.u, state.previous)
        state.u = torch.where(row, trial, state.u)
        state.value = torch.where(accepted, trial_value, state.value)
        state.grad = torch.where(row, trial_grad, state.grad)
        state.step = torch.where(accepted, proposed, state.step / 2)
        # The score's curvature: without the quadratic's 1 / rho.
        seen = torch.stack([along - 1 / problem.rho, size + 1 / problem.rho], dim=1)
        shifted = torch.cat([state.curvature[:, 1:], seen[:, None]], dim=1)
        coarse = RESOLVED * torch.finfo(length.dtype).eps * state.u.norm(dim=1)
        measured = accepted & (length > coarse.square())
        state.curvature = torch.where(measured[:, None, None], shifted, state.curvature)
        lowest = torch.minimum(state.lowest, seen[:, 0])
        state.lowest = torch.where(measured, lowest, state.lowest)
        total = state.objective(state.value, state.u)
        remembered = torch.cat([state.history[:, 1:], total[:, None]], dim=1)
        state.history = torch.where(row, remembered, state.history)
        beyond = trial.norm(dim=1) > state.reach
        state.escaped = beyond & (accepted | ~torch.isfinite(trial_value))
        state.waited = state.waited + 1
        state.waited[total < state.best - _rounding(state.best, state.eps)] = 0
        # Among points that a coarse score does not tell apart, the last one counts.
        coarser = state.eps - torch.finfo(total.dtype).eps
        lower = total < state.best + _rounding(state.best, coarser)
        state.best_u = torch.where(lower[:, None], state.u, state.best_u)
        state.best = torch.minimum(total, state.best)
        state.steps = state.steps + 1
        state.evaluations = state.evaluations + problem.evaluations

    def _accepts(
        self, state: _State, trial: Tensor, trial_value: Tensor, model: Tensor, along: Tensor
    ) -> Tensor:
        """Whether the trial's value is below `model`, the quadratic model with curvature 1 / step.

        If rounding may hide that, the gradients decide: the curvature along the step must not
        exceed 1 / step (Hager and Zhang, 2005).
        """
        slack = _rounding(model, state.eps)
        clear = trial_value <= model - slack
        flat = (trial_value <= model + 64 * slack) & (along * state.step <= 1)
        return torch.isfinite(trial_value) & (clear | flat)


@dataclass(frozen=True, kw_only=True)
class _ProximalGradient(Descent):
    """u+ = prox(u - step grad h(u)) with backtracking; accepted steps let the length grow again."""

    def propose(self, step: Tensor, unit: Tensor, curvature: Tensor) -> Tensor:
        return torch.minimum(1.5 * step, unit)


@dataclass(frozen=True, kw_only=True)
class _Accelerated(Descent):
    """FISTA with backtracking and gradient restart: two evaluations in each step.

    Source: Beck and Teboulle (2009); restart: O'Donoghue and Candes (2015).
    """

    extrapolates: ClassVar[bool] = True

    def propose(self, step: Tensor, unit: Tensor, curvature: Tensor) -> Tensor:
        return step


@dataclass(frozen=True, kw_only=True)
class _Spectral(Descent):
    """Barzilai-Borwein step lengths, accepted against the worst of the last five objectives.

    Where that leads to no progress, against the last one alone, so that iterates do not cycle.

    Source: Barzilai and Borwein (1988); the safeguard: Wright, Nowak and Figueiredo (2009).
    """

    window: ClassVar[int] = 5

    def propose(self, step: Tensor, unit: Tensor, curvature: Tensor) -> Tensor:
        longest = torch.where(curvature > 0, 1 / curvature, 10 * unit)
        return torch.minimum(torch.maximum(longest, 1e-4 * unit), 10 * unit)

    def _accepts(
        self, state: _State, trial: Tensor, trial_value: Tensor, model: Tensor, along: Tensor
    ) -> Tensor:
        total = state.objective(trial_value, trial)
        cycling = state.waited > PATIENCE // 2
        worst = torch.where(cycling, state.history[:, -1], state.history.amax(1))
        enough = worst - 1e-2 * (trial - state.u).square().sum(1) / (2 * state.step)
        return torch.isfinite(total) & (total <= enough + _rounding(worst, state.eps))


def _where(
    found: Sequence[Status | None], holds: Callable[[Status], bool], device: torch.device
) -> Tensor:
    """Of which samples' status that holds, `[B]`; not of those without one."""
    holding = [status is not None and holds(status) for status in found]
    return torch.tensor(holding, device=device)


def _rounding(value: Tensor, eps: Tensor) -> Tensor:
    """Differences of values up to this size are rounding."""
    return 16 * eps * (1 + value.abs())


SOLVERS: Mapping[str, type[Descent]] = {
    "spectral": _Spectral,
    "accelerated": _Accelerated,
    "proximal-gradient": _ProximalGradient,
}
