"""A penalty's weight chosen for each sample, by a wanted fraction of zeros."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moreaugrad.penalties.base import Penalty
from moreaugrad.score.inputs import Batched, common, rank_from_top
from moreaugrad.settings import expect
from moreaugrad.solvers.descent import Descent
from moreaugrad.solvers.solution import MoreauProblem, Solution, Status

ROUNDS, CLOSE = 12, 0.005
"""Most refinements of eta, and the deviation of the fraction of zeros that is accepted."""
BEYOND = 2
"""Factor by which eta leaves one that is known, where there is none on the other side."""
LEAST_ZEROS = 0.75
"""Fraction of zeros required by the search of the CASO paper."""
GRID = 40
"""Most halvings of lambda1 in that search."""
TRIALS, NEAR = 16, 0.002
"""Most trials of lambda1 for a fraction of zeros, and the deviation from it that is accepted."""

Rule = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]
"""How CASO's lambda1 `[B]` is chosen: from the gradient `[B, n]`, and a function from lambda1 to
the pulls g + H D at its solution. Entries (groups) whose pull exceeds lambda1 are not zero."""
Magnitudes = Callable[[Tensor], Tensor]
"""A penalty's `magnitudes`: `[B, n]` to `[B, G]`."""


def zeroed(fraction: float, counts: Tensor) -> Tensor:
    """How many of `counts` `[B]` numbers are set to zero: at least this fraction, but not all
    unless it is 1."""
    if fraction == 1:
        return counts
    # The slack keeps .9 * 10 from rounding up to ten.
    return torch.minimum(counts - 1, (fraction * counts.double() - 1e-9).ceil().long())


@dataclass(frozen=True, eq=False)
class Threshold(Batched):
    """The smallest threshold, up to rounding, that sets a fraction of magnitudes to zero.

    At least one magnitude is kept unless the fraction is 1, so that a map of few groups is not
    empty. It is made once for many magnitudes of the same samples, because their ranks are read
    on the host.
    """

    rank: int | Tensor
    """From the top, the largest magnitude that is set to zero; `[B]` where samples differ in it."""
    some: Tensor
    """Whether any is, `[B]`."""

    @classmethod
    def of(cls, zeros: float, counts: Tensor) -> Threshold:
        """For the fraction `zeros` of the magnitudes without padding, `counts` `[B]`.

        Errors: ValueError for a fraction outside [0, 1].
        """
        expect(0 <= zeros <= 1, "sparsity", "a fraction from 0 to 1", zeros)
        wanted = zeroed(zeros, counts)
        return cls(common((counts + 1 - wanted).clamp_max(counts).clamp_min(1)), wanted > 0)

    def __call__(self, magnitudes: Tensor) -> Tensor:
        """magnitudes: `[B, G]`, 0 at padding. Returns `[B]`."""
        # A few roundings more, so that a prox with it cancels the entry it was computed from.
        slack = 1 + 4 * torch.finfo(magnitudes.dtype).eps
        found = slack * rank_from_top(magnitudes, self.rank)
        # Those that are equally the largest are kept together, where not all are to go.
        top = magnitudes.amax(1, keepdim=True)
        below = slack * magnitudes.masked_fill(slack * magnitudes >= top, 0.0).amax(1)
        everything = (torch.as_tensor(self.rank, device=found.device) > 1) & (found >= top[:, 0])
        return torch.where(self.some, torch.where(everything, below, found), 0.0)


def eta_for(magnitudes: Tensor, zeros: float, counts: Tensor | None = None) -> Tensor:
    """The `Threshold` of magnitudes `[B, G]` for the fraction `zeros`, `[B]`.

    counts `[B]`: number of magnitudes that are not padding (None: all).
    """
    if counts is None:
        width = magnitudes.shape[1]
        counts = torch.full_like(magnitudes[:, 0], width, dtype=torch.long)
    return Threshold.of(zeros, counts)(magnitudes)


def solve_for_sparsity(
    solver: Descent,
    problem: MoreauProblem,
    sparsity: float,
    start: Tensor | None = None,
    rounds: int = ROUNDS,
) -> Solution:
    """Solves with the eta for which the map has the fraction `sparsity` of zero entries (groups).

    eta is set to that quantile of the penalty's magnitudes of grad f(x + u), first at the start and
    then at each solution, until the fraction is met, the evaluations are used up, or eta was
    refined `rounds` times. A quantile that is not between the largest eta with too few zeros and
    the smallest with too many, as it may where the score is curved, is replaced by their geometric
    mean.
    Errors: TypeError for a penalty that sets nothing to zero.
    """
    penalty, counts, each = problem.penalty, problem.counts, problem.evaluations
    allowed = solver.limit(problem)
    u = problem.start if start is None else start
    known = problem.value_and_grad(u)
    eta = eta_for(penalty.magnitudes(_slope(problem, u, known)), sparsity, counts)
    solution = solver.solve(replace(problem, eta=eta), u, allowed - each, known)
    spent = solution.evaluations + each
    best, low, high = solution, torch.zeros_like(eta), torch.full_like(eta, torch.inf)
    for _ in range(rounds):
        off = _zero_groups(solution.values, penalty, counts) - sparsity
        finite = torch.isfinite(solution.values).all(1) & torch.isfinite(solution.eta)
        wrong = off.abs() > CLOSE + 0.5 / counts
        rows = (wrong & finite & (spent + 2 * each <= allowed)).nonzero()[:, 0]
        if len(rows) == 0:
            break
        low = torch.where(off < 0, solution.eta, low)
        high = torch.where(off < 0, high, solution.eta)
        part, u = problem.select(rows), solution.values[rows]
        known = part.value_and_grad(u)
        eta = eta_for(penalty.magnitudes(_slope(part, u, known)), sparsity, counts[rows])
        eta = _between(low[rows], high[rows], eta)
        refined = solver.solve(replace(part, eta=eta), u, (allowed - spent)[rows] - each, known)
        spent[rows] += refined.evaluations + each
        solution = _updated(solution, rows, refined)
        now, before = (_zero_groups(one.values, penalty, counts) for one in (solution, best))
        nearer = (now - sparsity).abs() < (before - sparsity).abs()
        rows = (nearer & ((now < 1) | (sparsity == 1))).nonzero()[:, 0]  # no map instead of one
        best = _replaced(best, rows, solution.select(rows))
    seen = solution.having(Status.NOT_UNIQUE) & best.having(Status.CONVERGED)
    best = best.marked(Status.NOT_UNIQUE, seen)
    return replace(best, evaluations=spent, steps=solution.steps)


