"""Derivatives of maps by the input.

f is the score (smoothed if it has noise), g its gradient and H its Hessian, all at the inputs of a
bound score and averaged over its noise samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moreaugrad.curvature.krylov import shifted_solve
from moreaugrad.curvature.products import PRODUCT, Exact, LossModel, recorded, recording
from moreaugrad.curvature.second_derivatives import check_twice_differentiable
from moreaugrad.penalties.base import prox_derivative
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.solvers.problem import MoreauProblem

IMPLICIT, STRAIGHT_THROUGH, UNROLLED, STEIN = "implicit", "straight-through", "unrolled", "stein"

MOST_PRODUCTS = 50
"""Most products with the Hessian in one linear solve."""
UNROLLED_STEPS = 40
POWERS, SLACK = 8, 1.2
"""Power iterations that estimate the largest curvature, and the factor added to the estimate: an
unrolled step must not exceed its inverse."""

OfGradient = Callable[[Tensor, Tensor], Tensor]
"""One noise sample's map from its gradient, `[m, n]` both, and its number of real entries `[m]`."""


def gradient_and_product(bound: BoundScore, v: Tensor) -> tuple[Tensor, Tensor]:
    """g and H v, `[B, n]` each. H v is zero for the logits of a piecewise linear network."""

    def work(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        graph = Exact(bound, points, rows)
        return -graph.gradient, -graph.product(v[rows])

    gradient, product = bound.mean(work, width=PRODUCT)
    return gradient, product


def pulled_through(bound: BoundScore, of_gradient: OfGradient, cotangent: Tensor) -> Tensor:
    """J' c `[B, n]` of the mean of `of_gradient`, each noise sample differentiated by itself."""
    counts = bound.counts

    def work(points: Tensor, rows: Tensor) -> tuple[Tensor]:
        with recording(bound):
            leaf, slope = recorded(bound, points, rows)
            made = of_gradient(slope, counts[rows])
            if not made.requires_grad:
                return (torch.zeros_like(points),)
            found = torch.autograd.grad(made, leaf, cotangent[rows], allow_unused=True)[0]
        return (torch.zeros_like(points) if found is None else found,)

    return bound.mean(work, width=PRODUCT)[0]


def pulled_twice(bound: BoundScore, w: Tensor, delta: Tensor) -> Tensor:
    """grad_x w'(g + H delta) `[B, n]` at fixed w and delta: third derivatives, for CASO."""

    def work(points: Tensor, rows: Tensor) -> tuple[Tensor]:
        with recording(bound):
            leaf, slope = recorded(bound, points, rows)
            if not slope.requires_grad:
                return (torch.zeros_like(points),)
            bent = torch.autograd.grad(slope, leaf, delta[rows], create_graph=True)[0]
            total = ((slope + bent) * w[rows]).sum()
            return (torch.autograd.grad(total, leaf)[0],)

    return bound.mean(work, width=2 * PRODUCT)[0]


def stein(bound: BoundScore, of_gradient: OfGradient, cotangent: Tensor, mean: Tensor) -> Tensor:
    """J' c = E (h(x + z) - mean)'c z / sigma^2, z ~ N(0, sigma^2 I), without second derivatives.

    mean: an estimate of E h, which lowers the variance. The variance grows with n / noise samples,
    so that many noise samples are needed. Errors: ValueError without noise. Source: Stein's
    identity.
    """
    sigma, counts = _noise(bound), bound.counts

    def work(points: Tensor, rows: Tensor) -> tuple[Tensor]:
        h = of_gradient(bound.value_and_grad_at(points, rows)[1], counts[rows])
        weight = ((h - mean[rows]) * cotangent[rows]).sum(1, keepdim=True)
        return (weight * _over_variance(points - bound.origin[rows], sigma[rows]),)

    return bound.mean(work)[0]


def stein_product(bound: BoundScore, v: Tensor) -> Tensor:
    """H v = E (g(x + z) z'v + z g(x + z)'v) / (2 sigma^2): symmetric, without second derivatives.

    Errors: ValueError without noise. Source: Stein's identity.
    """
    sigma = _noise(bound)

    def work(points: Tensor, rows: Tensor) -> tuple[Tensor]:
        slope = bound.value_and_grad_at(points, rows)[1]
        z = _over_variance(points - bound.origin[rows], sigma[rows])
        along = v[rows]
        one = slope * (z * along).sum(1, keepdim=True)
        return ((one + z * (slope * along).sum(1, keepdim=True)) / 2,)

    return bound.mean(work)[0]


def product(bound: BoundScore, v: Tensor, through: str) -> Tensor:
    """H v by second derivatives, or by Stein's identity."""
    return stein_product(bound, v) if through == STEIN else gradient_and_product(bound, v)[1]


def groups_with_a_graph(bound: BoundScore, graphs: int = 1) -> list[Tensor]:
    """Groups of samples whose recorded gradients fit into one network pass. graphs: how many are
    recorded for each sample; a group of a single graph serves all products."""
    rows = torch.arange(len(bound), device=bound.origin.device)
    return list(torch.split(rows, max(1, bound.chunks.size // (graphs * bound.passes))))


def score_model(bound: BoundScore) -> Callable[[Tensor, Tensor], Tensor]:
    """A function that gives H v `[m, n]` from v `[m, n]` and the samples' rows `[m]`."""
    model = LossModel(bound, Exact, torch.ones_like(bound.origin[0]))
    return lambda v, rows: -model.product(v, rows)


def _noise(bound: BoundScore) -> Tensor:
    if bound.sigma is None:
        raise ValueError("through: 'stein' needs Gaussian noise, sigma > 0, got none")
    return bound.sigma


def _over_variance(z: Tensor, sigma: Tensor) -> Tensor:
    """z / sigma^2, and 0 where there is no noise."""
    return torch.where(sigma > 0, z / sigma.square(), 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class MoreauDerivative:
    """J' c of a MoreauGrad map, D the derivative of the prox and H taken at x + u."""

    problem: MoreauProblem
    u: Tensor
    """The problem's solution, `[B, n]`."""
    eta: Tensor
    """The penalty's weights `[B]`, NaN for none."""
    tolerance: float
    """Of the linear solve."""

    def pull(self, cotangent: Tensor, through: str) -> Tensor:
        """J' c `[B, n]` by one of the four ways.

        "straight-through", H D c, holds u fixed, as the code released with MoreauGrad does.
        "stein" is the same by Stein's identity: a sampled H is too noisy for the linear solve.
        """
        if through == IMPLICIT:
            return self._implicit(cotangent)
        if through == UNROLLED:
            return self._unrolled(cotangent)
        return product(self._there, self._derivative(cotangent), through)

    def _implicit(self, cotangent: Tensor) -> Tensor:
        """H R z, (I + rho R H R) z = R c with R R = D, by conjugate gradients."""
        _, image = shifted_solve(
            score_model(self._there), self._root, cotangent,
            self.problem.rho, self.tolerance, MOST_PRODUCTS,
        )  # fmt: skip
        return image

    def _unrolled(self, cotangent: Tensor) -> Tensor:
        """By autograd through proximal gradient steps that start at u. All passes of all steps are
        kept in memory, so this is for small problems."""
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
        """D v, `[B, n]`."""
        if self.problem.penalty.differentiable:
            return self._root(self._root(v))
        gradient = self._there.value_and_grad()[1]
        before = -self.problem.rho[:, None] * gradient
        return prox_derivative(self.problem.penalty, before, self._tau)(v)

    def _all_points(self) -> tuple[Tensor, Tensor]:
        """Inputs with each noise sample added, `[draws * B, n]`, and the rows of their samples."""
        kept: list[tuple[Tensor, Tensor]] = []

        def keep(points: Tensor, rows: Tensor) -> tuple[Tensor]:
            kept.append((points.clone(), rows))
            return (points[:, :1],)

        replace(self.problem.score, meter=None).mean(keep)
        return torch.cat([points for points, _ in kept]), torch.cat([rows for _, rows in kept])

    def _steepest(self) -> Tensor:
        """An estimate of the largest magnitude of H's eigenvalues, `[B]`."""
        times_hessian = score_model(self._there)
        rows = torch.arange(len(self.u), device=self.u.device)
        v = torch.ones_like(self.u)
        length = v[:, 0]
        for _ in range(POWERS):
            v = times_hessian(v / v.norm(dim=1, keepdim=True), rows)
            length = v.norm(dim=1)
            v = torch.where(length[:, None] > 0, v, 1.0)
        return length
