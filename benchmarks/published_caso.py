"""The published routes to CASO, written out literally.

The yardstick of the benchmarks and an oracle in tests. Nothing is shared with the library. The
model takes pixels in [0, 1], as the released code's explainers do. Its L2 penalty is lambda2 / 2.

Source: Singla et al. (arXiv 1902.00407), appendix C (eigenvectors through the Jacobian), section
4 and appendix G (ten line-searched accelerated steps, ten power iterations), and the released code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

C1 = 10.0
ITERATIONS = 10
RATE, DECAY = 0.1, 0.5
MOST_HALVINGS = 60
"""The released code has no limit, and can go on for ever when rounding hides the descent."""


@dataclass(frozen=True, eq=False)
class Dense:
    """top: the largest eigenvalue; delta: the solution without lambda1, like the input."""

    top: float
    delta: Tensor


def dense_route(model: nn.Module, x: Tensor, target: int) -> Dense:
    """All rows of the Jacobian, one class at a time, then dense algebra in float64."""
    point = x.detach().clone().requires_grad_()
    logits = model(point)[0]
    rows = []
    for logit in logits:
        rows.append(torch.autograd.grad(logit, point, retain_graph=True)[0].flatten())
    jacobian = torch.stack(rows)
    p = logits.detach().double().softmax(0)
    root = p.sqrt()
    factor = torch.diag(root) - torch.outer(p, root)
    b = jacobian.T.double() @ factor
    values, inner = torch.linalg.eigh(b.T @ b)
    kept = values > 1e-10 * values[-1]
    u = b @ inner[:, kept] / values[kept].sqrt()
    pull = p.clone()
    pull[target] -= 1
    g = jacobian.T.double() @ pull
    twice = float(values[-1]) + 2 * C1
    weight = 1 / (twice - values[kept]) - 1 / twice
    delta = g / twice + u @ (weight * (u.T @ g))
    return Dense(float(values[-1]), delta.to(x.dtype).reshape(x.shape))


@dataclass(frozen=True, eq=False)
class Steps:
    """products: with the Hessian, those of the power iterations among them."""

    delta: Tensor
    top: float
    lambda2: float
    products: int


def ten_steps(model: nn.Module, x: Tensor, target: int, lambda1: float, start: Tensor) -> Steps:
    """lambda2 by ten power iterations from `start`, then ten accelerated steps from zero."""
    products = 0
    point = x.detach().clone().requires_grad_()
    loss = F.cross_entropy(model(point), torch.tensor([target]), reduction="sum")
    slope = torch.autograd.grad(loss, point, create_graph=True)[0]
    g = slope.detach()

    def hessian(v: Tensor) -> Tensor:
        nonlocal products
        products += 1
        return torch.autograd.grad(slope, point, v, retain_graph=True)[0].detach()

    vector, top = start / start.norm(), 0.0
    for _ in range(ITERATIONS):
        image = hessian(vector)
        top = float((vector * image).sum())
        vector = image / image.norm()
    lambda2 = top / 2 + C1

    def smooth(delta: Tensor) -> tuple[float, Tensor]:
        image = hessian(delta)
        value = -(g * delta).sum() - (delta * image).sum() / 2 + lambda2 * delta.square().sum()
        return float(value), 2 * lambda2 * delta - g - image

    delta = previous = torch.zeros_like(x)
    for k in range(1, ITERATIONS + 1):
        v = delta + (k - 2) / (k + 1) * (delta - previous)
        value, gradient = smooth(v)
        rate = RATE
        for _ in range(MOST_HALVINGS):
            moved = v - rate * gradient
            trial = moved.sign() * (moved.abs() - rate * lambda1).clamp_min(0)
            step = trial - v
            model_value = value + (gradient * step).sum() + step.square().sum() / (2 * rate)
            if smooth(trial)[0] <= float(model_value):
                break
            rate *= DECAY
        previous, delta = delta, trial
    return Steps(delta, top, lambda2, products)
