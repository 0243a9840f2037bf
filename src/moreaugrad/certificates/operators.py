"""Linear operators: what they act on, and upper bounds of their spectral norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDING = 1 + 1e-9
"""By which a norm is enlarged, for rounding in float64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Varying:
    """A value that depends on the input: it changes by at most `speed` times the input's change.

    like: a tensor of the value's shape and type, without data; several for several outputs.
    """

    speed: float
    like: Any


Arguments = Mapping[str, Any]
"""By the names of the operator's schema; those that depend on the input are `Varying`."""
Rule = Callable[[Arguments, Any], float]
"""(arguments, a tensor of the output's shape) -> the output's speed. Errors: ValueError for
settings for which no bound is known."""


def varying(value: object) -> Iterator[Varying]:
    """All values that depend on the input; twice those that are given twice."""
    if isinstance(value, Varying):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from varying(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from varying(item)


def one(arguments: Arguments, name: str = "") -> Varying:
    """The only argument that depends on the input: the first, or that of this name."""
    found: Varying = arguments[name or next(iter(arguments))]
    if [each is found for each in varying(arguments)] != [True]:
        raise ValueError(
            "expected a single operand that depends on the input, and settings that do not"
        )
    return found


def slope(
    factor: float | Callable[[Arguments], float],
    known: Callable[[Arguments], bool] = lambda _: True,
    expected: str = "",
) -> Rule:
    """The rule of an operator of one operand, which it changes `factor` times as fast.

    known: whether the factor is valid for these arguments. expected: such arguments in words.
    """

    def rule(a: Arguments, like: Any) -> float:
        if not known(a):
            given = {k: v for k, v in a.items() if not isinstance(v, (Tensor, Varying))}
            raise ValueError(f"expected {expected}, got {given}")
        return one(a).speed * (factor(a) if callable(factor) else factor)

    return rule


def weight_of(name: str, a: Arguments) -> Tensor | None:
    """The matrix W of an operator x -> x W' + b, where it is one."""
    if name == "linear":
        found = a["weight"]
    elif name == "addmm" and a["beta"] == a["alpha"] == 1:
        found = a["mat2"]
    elif name in ("mm", "matmul"):
        found = a["mat2" if name == "mm" else "other"]
    else:
        return None
    if not isinstance(found, Tensor) or found.ndim != 2:
        return None
    return found if name == "linear" else found.mT


def operand_of(name: str, a: Arguments) -> Varying:
    """What a linear operator or a convolution acts on."""
    return one(a, {"linear": "input", "conv1d": "input", "conv2d": "input", "convolution": "input",
                   "addmm": "mat1"}.get(name, "self"))  # fmt: skip


def convolution(a: Arguments, scale: Tensor | None = None) -> float:
    """Of a convolution of one or two axes; scale: of the batch normalisation that follows."""
    weight, size = a["weight"], one(a, "input").like.shape
    axes = weight.ndim - 2
    if a.get("transposed") or axes not in (1, 2):
        raise ValueError("expected a convolution of one or two axes, not transposed")
    size = size[-axes:]
    stride, dilation = (per_axis(a[name], axes) for name in ("stride", "dilation"))
    padding = a["padding"]
    if padding == "same":
        padding = [(k - 1) * by for k, by in zip(weight.shape[2:], dilation, strict=True)]
    padding = per_axis(0 if padding == "valid" else padding, axes)
    if axes == 1:
        weight, size = weight.unsqueeze(2), (1, *size)
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    return one(a, "input").speed * convolution_norm(
        weight, size, stride=stride, padding=padding, dilation=dilation, groups=a["groups"],
        scale=scale,
    )  # fmt: skip


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """A setting for each axis; one number is for all of them."""
    found = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return found * axes if len(found) == 1 else found


def normalisation_scale(a: Arguments) -> Tensor:
    """By what a batch normalisation multiplies each channel, `[C]` in float64."""
    if a.get("training") or a["running_var"] is None:
        raise ValueError("expected batch normalisation with running statistics")
    scale: Tensor = (a["running_var"].detach().double() + a["eps"]).rsqrt()
    return scale if a["weight"] is None else scale * a["weight"].detach().double()


def row_norms(weight: Tensor) -> Tensor:
    """How fast each output of x -> weight x changes, `[K]` in float64."""
    norms: Tensor = weight.detach().double().norm(dim=1).cpu()
    return norms * ROUNDING


def matrix_norm(weight: Tensor, scale: Tensor | None = None) -> float:
    """The spectral norm of x -> scale * (weight x)."""
    return float(torch.linalg.matrix_norm(_scaled(weight, scale), 2)) * ROUNDING


def convolution_norm(
    weight: Tensor,
    size: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    scale: Tensor | None = None,
) -> float:
    """A bound for convolutions of inputs `[C, *size]` padded with zeros, times `scale` `[O]`.

    It is the maximum over frequencies of the norm of the kernel's Fourier transform: a convolution
    with zeros around its input is a part of a periodic one on a grid that holds input and kernel,
    and a part has no larger norm. With a stride s it is a convolution of stride 1 of the s x s
    interleaved phases of its input, which have the same entries in another order.
    """
    kernel = _dilated(_scaled(weight, scale), dilation)
    sizes = kernel.shape[2:]
    phases = [-(-extent // by) for extent, by in zip(sizes, stride, strict=True)]
    kernel = F.pad(
        kernel, (0, phases[1] * stride[1] - sizes[1], 0, phases[0] * stride[0] - sizes[0])
    )
    out, inside = kernel.shape[:2]
    kernel = kernel.reshape(out, inside, phases[0], stride[0], phases[1], stride[1])
    kernel = kernel.permute(0, 1, 3, 5, 2, 4).reshape(out, -1, *phases)
    grid = [-(-(size[i] + 2 * padding[i]) // stride[i]) + phases[i] for i in (0, 1)]
    largest = 0.0
    for group in kernel.reshape(groups, out // groups, -1, *phases):
        spectrum = torch.fft.rfft2(group, s=grid).flatten(2).permute(2, 0, 1)
        small = spectrum if spectrum.shape[1] <= spectrum.shape[2] else spectrum.mH
        gram = small @ small.mH
        largest = max(largest, float(torch.linalg.eigvalsh(gram)[:, -1].amax()))
    return math.sqrt(max(0.0, largest)) * ROUNDING


def _scaled(weight: Tensor, scale: Tensor | None) -> Tensor:
    weight = weight.detach().double()
    if scale is None:
        return weight
    return weight * scale.to(weight).view(-1, *[1] * (weight.ndim - 1))


def _dilated(kernel: Tensor, dilation: Sequence[int]) -> Tensor:
    """The kernel with zeros between its entries."""
    sizes = [(k - 1) * by + 1 for k, by in zip(kernel.shape[2:], dilation, strict=True)]
    found = kernel.new_zeros(*kernel.shape[:2], *sizes)
    found[:, :, :: dilation[0], :: dilation[1]] = kernel
    return found
