"""Layers as functions of their input alone, whose second derivatives cost nothing for the weights.

In a second backward pass torch computes the part of a convolution's weights too, whether or not it
is asked for; that is about as much work as the rest of the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moreaugrad.score.kinks import Rules, computed_again


class _Convolution(torch.autograd.Function):
    """A convolution `[B, C, ...]`, differentiated by its input alone."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        function: Callable[..., Tensor], input: Tensor, weight: Tensor, bias: Tensor | None,
        *settings: Any,
    ) -> Tensor:  # fmt: skip
        return function(input, weight, bias, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function, input, weight, _, *ctx.settings = inputs
        ctx.shape = input.shape
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        found = _transposed(ctx.function, slope, weight, ctx.shape, *ctx.settings)
        return None, found, None, None, *[None] * len(ctx.settings)


class _Transposed(torch.autograd.Function):
    """The derivative of `_Convolution`; it is linear, and its transpose is the convolution."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        function: Callable[..., Tensor], slope: Tensor, weight: Tensor, shape: torch.Size,
        stride: list[int], padding: list[int], dilation: list[int], groups: int,
    ) -> Tensor:  # fmt: skip
        # Of the input only the shape counts.
        like = slope.new_empty(1).expand(shape)
        found: Tensor = torch.ops.aten.convolution_backward(
            slope, like, weight, None, stride, padding, dilation, False, [0] * len(stride), groups,
            [True, False, False],
        )[0]  # fmt: skip
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function, _, weight, _, *ctx.settings = inputs
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        found = _convolution(ctx.function, slope, weight, None, *ctx.settings)
        return None, found, None, None, *[None] * len(ctx.settings)


_convolution: Callable[..., Tensor] = _Convolution.apply
_transposed: Callable[..., Tensor] = _Transposed.apply


def _per_axis(value: int | Sequence[int], axes: int) -> list[int]:
    """A setting of a convolution for each axis, from one for all or from its own list."""
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _convolved(
    function: Callable[..., Tensor], input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Any:  # fmt: skip
    if isinstance(padding, str) or input.ndim != weight.ndim or not _fixed(input, weight, bias):
        return NotImplemented
    fixed = None if bias is None else bias.detach()
    each = [_per_axis(value, weight.ndim - 2) for value in (stride, padding, dilation)]
    return _convolution(function, input, weight.detach(), fixed, *each, groups)


def _normalised(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """By known statistics it is a factor and a summand for each channel."""
    if training or running_mean is None or running_var is None:
        return NotImplemented
    if not _fixed(input, running_mean, running_var, weight, bias):
        return NotImplemented
    factor = torch.rsqrt(running_var + eps)
    if weight is not None:
        factor = factor * weight.detach()
    summand = -running_mean * factor
    if bias is not None:
        summand = summand + bias.detach()
    channels = (-1, *[1] * (input.ndim - 2))
    return torch.addcmul(summand.reshape(channels), input, factor.reshape(channels))


def _fixed(input: Tensor, *weights: Tensor | None) -> bool:
    """Whether a layer is differentiated by its input, and its weights, of the input's type, are not
    computed from anything."""
    given = [weight for weight in weights if weight is not None]
    return (
        torch.is_grad_enabled()
        and input.requires_grad
        and all(weight.is_leaf and weight.dtype == input.dtype for weight in given)
        and not torch.is_autocast_enabled(input.device.type)
        and not computed_again()
    )


FIXED_WEIGHTS: Rules = {
    **{f: partial(_convolved, f) for f in (torch.conv1d, torch.conv2d, torch.conv3d)},
    F.batch_norm: _normalised,
}
"""Functions with weights, and the same functions of the input alone."""
