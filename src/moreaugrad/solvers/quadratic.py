"""The second-order problem with a matrix of low rank in the place of the Hessian."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from moreaugrad.curvature.ritz import RitzSpace
from moreaugrad.penalties import L1

PENALTY = L1(1.0)
STEPS = 100


class QuadraticModel:
    """minimise a D'D / 2 - D'(V T V')D / 2 - b'D + lambda1 ||D||_1, T = V'HV; sample by sample.

    A proximal gradient step finds which entries are not zero, and with which signs; Newton's
    method solves for those. Of the two the one with the lower objective is taken, so that it
    converges for every T below a, definite or not.
    accuracy `[B]`: length of the gradient step at which a sample is done.
    """

    def __init__(self, space: RitzSpace, pull: Tensor, twice: Tensor, accuracy: Tensor) -> None:
        self.space, self.pull, self.accuracy = space, pull, accuracy
        self.twice = twice[:, None]
        lowest = torch.linalg.eigvalsh(space.small)[:, :1] if space.size else twice[:, None].cpu()
        # The objective's curvature goes from a - max T up to this.
        self.steepest = self.twice + (-lowest).clamp_min(0).to(twice)
        self.delta = torch.zeros_like(pull)

    def changed(self, slope: Tensor) -> QuadraticModel:
        """The problem with slopes changed by `[B, n]`, started at the last solution."""
        model = QuadraticModel(self.space, self.pull + slope, self.twice[:, 0], self.accuracy)
        model.delta = self.delta
        return model

    def pulls(self, lambda1: Tensor) -> Tensor:
        """b + V T V'D at the solution, `[B, n]`."""
        return self._pulls(self.solution(lambda1))

    def solution(self, lambda1: Tensor) -> Tensor:
        """D `[B, n]`, started at the last one."""
        delta, going = self.delta, torch.ones_like(self.accuracy, dtype=torch.bool)
        pulls = self._pulls(delta)
        for _ in range(STEPS):
            slope = pulls - self.twice * delta
            moved = PENALTY.prox(delta + slope / self.steepest, lambda1 / self.steepest[:, 0])
            length = self.steepest[:, 0] * (moved - delta).norm(dim=1)
            # The step's end also where it is short: an entry that it sets to zero is zero.
            delta = torch.where(going[:, None], moved, delta)
            going = going & (length > self.accuracy)
            if not bool(going.any()):
                break
            found = self._better(lambda1, moved, *self._candidates(moved, lambda1))
            delta = torch.where(going[:, None], found, delta)
            pulls = self._pulls(delta)
        self.delta = delta
        return delta

    def _pulls(self, delta: Tensor) -> Tensor:
        return self.pull + self.space.combine(self.space.times(self.space.coefficients(delta)))

    def _candidates(self, at: Tensor, lambda1: Tensor) -> Iterator[Tensor]:
        """Points near the solution of the entries that are not zero in `at`, with their signs."""
        support = at != 0
        full = self._newton(at.sign(), lambda1)
        crosses = support & (full * at < 0)
        # As far as no sign changes: this lowers the objective, if by little.
        reach = torch.where(crosses, at / (at - full), 1.0)
        first = reach.amin(1, keepdim=True)
        yield torch.where(crosses & (reach == first), 0.0, at + first * (full - at))
        if bool(crosses.any()):
            yield full
            sign = torch.where(crosses, 0.0, at.sign())
            full = self._newton(sign, lambda1)
            yield torch.where(full * sign < 0, 0.0, full)

    def _newton(self, sign: Tensor, lambda1: Tensor) -> Tensor:
        """The solution with such signs, if they were not to change."""
        space, support = self.space, sign != 0
        inner = torch.where(support, self.pull, 0.0) - lambda1[:, None] * sign
        # d = (c + P V T w) / a on the support, with w = V'd
        among = space.gram(support) / self.twice.double().cpu()[:, :, None]
        system = torch.eye(space.size, dtype=torch.float64) - among @ space.small
        right = space.coefficients(inner / self.twice)
        w = torch.linalg.solve(system, right[:, :, None])[:, :, 0]
        return (inner + torch.where(support, space.combine(space.times(w)), 0.0)) / self.twice

    def _better(self, lambda1: Tensor, best: Tensor, *others: Tensor) -> Tensor:
        """The one with the lowest objective."""
        slope = self.twice * best - self._pulls(best)
        for other in others:
            ahead = self.twice * other - self._pulls(other)
            # The difference of objectives, entry by entry: their values would round it away.
            rise = (slope + ahead) / 2 * (other - best)
            rise = rise + lambda1[:, None] * (other.abs() - best.abs())
            lower = rise.double().sum(1, keepdim=True) < 0
            best, slope = torch.where(lower, other, best), torch.where(lower, ahead, slope)
        return best