def _zero_groups(values: Tensor, penalty: Penalty, counts: Tensor) -> Tensor:
    """Fraction of the entries (groups) without padding that are zero, `[B]`."""
    return 1 - (penalty.magnitudes(values) != 0).sum(1).double() / counts


def _between(low: Tensor, high: Tensor, eta: Tensor) -> Tensor:
    """eta where it is between these, else another weight there. high: inf if it is not known."""
    middle = torch.where(high.isinf(), BEYOND * low, (low * high).sqrt())
    middle = torch.where(low == 0, high / BEYOND, middle)
    return torch.where((low < eta) & (eta < high), eta, middle)


def _slope(problem: MoreauProblem, u: Tensor, known: tuple[Tensor, Tensor]) -> Tensor:
    """grad f(x + u), `[B, n]`, of what `value_and_grad` found at u."""
    return known[1] - u / problem.rho[:, None]


def _updated(solution: Solution, rows: Tensor, part: Solution) -> Solution:
    """`solution` with the results of some samples refined; their steps add up."""
    before = solution.select(rows)
    part = replace(part, steps=before.steps + part.steps)
    # The curvature seen along the way is the score's, for every eta.
    seen = before.having(Status.NOT_UNIQUE) & part.having(Status.CONVERGED)
    return _replaced(solution, rows, part.marked(Status.NOT_UNIQUE, seen))


def _replaced(solution: Solution, rows: Tensor, part: Solution) -> Solution:
    """`solution` with `part` as the results of some samples."""
    order = torch.arange(len(solution), device=rows.device)
    order[rows] = len(solution) + torch.arange(len(rows), device=rows.device)
    return Solution.joined([solution, part]).select(order)


def for_sparsity(zeros: float, magnitudes: Magnitudes, counts: Tensor) -> Rule:
    """Rule for CASO's lambda1: the lambda1 that equals the quantile of its own pulls g + H D.

    counts `[B]`: number of magnitudes that are not padding. The root of log(quantile / lambda1)
    lies between the gradient's quantile and its largest magnitude, at which the solution is zero.
    It is found by regula falsi in log(lambda1) with the Illinois rule, which halves the value at an
    end that stays, so that both ends move.
    """

    def rule(gradient: Tensor, pulls: Callable[[Tensor], Tensor]) -> Tensor:
        def excess(lambda1: Tensor) -> tuple[Tensor, Tensor]:
            magnitude = magnitudes(pulls(lambda1))
            fraction = _zeros(magnitude, lambda1, counts)
            quantile = eta_for(magnitude, zeros, counts)
            return (quantile / lambda1).log(), (fraction - zeros).abs() <= NEAR

        sizes = magnitudes(gradient)
        quantile, largest = eta_for(sizes, zeros, counts), sizes.amax(1)
        trivial = (quantile <= 0) | ~torch.isfinite(largest)
        low = found = torch.where(trivial, 1.0, quantile)
        high = torch.where(trivial, 1.0, largest)
        below, done = excess(low)
        above = (low / high).log()
        done = done | trivial | (below <= 0)
        for _ in range(TRIALS):
            if bool(done.all()):
                break
            weight = (below / (below - above)).clamp(0.02, 0.98)
            found = torch.where(done, found, low ** (1 - weight) * high**weight)
            value, near = excess(found)
            rises = value > 0
            low, high = torch.where(rises, found, low), torch.where(rises, high, found)
            below = torch.where(rises, value, below / 2)
            above = torch.where(rises, above / 2, value)
            done = done | near
        return torch.where(trivial, 0.0, found)

    return rule


def searched(magnitudes: Magnitudes, counts: Tensor) -> Rule:
    """Rule of the CASO paper: on the grid max|g| / 2^j, the last lambda1 with enough zeros."""

    def rule(gradient: Tensor, pulls: Callable[[Tensor], Tensor]) -> Tensor:
        start = magnitudes(gradient).amax(1)
        found, going = start, torch.ones_like(start, dtype=torch.bool)
        for halvings in range(1, GRID):
            lambda1 = torch.where(going, start / 2**halvings, found)
            going = going & (_zeros(magnitudes(pulls(lambda1)), lambda1, counts) >= LEAST_ZEROS)
            if not bool(going.any()):
                break
            found = torch.where(going, lambda1, found)
        if bool((found == start).any()):  # half of the largest entry leaves too few zeros
            wanted = for_sparsity(LEAST_ZEROS, magnitudes, counts)(gradient, pulls)
            found = torch.where(found == start, wanted, found)
        return found

    return rule


def _zeros(magnitude: Tensor, lambda1: Tensor, counts: Tensor) -> Tensor:
    """Fraction of the magnitudes without padding that lambda1 sets to zero, `[B]`."""
    return 1 - (magnitude > lambda1[:, None]).sum(1).double() / counts
