"""A smooth stand-in for a network with kinks, for second derivatives that are not zero.

A ReLU network's logits are piecewise linear: their second derivative is zero wherever it exists,
and an attack that follows it finds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Smooth = Callable[[Tensor, float], Tensor]


def softplus_surrogate(model: nn.Module, beta: float) -> SoftplusSurrogate:
    """The model with every ReLU replaced by softplus_beta(t) = log(1 + exp(beta t)) / beta.

    Parameters and buffers are the model's own. Modules and functions are replaced alike: relu,
    relu6, leaky_relu, and a clamp at 0 from below. Max-pooling keeps its kinks.
    beta: as it grows, the function goes to the model's own, and its curvature to infinity.
    Errors: ValueError for beta, and, at the first call, for a model in which nothing is replaced.
    Source: Dombrowski et al. (2019).
    """
    return SoftplusSurrogate(model, beta)


class SoftplusSurrogate(nn.Module):
    """See `softplus_surrogate`."""

    def __init__(self, model: nn.Module, beta: float) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"model: expected a torch.nn.Module, got {type(model).__name__}: wrap a function "
                "in a module"
            )
        if not 0 < beta < math.inf:
            raise ValueError(f"beta: expected a finite number > 0, got {beta!r}")
        self.model, self.beta = model, beta
        self.training = model.training  # and not train(), which would set that of all parts

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _Softplus(self.beta) as replaced:
            output = self.model(*args, **kwargs)
        if replaced.count == 0:
            raise ValueError(
                "model: expected ReLU activations, found none to replace: a network that is smooth "
                "already is its own surrogate; another kind of kink has none here"
            )
        return output

    def extra_repr(self) -> str:
        return f"beta={self.beta:g}"


def _relu(t: Tensor, beta: float) -> Tensor:
    return F.softplus(t, beta=beta)


class _Softplus(TorchFunctionMode):
    """While open, in this thread, calls that make a ReLU make a softplus instead."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta, self.count = beta, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        smooth = _smooth(func, args, given)
        if smooth is None:
            return func(*args, **given)
        self.count += 1
        t = args[0] if args else given["input"]
        if not _in_place(func, args, given):
            return smooth(t, self.beta)
        return t.copy_(smooth(t.clone(), self.beta))


RELUS = {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
LEAKY = {F.leaky_relu, F.leaky_relu_}
CLAMPS = {
    torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clamp_min, torch.clamp_min_,
    Tensor.clamp_min, Tensor.clamp_min_,
}  # fmt: skip
INPLACE = {F.relu: 1, F.relu6: 1, F.leaky_relu: 2, F.hardtanh: 3}
"""Where the argument `inplace` stands."""


def _smooth(func: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> Smooth | None:
    if func in RELUS or (func in CLAMPS and _clamps_at_zero(args, given)):
        return _relu
    if func is F.relu6:
        return _cut(6.0)
    if func is F.hardtanh:  # torch.nn.ReLU6 calls it
        low = given.get("min_val", args[1] if len(args) > 1 else -1.0)
        high = given.get("max_val", args[2] if len(args) > 2 else 1.0)
        return _cut(high) if low == 0 else None
    if func in LEAKY:
        slope = given.get("negative_slope", args[1] if len(args) > 1 else 0.01)
        return lambda t, beta: slope * t + (1 - slope) * _relu(t, beta)
    return None


def _cut(high: float) -> Smooth:
    """Of min(max(t, 0), high)."""
    return lambda t, beta: _relu(t, beta) - _relu(t - high, beta)


def _clamps_at_zero(args: tuple[Any, ...], given: Mapping[str, Any]) -> bool:
    low = given.get("min", args[1] if len(args) > 1 else None)
    high = given.get("max", args[2] if len(args) > 2 else None)
    return high is None and not isinstance(low, Tensor) and low == 0


def _in_place(func: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> bool:
    """What reads the argument afterwards has to find the result there."""
    at = INPLACE.get(func)
    if at is None:
        return str(func.__name__).endswith("_")
    return bool(given.get("inplace", args[at] if len(args) > at else False))
