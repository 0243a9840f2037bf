"""The second-order problem with a low-rank matrix instead of the Hessian."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from moreaugrad.curvature.krylov import RitzSpace
from moreaugrad.penalties import Penalty
from moreaugrad.penalties.base import prox_derivative
from moreaugrad.score.inputs import lengths

ROUNDINGS = 4
"""Roundings of D: a shorter step counts as zero."""
STEPS = 1000
"""Most proximal gradient steps."""


class QuadraticModel:
    """minimise a D'D / 2 - D'(V T V')D / 2 - b'D + lambda1 R(D), T = V'HV; sample by sample.

    Each iteration takes a proximal gradient step, and then the best of its end and of a few points
    that it suggests: a semismooth Newton step, and a step further along the last ones. The proximal
    gradient step is a contraction, so the method converges for every penalty and every T below a,
    definite or not. accuracy `[B]`: length of the gradient step at which a sample is done.
    """

    def __init__(
        self, space: RitzSpace, pull: Tensor, twice: Tensor, accuracy: Tensor, penalty: Penalty
    ) -> None:
        self.space, self.pull, self.accuracy, self.penalty = space, pull, accuracy, penalty
        self.twice = twice[:, None]
        lowest = torch.linalg.eigvalsh(space.small)[:, :1] if space.size else twice[:, None].cpu()
        # The objective's curvature goes from a - max T up to this.
        self.steepest = self.twice + (-lowest).clamp_min(0).to(twice)
        self.delta = torch.zeros_like(pull)

    def changed(self, slope: Tensor) -> QuadraticModel:
        """The problem with slopes changed by `slope` `[B, n]`, started at the last solution."""
        pull = self.pull + slope
        model = QuadraticModel(self.space, pull, self.twice[:, 0], self.accuracy, self.penalty)
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
        for _ in range(STEPS):
            slope = pulls - self.twice * delta
            moved = self._step(delta, slope, lambda1)
            length = self.steepest[:, 0] * lengths(moved - delta)
            # Also take a short step, because it sets entries exactly to zero.
            delta = torch.where(going[:, None], moved, delta)
            rounding = ROUNDINGS * torch.finfo(moved.dtype).eps * lengths(moved)
            going = going & (length > self.accuracy.maximum(self.steepest[:, 0] * rounding))
            if not bool(going.any()):
                break
            found = self._better(lambda1, moved, *self._candidates(moved, before, lambda1))
            before = moved
            delta = torch.where(going[:, None], found, delta)
            pulls = self._pulls(delta)
        self.delta = delta
        return delta

    def residual(self, delta: Tensor, slope: Tensor, lambda1: Tensor) -> Tensor:
        """Residual of D, `[B]`; divided by the smallest curvature, it bounds the error of D.

        The length of a proximal gradient step, but at least the rounding of D. slope `[B, n]`: of
        the objective without the penalty.
        """
        rounding = torch.finfo(delta.dtype).eps * lengths(delta)
        step = lengths(self._step(delta, slope, lambda1) - delta)
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
        system = torch.eye(space.size, dtype=torch.float64, device="cpu") - among @ space.small
        right = space.coefficients(ahead - at)
        w = torch.linalg.solve(system, right[:, :, None])[:, :, 0]
        yield ahead + derivative(space.combine(space.times(w))) / self.twice
        yield at + (at - before)

    def _better(self, lambda1: Tensor, *points: Tensor) -> Tensor:
        """The point with the shortest proximal gradient step."""
        best, shortest = points[0], torch.full_like(lambda1, torch.inf)
        for point in points:
            slope = self._pulls(point) - self.twice * point
            length = lengths(self._step(point, slope, lambda1) - point)
            best = torch.where((length < shortest)[:, None], point, best)
            shortest = torch.minimum(length, shortest)
        return best
