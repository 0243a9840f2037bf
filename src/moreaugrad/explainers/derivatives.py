"""How a change of the input changes a map: what the explainers' derivatives are made of.

With f the score, smoothed where it has noise, g its gradient and H its Hessian, all at the inputs
of a bound score and over its draws.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from moreaugrad.curvature.products import PRODUCT, Exact, LossModel, recorded, recording
from moreaugrad.score.bound_score import BoundScore

IMPLICIT, STRAIGHT_THROUGH, UNROLLED, STEIN = "implicit", "straight-through", "unrolled", "stein"

OfGradient = Callable[[Tensor, Tensor], Tensor]
"""A map of each draw from its gradient, `[m, n]` both, and its count of real entries `[m]`."""


def gradient_and_product(bound: BoundScore, v: Tensor) -> tuple[Tensor, Tensor]:
    """g and H v, `[B, n]` each. H v is zero for the logits of a piecewise linear network."""

    def work(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        graph = Exact(bound, points, rows)
        return -graph.gradient, -graph.product(v[rows])

    gradient, product = bound.mean(work, width=PRODUCT)
    return gradient, product


def pulled_through(bound: BoundScore, of_gradient: OfGradient, cotangent: Tensor) -> Tensor:
    """J' c of the mean of `of_gradient`, differentiated draw by draw: `[B, n]`."""

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
    """grad_x w'(g + H delta), w and delta held: third derivatives, for CASO. `[B, n]`."""

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

    `mean`, what is known of E h, only lowers the variance: by n / draws, so that many draws are
    needed. Errors: ValueError without noise. Source: Stein's identity.
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
    """Rows whose draws, recorded so many times, fill one network pass: with one, a recorded
    gradient serves all products."""
    rows = torch.arange(len(bound), device=bound.origin.device)
    return list(torch.split(rows, max(1, bound.chunks.size // (graphs * bound.passes))))


def score_model(bound: BoundScore) -> Callable[[Tensor, Tensor], Tensor]:
    """H v of these samples: `[m, n]` from v `[m, n]` and their rows."""
    model = LossModel(bound, Exact, torch.ones_like(bound.origin[0]))
    return lambda v, rows: -model.product(v, rows)


def _noise(bound: BoundScore) -> Tensor:
    if bound.sigma is None:
        raise ValueError("through: 'stein' needs Gaussian noise, sigma > 0, got none")
    return bound.sigma


def _over_variance(z: Tensor, sigma: Tensor) -> Tensor:
    """z / sigma^2, and 0 where there is no noise."""
    return torch.where(sigma > 0, z / sigma.square(), 0.0)
