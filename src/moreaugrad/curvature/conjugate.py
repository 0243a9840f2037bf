"""Conjugate gradients for symmetric systems that are only known by products, sample by sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor, Tensor], Tensor]
"""v `[m, n]` and the samples' rows, to H v `[m, n]`."""


def shifted_solve(
    product: Product,
    root: Callable[[Tensor], Tensor],
    right: Tensor,
    weight: Tensor,
    tolerance: float,
    most: int,
) -> tuple[Tensor, Tensor]:
    """z and H R z, `[B, n]` each, where (I + weight R H R) z = R right.

    root: v to R v, symmetric, for all samples. weight `[B]`. A sample is done when its residual is
    at most `tolerance` of R right, when it has taken `most` products, or when a direction of
    negative curvature shows that the system is not positive definite; z = R right, the first step,
    is the least that is given.
    H R z comes for nothing: it is the sum of the products that were made.
    """
    z = torch.zeros_like(right)
    image = torch.zeros_like(right)
    rest = root(right)
    direction, size = rest.clone(), rest.square().sum(1)
    goal = tolerance**2 * size
    active = size > 0
    for step in range(most):
        rows = active.nonzero()[:, 0]
        if len(rows) == 0:
            break
        inside = root(direction)
        made = torch.zeros_like(right)
        made[rows] = product(inside[rows], rows)
        moved = direction + weight[:, None] * root(made)
        bent = (direction * moved).sum(1)
        length = torch.where(active & (bent > 0), size / bent, 0.0)
        if step == 0:  # of an indefinite system, what the first direction gives without the solve
            length = torch.where(active & (bent <= 0), torch.ones_like(length), length)
        z = z + length[:, None] * direction
        image = image + length[:, None] * made
        rest = rest - length[:, None] * moved
        after = rest.square().sum(1)
        active = active & (bent > 0) & (after > goal)
        direction = rest + torch.where(size > 0, after / size, 0.0)[:, None] * direction
        size = after
    return z, image
