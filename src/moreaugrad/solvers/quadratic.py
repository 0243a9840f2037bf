"""The second-order problem with a low-rank matrix instead of the Hessian."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from moreaugrad.curvature.krylov import RitzSpace
from moreaugrad.penalties import L1, Penalty
from moreaugrad.penalties.base import prox_derivative

ROUNDINGS = 4
"""Roundings of D: a shorter step counts as zero."""


class QuadraticModel:
    """minimise a D'D / 2 - D'(V T V')D / 2 - b'D + lambda1 R(D), T = V'HV; sample by sample.

    Each iteration takes a proximal gradient step, and then the best of its end and of a few points
    that it suggests: a semismooth Newton step, and a step further along the last ones. The proximal
    gradient step is a contraction, so the method converges for every penalty and every T below a,
    definite or not. accuracy `[B]`: length of the gradient step at which a sample is done.
    """

    steps: ClassVar[int] = 1000

    def __init__(
        self, space: RitzSpace, pull: Tensor, twice: Tensor, accuracy: Tensor, penalty: Penalty
    ) -> None:
        self.space, self.pull, self.accuracy, self.penalty = space, pull, accuracy, penalty
        self.twice = twice[:, None]
        lowest = torch.linalg.eigvalsh(space.small)[:, :1] if space.size else twice[:, None].cpu()
        # The objective's curvature goes from a - max T up to this.
        self.steepest = self.twice + (-lowest).clamp_min(0).to(twice)
        self.delta = torch.zeros_like(pull)

    @staticmethod
    def of(
        space: RitzSpace, pull: Tensor, twice: Tensor, accuracy: Tensor, penalty: Penalty
    ) -> QuadraticModel:
        plain = isinstance(penalty, L1) and isinstance(penalty.eta, float) and penalty.eta == 1
        return (_L1Model if plain else QuadraticModel)(space, pull, twice, accuracy, penalty)

    def changed(self, slope: Tensor) -> QuadraticModel:
        """The problem with slopes changed by `slope` `[B, n]`, started at the last solution."""
        model = type(self)(
            self.space, self.pull + slope, self.twice[:, 0], self.accuracy, self.penalty
        )
        model.delta = self.delta
        return model

    def pulls(self, lambda1: Tensor) -> Tensor:
        """b + V T V'D at the solution, `[B, n]`; D is the prox of this over a."""
        return self._pulls(self.solution(lambda1))

    def solution(self, lambda1: Tensor) -> Tensor:
        """The solution D `[B, n]`, started at the last one."""
        delta = before = self.delta
        going = torch.ones_like(self.accuracy, dtype=torch.bool)
        pulls = self._pulls(delta)
        for _ in range(self.steps):
            slope = pulls - self.twice * delta
            moved = self._step(delta, slope, lambda1)
            length = self.steepest[:, 0] * (moved - delta).norm(dim=1)
            # Also take a short step, because it sets entries exactly to zero.
            delta = torch.where(going[:, None], moved, delta)
            going = going & (length > self._enough(moved))
            if not bool(going.any()):
                break
            found = self._better(lambda1, moved, *self._candidates(moved, before, lambda1))
            before = moved
            delta = torch.where(going[:, None], found, delta)
            pulls = self._pulls(delta)
        self.delta = delta
        return delta

    def _enough(self, moved: Tensor) -> Tensor:
        """The accuracy, or the rounding of a step if that is larger."""
        rounding = ROUNDINGS * torch.finfo(moved.dtype).eps * moved.norm(dim=1)
        return self.accuracy.maximum(self.steepest[:, 0] * rounding)

    def lacking(self, delta: Tensor, slope: Tensor, lambda1: Tensor) -> Tensor:
        """Residual of D, `[B]`; divided by the smallest curvature, it bounds the error of D.

        The length of a proximal gradient step, but at least the rounding of D. slope `[B, n]`: of
        the objective without the penalty.
        """
        rounding = torch.finfo(delta.dtype).eps * delta.norm(dim=1)
        step: Tensor = (self._step(delta, slope, lambda1) - delta).norm(dim=1)
        return self.steepest[:, 0] * step.maximum(rounding)

    def _step(self, delta: Tensor, slope: Tensor, lambda1: Tensor) -> Tensor:
        return self.penalty.prox(delta + slope / self.steepest, lambda1 / self.steepest[:, 0])

    def _pulls(self, delta: Tensor) -> Tensor:
        return self.pull + self.space.combine(self.space.times(self.space.coefficients(delta)))

    def _candidates(self, at: Tensor, before: Tensor, lambda1: Tensor) -> Iterator[Tensor]:
        """Points that may lie near the solution."""
        # The solution solves D = P((b + V T V'D) / a), P the prox; with P's derivative Q at D,
        # Newton's step from D is S = r + Q V T w / a, r = P(...) - D, w = V'S.
        space, tau = self.space, lambda1 / self.twice[:, 0]
        inner = self._pulls(at) / self.twice
        ahead = self.penalty.prox(inner, tau)
        derivative = prox_derivative(self.penalty, inner, tau)
        images = [space.coefficients(derivative(v)) for v in space.basis.unbind(1)]
        among = torch.stack(images, dim=2) / self.twice.double().cpu()[:, :, None]
        system = torch.eye(space.size, dtype=torch.float64) - among @ space.small
        right = space.coefficients(ahead - at)
        w = torch.linalg.solve(system, right[:, :, None])[:, :, 0]
        yield ahead + derivative(space.combine(space.times(w))) / self.twice
        yield at + (at - before)

    def _better(self, lambda1: Tensor, *points: Tensor) -> Tensor:
        """The point with the shortest proximal gradient step."""
        best, shortest = points[0], torch.full_like(lambda1, torch.inf)
        for point in points:
            slope = self._pulls(point) - self.twice * point
            length = (self._step(point, slope, lambda1) - point).norm(dim=1)
            best = torch.where((length < shortest)[:, None], point, best)
            shortest = torch.minimum(length, shortest)
        return best


class _L1Model(QuadraticModel):
    """R = ||D||_1: Newton's method solves for the nonzero entries at given signs."""

    steps: ClassVar[int] = 100

    def _enough(self, moved: Tensor) -> Tensor:
        return self.accuracy

    def lacking(self, delta: Tensor, slope: Tensor, lambda1: Tensor) -> Tensor:
        """The distance of 0 from the objective's subdifferential."""
        weight = lambda1[:, None]
        inside = (slope.abs() - weight).clamp_min(0)
        found: Tensor = torch.where(delta == 0, inside, slope - weight * delta.sign()).norm(dim=1)
        return found

    def _candidates(self, at: Tensor, before: Tensor, lambda1: Tensor) -> Iterator[Tensor]:
        """Points near the solution for the nonzero entries of `at`, with their signs."""
        support = at != 0
        full = self._newton(at.sign(), lambda1)
        crosses = support & (full * at < 0)
        # As far as no sign changes: this always lowers the objective.
        reach = torch.where(crosses, at / (at - full), 1.0)
        first = reach.amin(1, keepdim=True)
        yield torch.where(crosses & (reach == first), 0.0, at + first * (full - at))
        if bool(crosses.any()):
            yield full
            sign = torch.where(crosses, 0.0, at.sign())
            full = self._newton(sign, lambda1)
            yield torch.where(full * sign < 0, 0.0, full)

    def _newton(self, sign: Tensor, lambda1: Tensor) -> Tensor:
        """The solution for these signs, if they do not change."""
        space, support = self.space, sign != 0
        inner = torch.where(support, self.pull, 0.0) - lambda1[:, None] * sign
        # d = (c + P V T w) / a on the support, with w = V'd
        among = space.gram(support) / self.twice.double().cpu()[:, :, None]
        system = torch.eye(space.size, dtype=torch.float64) - among @ space.small
        right = space.coefficients(inner / self.twice)
        w = torch.linalg.solve(system, right[:, :, None])[:, :, 0]
        return (inner + torch.where(support, space.combine(space.times(w)), 0.0)) / self.twice

    def _better(self, lambda1: Tensor, *points: Tensor) -> Tensor:
        """The point with the lowest objective."""
        best, *others = points
        slope = self.twice * best - self._pulls(best)
        for other in others:
            ahead = self.twice * other - self._pulls(other)
            # Differences entry by entry, which rounding of the objectives would hide.
            rise = (slope + ahead) / 2 * (other - best)
            rise = rise + lambda1[:, None] * (other.abs() - best.abs())
            lower = rise.double().sum(1, keepdim=True) < 0
            best, slope = torch.where(lower, other, best), torch.where(lower, ahead, slope)
        return best
