"""The derivative of a MoreauGrad map by the input, through the problem that it solves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moreaugrad.curvature.krylov import shifted_solve
from moreaugrad.curvature.products import PRODUCT, recording
from moreaugrad.curvature.second_derivatives import check_twice_differentiable
from moreaugrad.explainers.derivatives import (
    IMPLICIT,
    STEIN,
    STRAIGHT_THROUGH,
    UNROLLED,
    gradient_and_product,
    score_model,
    stein_product,
)
from moreaugrad.penalties.base import prox_derivative
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.solvers.problem import MoreauProblem

MOST_PRODUCTS = 50
POWERS, SLACK = 8, 1.2
"""Power iterations for the curvature that an unrolled step must not exceed, and what they may
miss of it."""
UNROLLED_STEPS = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Pulled:
    """J' c at a solution u `[B, n]` of the problem, with weights eta `[B]` (NaN: none).

    tolerance: of the linear solve. H is taken at x + u, over the draws of the problem's score.
    """

    problem: MoreauProblem
    u: Tensor
    eta: Tensor
    tolerance: float

    @property
    def ways(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        return {
            IMPLICIT: self.implicit,
            STRAIGHT_THROUGH: self.straight_through,
            UNROLLED: self.unrolled,
            STEIN: self.stein,
        }

    def implicit(self, cotangent: Tensor) -> Tensor:
        """H R z, (I + rho R H R) z = R c with R R = D, by conjugate gradients."""
        product = score_model(self._there)
        _, image = shifted_solve(
            product, self._root, cotangent, self.problem.rho, self.tolerance, MOST_PRODUCTS
        )
        return image

    def straight_through(self, cotangent: Tensor) -> Tensor:
        """H D c: as if u did not move. Source: the code released with MoreauGrad."""
        return gradient_and_product(self._there, self._derivative(cotangent))[1]

    def stein(self, cotangent: Tensor) -> Tensor:
        """H D c by Stein's identity: a sampled H is too noisy for the solve."""
        return stein_product(self._there, self._derivative(cotangent))

    def unrolled(self, cotangent: Tensor) -> Tensor:
        """Through proximal gradient steps that begin at u. Every pass of every step is kept in
        memory: for small problems."""
        bound = self.problem.score
        points, rows = self._all_points()
        leaf = points.requires_grad_()
        rho, eta = self.problem.rho[:, None], torch.nan_to_num(self.eta)
        step = 1 / (1 / rho + SLACK * self._steepest()[:, None])
        draws = bound.passes
        with recording(bound):
            u = self.u
            for _ in range(UNROLLED_STEPS):
                at = leaf + u.repeat(draws, 1)
                scores = bound.read(bound.outputs(at, rows), rows)
                check_twice_differentiable(scores, leaf)
                slope = torch.autograd.grad(scores.sum(), at, create_graph=True)[0]
                mean = slope.reshape(draws, *u.shape).mean(0)
                moved = (1 - step / rho) * u - step * mean
                u = self.problem.penalty.prox(moved, step[:, 0] * eta)
            found = torch.autograd.grad(-u / rho, leaf, cotangent)[0]
        if bound.meter is not None:
            bound.meter(UNROLLED_STEPS * PRODUCT * len(points))
        return found.reshape(draws, *self.u.shape).sum(0)

    @property
    def _there(self) -> BoundScore:
        bound = self.problem.score
        return bound.moved(bound.origin + self.u)

    @property
    def _tau(self) -> Tensor:
        return self.problem.rho * torch.nan_to_num(self.eta)

    def _root(self, v: Tensor) -> Tensor:
        return self.problem.penalty.prox_root(self.u, self._tau, v)

    def _derivative(self, v: Tensor) -> Tensor:
        """D v."""
        if self.problem.penalty.differentiable:
            return self._root(self._root(v))
        gradient = self._there.value_and_grad()[1]
        before = -self.problem.rho[:, None] * gradient
        return prox_derivative(self.problem.penalty, before, self._tau)(v)

    def _all_points(self) -> tuple[Tensor, Tensor]:
        """Inputs with every draw's noise, `[draws * B, n]`, and the samples they belong to."""
        kept: list[tuple[Tensor, Tensor]] = []

        def keep(points: Tensor, rows: Tensor) -> tuple[Tensor]:
            kept.append((points.clone(), rows))
            return (points[:, :1],)

        replace(self.problem.score, meter=None).mean(keep)
        return torch.cat([points for points, _ in kept]), torch.cat([rows for _, rows in kept])

    def _steepest(self) -> Tensor:
        """The largest eigenvalue's size of H, `[B]`, about."""
        product = score_model(self._there)
        rows = torch.arange(len(self.u), device=self.u.device)
        v = torch.ones_like(self.u)
        length = v[:, 0]
        for _ in range(POWERS):
            v = product(v / v.norm(dim=1, keepdim=True), rows)
            length = v.norm(dim=1)
            v = torch.where(length[:, None] > 0, v, 1.0)
        return length
