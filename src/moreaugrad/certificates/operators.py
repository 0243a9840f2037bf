"""Upper bounds of the spectral norms of a network's operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, ...]
Rule = Callable[[Any, Shape, "nn.Module | None"], float]
"""module, the shape of its input without the batch, the batch normalisation that follows."""

ROUNDING = 1 + 1e-9
"""Of a norm in float64."""
SILU, GELU = 1.09984, 1.12905
"""The largest slopes, rounded up: of x sigmoid(x) at 2.3994, and of x Phi(x) at sqrt 2, whose
approximation by tanh has 1.12900."""


class Unknown(ValueError):
    """A setting for which no bound is known."""


def row_norms(module: nn.Linear) -> Tensor:
    """`[K]`, float64: how fast each output changes."""
    norms: Tensor = module.weight.detach().double().norm(dim=1).cpu()
    return norms * ROUNDING


def _linear(module: nn.Linear, shape: Shape, after: nn.Module | None) -> float:
    weight = _scaled(module.weight.detach().double(), after)
    return float(torch.linalg.matrix_norm(weight, 2)) * ROUNDING


def _convolution(module: nn.Conv2d, shape: Shape, after: nn.Module | None) -> float:
    """max over frequencies of the norm of the kernel's Fourier transform.

    A convolution with zeros around its input is a part of one that is periodic on a grid which
    holds input and kernel, and a part has no larger norm. With a stride s it is a convolution
    without one of the s x s interleaved phases of its input, which are an input in another order.
    """
    if module.padding_mode != "zeros":
        raise Unknown(f"expected padding with zeros, got {module.padding_mode!r}")
    if tuple(module.dilation) != (1, 1):
        raise Unknown(f"expected dilation 1, got {module.dilation}")
    kernel = _scaled(module.weight.detach().double(), after)
    step, sizes = tuple(module.stride), tuple(kernel.shape[2:])
    phases = [-(-size // by) for size, by in zip(sizes, step, strict=True)]
    kernel = F.pad(kernel, (0, phases[1] * step[1] - sizes[1], 0, phases[0] * step[0] - sizes[0]))
    out, inside = kernel.shape[:2]
    kernel = kernel.reshape(out, inside, phases[0], step[0], phases[1], step[1])
    kernel = kernel.permute(0, 1, 3, 5, 2, 4).reshape(out, -1, *phases)
    padding = _padding(module)
    grid = [
        -(-(shape[1 + axis] + 2 * padding[axis]) // step[axis]) + phases[axis] for axis in (0, 1)
    ]
    largest = 0.0
    for group in kernel.reshape(module.groups, out // module.groups, -1, *phases):
        spectrum = torch.fft.rfft2(group, s=grid).flatten(2).permute(2, 0, 1)
        small = spectrum if spectrum.shape[1] <= spectrum.shape[2] else spectrum.mH
        gram = small @ small.mH
        largest = max(largest, float(torch.linalg.eigvalsh(gram)[:, -1].amax()))
    return math.sqrt(max(0.0, largest)) * ROUNDING


def _padding(module: nn.Conv2d) -> tuple[int, int]:
    if isinstance(module.padding, str):
        total = [size - 1 if module.padding == "same" else 0 for size in module.kernel_size]
        return total[0], total[1]
    return module.padding[0], module.padding[1]


def _scaled(weight: Tensor, after: nn.Module | None) -> Tensor:
    """With the batch normalisation that follows."""
    if after is None:
        return weight
    scale = _scales(after).to(weight.device)
    return weight * scale.view(-1, *[1] * (weight.ndim - 1))


def _scales(module: Any) -> Tensor:
    if module.running_var is None:
        raise Unknown("expected running statistics")
    scale: Tensor = (module.running_var.detach().double() + module.eps).rsqrt()
    return scale if module.weight is None else scale * module.weight.detach().double()


def _batch_norm(module: Any, shape: Shape, after: nn.Module | None) -> float:
    return float(_scales(module).abs().amax()) * ROUNDING


def _max_pool(module: nn.MaxPool2d, shape: Shape, after: nn.Module | None) -> float:
    """The root of the number of windows that an entry lies in: each may hand on the same one."""
    if module.dilation not in (1, (1, 1)):
        raise Unknown(f"expected dilation 1, got {module.dilation}")
    kernel, step = _both(module.kernel_size), _both(module.stride or module.kernel_size)
    return math.sqrt(math.prod(-(-k // s) for k, s in zip(kernel, step, strict=True)))


def _average_pool(module: nn.AvgPool2d, shape: Shape, after: nn.Module | None) -> float:
    """A mean of k entries has norm 1 / sqrt k, times the root of the windows of an entry."""
    kernel, step = _both(module.kernel_size), _both(module.stride or module.kernel_size)
    if module.divisor_override is not None or not module.count_include_pad or module.ceil_mode:
        raise Unknown("expected means of whole windows, over the padding too")
    windows = math.prod(-(-k // s) for k, s in zip(kernel, step, strict=True))
    return math.sqrt(windows / math.prod(kernel))


def _adaptive_pool(module: nn.AdaptiveAvgPool2d, shape: Shape, after: nn.Module | None) -> float:
    """Only where its windows are equal and do not overlap."""
    size = [
        have if wanted is None else wanted
        for wanted, have in zip(_both(module.output_size), shape[1:], strict=True)
    ]
    if any(have % wanted for wanted, have in zip(size, shape[1:], strict=True)):
        raise Unknown(f"expected an output that divides the input {shape[1:]}, got {size}")
    return math.sqrt(math.prod(size) / math.prod(shape[1:]))


def _both(value: Any) -> tuple[Any, Any]:
    return (value[0], value[1]) if isinstance(value, (tuple, list)) else (value, value)


def _slope(value: float) -> Rule:
    return lambda module, shape, after: value


MODULES: Mapping[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.LeakyReLU: lambda module, shape, after: max(1.0, abs(module.negative_slope)),
    nn.ELU: lambda module, shape, after: max(1.0, abs(module.alpha)),
    nn.SiLU: _slope(SILU),
    nn.GELU: _slope(GELU),
    nn.Sigmoid: _slope(0.25),
    **dict.fromkeys(
        (nn.ReLU, nn.ReLU6, nn.Softplus, nn.Tanh, nn.Identity, nn.Dropout, nn.Dropout2d,
         nn.Flatten, nn.Unflatten),
        _slope(1.0),
    ),
}  # fmt: skip
