"""Activations with kinks: the functions that compute them, and what is known of their derivative.

A function is met wherever a network calls it, as a module, a function or a tensor's method, so that
reused and functional activations count too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from moreaugrad.score.checks import ModelError
from moreaugrad.score.softplus import softplus

Rules = Mapping[Callable[..., Any], Callable[..., Any]]


def computed_again() -> bool:
    """Whether a backward pass computes again what is computed now (torch.utils.checkpoint)."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            return True
    return False


class Replaced(TorchFunctionMode):
    """While open, in this thread, calls of the functions in `rules` go to their replacements.

    A replacement takes the function's arguments; it returns NotImplemented to leave a call alone.
    `count` is the number of calls that were replaced.
    Errors: ModelError for a call that a backward pass would compute again, without the rules.
    """

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.rules, self.count = rules, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        found = self.rules[func](*args, **given) if func in self.rules else NotImplemented
        if found is NotImplemented:
            return func(*args, **given)
        if computed_again():
            raise ModelError(
                "expected a network that keeps its activations, got one that computes them again "
                "in the backward pass (torch.utils.checkpoint), where its "
                f"{func.__name__} cannot be replaced: switch that off"
            )
        self.count += 1
        return found


@dataclass(frozen=True, eq=False)
class Activation:
    """An elementwise function phi whose derivative is a + b t on each piece between its kinks."""

    kinks: tuple[float, ...]
    """Where the derivative jumps, in ascending order."""
    slopes: tuple[tuple[float | Tensor, float], ...]
    """(a, b) below the first kink, between the kinks, and above the last one."""
    first: float = 0.0
    """phi at the first kink."""

    def mean_slope(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """E phi'(t) for t ~ N(mean, deviation^2), entry by entry.

        E phi'(t) is that of the first piece, and for each kink k the jump there, da + db t, times
        1 for t > k: da + db mean times Phi(z), plus db deviation n(z), with z = (mean - k) /
        deviation, Phi the normal distribution and n its density.
        """
        width = deviation.clamp_min(torch.finfo(mean.dtype).tiny ** 0.5)
        (a, b), *_ = self.slopes
        found = torch.zeros_like(mean) + a + (b * mean if b else 0.0)
        for kink, (a, b), (c, d) in zip(self.kinks, self.slopes, self.slopes[1:], strict=False):
            z = (mean - kink) / width
            above = torch.erf(z / math.sqrt(2)).add_(1).div_(2)
            found = found + above * (c - a + (d - b) * mean if b != d else c - a)
            if b != d:
                found = found + (d - b) * width * torch.exp(-z.square() / 2) / SQRT_TAU
        return found

    def softened(self, t: Tensor, beta: float) -> Tensor:
        """phi with softplus_beta for the jumps of its derivative, which is constant on pieces."""
        steepness = [a for a, _ in self.slopes]
        found: Tensor | float = self.first + _times(steepness[0], t - self.kinks[0])
        for kink, before, after in zip(self.kinks, steepness, steepness[1:], strict=False):
            found = found + _times(after - before, softplus(t - kink if kink else t, beta))
        assert isinstance(found, Tensor)
        return found


def _times(slope: float | Tensor, t: Tensor) -> Tensor | float:
    """Their product, without operations that change nothing: each has derivatives of its own."""
    if isinstance(slope, Tensor) or slope not in (0, 1):
        return slope * t
    return t if slope else 0.0


SQRT_TAU = math.sqrt(2 * math.pi)

Call = tuple[Tensor, Activation, bool]
"""The input of a call, the activation, and whether the result is written into the input."""

RELU = Activation((0.0,), ((0.0, 0.0), (1.0, 0.0)))
HARDSIGMOID = Activation((-3.0, 3.0), ((0.0, 0.0), (1 / 6, 0.0), (0.0, 0.0)))
HARDSWISH = Activation((-3.0, 3.0), ((0.0, 0.0), (0.5, 1 / 3), (1.0, 0.0)))


def _fixed(activation: Activation, input: Tensor, inplace: bool = False) -> Call:
    return input, activation, inplace


def _leaky(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Call:
    return input, Activation((0.0,), ((negative_slope, 0.0), (1.0, 0.0))), inplace


def _prelu(input: Tensor, weight: Tensor) -> Call:
    own = weight.detach()
    slope = own.reshape(-1, *[1] * (input.ndim - 2)) if own.numel() > 1 else own.reshape(())
    return input, Activation((0.0,), ((slope, 0.0), (1.0, 0.0))), False


def _clamp(input: Tensor, min: Any = None, max: Any = None, inplace: bool = False) -> Any:
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return NotImplemented
    ends = [end for end in (min, max) if end is not None]
    slopes = [0.0, 1.0] if min is not None else [1.0]
    slopes += [0.0] if max is not None else []
    return input, Activation(tuple(ends), tuple((a, 0.0) for a in slopes), ends[0]), inplace


def _hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Any:
    return _clamp(input, min_val, max_val, inplace)


def _clamp_max(input: Tensor, max: Any, inplace: bool = False) -> Any:
    return _clamp(input, None, max, inplace)


_PLAIN: Mapping[Callable[..., Any], tuple[Any, ...]] = {
    partial(_fixed, RELU): (F.relu, torch.relu, Tensor.relu),
    partial(_fixed, HARDSIGMOID): (F.hardsigmoid,),
    partial(_fixed, HARDSWISH): (F.hardswish,),
    partial(_hardtanh, min_val=0.0, max_val=6.0): (F.relu6,),
    _leaky: (F.leaky_relu,),
    _prelu: (F.prelu, torch.prelu, Tensor.prelu),
    _hardtanh: (F.hardtanh,),  # torch.nn.ReLU6 calls it
    _clamp: (torch.clamp, Tensor.clamp, torch.clip, Tensor.clip, torch.clamp_min, Tensor.clamp_min),
    _clamp_max: (torch.clamp_max, Tensor.clamp_max),
}
_IN_PLACE: Mapping[Callable[..., Any], tuple[Any, ...]] = {
    partial(_fixed, RELU): (F.relu_, torch.relu_, Tensor.relu_),
    _leaky: (F.leaky_relu_,),
    _hardtanh: (F.hardtanh_,),
    _clamp: (torch.clamp_, Tensor.clamp_, torch.clip_, Tensor.clip_, torch.clamp_min_,
             Tensor.clamp_min_),
    _clamp_max: (torch.clamp_max_, Tensor.clamp_max_),
}  # fmt: skip

ACTIVATIONS: Rules = {function: read for read, found in _PLAIN.items() for function in found} | {
    function: partial(read, inplace=True) for read, found in _IN_PLACE.items() for function in found
}
"""Functions of torch, and what reads a `Call` from their arguments: NotImplemented if it cannot."""
