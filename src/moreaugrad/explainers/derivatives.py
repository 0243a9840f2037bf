"""Derivatives of maps by the input.

f is the score (smoothed if it has noise), g its gradient and H its Hessian, all at the inputs of a
bound score and averaged over its noise samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from moreaugrad.curvature.krylov import shifted_solve
from moreaugrad.curvature.products import PRODUCT, Exact, LossModel, recorded, recording
from moreaugrad.curvature.second_derivatives import check_twice_differentiable
from moreaugrad.penalties.base import prox_derivative
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.solvers.solution import MoreauProblem

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
    return list(torch.split(bound.rows, max(1, bound.chunks.size // (graphs * bound.passes))))


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


def moreau_derivative(
    problem: MoreauProblem, u: Tensor, cotangent: Tensor, through: str, tolerance: float
) -> Tensor:
    """J' c `[B, n]` of a MoreauGrad map, with u the problem's solution and H taken at x + u.

    "implicit" is H R z with (I + rho R H R) z = R c, solved to `tolerance`, and R R = D, the
    derivative of the prox. "straight-through", H D c, holds u fixed, as the code released with
    MoreauGrad does. "stein" is the same by Stein's identity: a sampled H is too noisy for the
    linear solve.
    """
    penalty, tau = problem.penalty, problem.rho * problem.eta
    there = problem.score.moved(problem.score.origin + u)

    def root(v: Tensor) -> Tensor:
        return penalty.prox_root(u, tau, v)

    if through == UNROLLED:
        return _unrolled(problem, u, cotangent, _steepest(there))
    if through == IMPLICIT:
        products = score_model(there)
        return shifted_solve(products, root, cotangent, problem.rho, tolerance, MOST_PRODUCTS)[1]
    if penalty.differentiable:
        derived = root(root(cotangent))
    else:
        before = -problem.rho[:, None] * there.value_and_grad()[1]
        derived = prox_derivative(penalty, before, tau)(cotangent)
    return product(there, derived, through)


def _unrolled(problem: MoreauProblem, u: Tensor, cotangent: Tensor, steepest: Tensor) -> Tensor:
    """By autograd through proximal gradient steps that start at u. All passes of all steps are
    kept in memory, so this is for small problems."""
    bound, draws = problem.score, problem.score.passes
    points, rows = _all_points(bound)
    leaf = points.requires_grad_()
    rho = problem.rho[:, None]
    step = 1 / (1 / rho + SLACK * steepest[:, None])
    with recording(bound):
        for _ in range(UNROLLED_STEPS):
            at = leaf + u.repeat(draws, 1)
            scores = bound.read(bound.outputs(at, rows), rows)
            check_twice_differentiable(scores, leaf)
            slope = torch.autograd.grad(scores.sum(), at, create_graph=True)[0]
            mean = slope.reshape(draws, *u.shape).mean(0)
            u = problem.prox((1 - step / rho) * u - step * mean, step[:, 0])
        found = torch.autograd.grad(-u / rho, leaf, cotangent)[0]
    if bound.meter is not None:
        bound.meter(UNROLLED_STEPS * PRODUCT * len(points))
    return found.reshape(draws, *u.shape).sum(0)


def _all_points(bound: BoundScore) -> tuple[Tensor, Tensor]:
    """Inputs with each noise sample added, `[draws * B, n]`, and the rows of their samples."""
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(points: Tensor, rows: Tensor) -> tuple[Tensor]:
        kept.append((points.clone(), rows))
        return (points[:, :1],)

    replace(bound, meter=None).mean(keep)
    points, rows = zip(*kept, strict=True)
    return torch.cat(points), torch.cat(rows)


def _steepest(bound: BoundScore) -> Tensor:
    """An estimate of the largest magnitude of H's eigenvalues, `[B]`, by power iterations."""
    products, rows = score_model(bound), bound.rows
    v = torch.ones_like(bound.origin)
    length = v[:, 0]
    for _ in range(POWERS):
        v = products(v / v.norm(dim=1, keepdim=True), rows)
        length = v.norm(dim=1)
        v = torch.where(length[:, None] > 0, v, 1.0)
    return length
