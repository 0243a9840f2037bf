"""softplus_beta(t) = log(1 + exp(beta t)) / beta, a smooth function instead of ReLU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def softplus(t: Tensor, beta: float) -> Tensor:
    """softplus_beta, constant where its slope is below 2e-11 (in float64 2e-88): numbers near the
    smallest one, here and in later layers, would make passes on a CPU several times as slow."""
    return _softplus(t, beta)


def _lowest(t: Tensor) -> float:
    """The logarithm of the smallest slope that is not rounded to 0."""
    kind = torch.float64 if t.dtype == torch.float64 else torch.float32
    return math.log(torch.finfo(kind).tiny) / 3.5


def _slope(t: Tensor, beta: float) -> Tensor:
    return F.threshold(torch.sigmoid(beta * t), math.exp(_lowest(t)), 0.0)


class _Softplus(torch.autograd.Function):
    """Its derivatives of all orders are those of `_slope`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(t: Tensor, beta: float) -> Tensor:
        # By torch's own threshold, 20, it would be less smooth than its slope.
        return F.softplus(t.clamp_min(_lowest(t) / beta), beta, threshold=40)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        t, ctx.beta = inputs
        ctx.slope = None
        ctx.save_for_backward(t)
        ctx.save_for_forward(t)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None]:
        (t,) = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return given * (_slope(t, ctx.beta) if ctx.slope is None else ctx.slope), None
        slope = _slope(t, ctx.beta)
        # The second backward pass comes here again, after the gradient's own graph.
        ctx.slope = slope.detach()
        return given * slope, None

    @staticmethod
    def jvp(ctx: Any, direction: Tensor, _: None) -> Tensor:
        (t,) = ctx.saved_tensors
        return direction * _slope(t, ctx.beta)


_softplus: Callable[[Tensor, float], Tensor] = _Softplus.apply
