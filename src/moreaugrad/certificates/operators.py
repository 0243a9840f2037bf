"""Upper bounds of the spectral norms of linear operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDING = 1 + 1e-9
"""Of a norm in float64."""


def row_norms(weight: Tensor) -> Tensor:
    """`[K]`, float64: how fast each output of x -> weight x changes."""
    norms: Tensor = weight.detach().double().norm(dim=1).cpu()
    return norms * ROUNDING


def matrix_norm(weight: Tensor, scale: Tensor | None = None) -> float:
    """Of x -> scale * (weight x)."""
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
    """Of a convolution of inputs `[C, *size]` padded with zeros, two axes, times `scale` `[O]`.

    max over frequencies of the norm of the kernel's Fourier transform: a convolution with zeros
    around its input is a part of one that is periodic on a grid which holds input and kernel, and a
    part has no larger norm. With a stride s it is a convolution without one of the s x s
    interleaved phases of its input, which are an input in another order.
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
    """With the zeros between its entries."""
    sizes = [(k - 1) * by + 1 for k, by in zip(kernel.shape[2:], dilation, strict=True)]
    found = kernel.new_zeros(*kernel.shape[:2], *sizes)
    found[:, :, :: dilation[0], :: dilation[1]] = kernel
    return found
