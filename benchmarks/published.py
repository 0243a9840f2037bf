"""The published MoreauGrad algorithm, written out literally.

The yardstick of the benchmarks and an oracle in tests. It follows the authors' released code where
that differs from the paper: the noise level is taken from the range of the *current* point over the
whole tensor, and the output is the mean of the last 101 displacements, signed and not divided by
rho. Nothing is shared with the library, so that the two can be held against each other.

Source: Zhang and Farnia, MoreauGrad (arXiv 2302.05294), Algorithm 1, and its released code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Noise = Callable[[int, tuple[int, ...]], Tensor]
"""(step, shape [m, C, H, W]) -> standard normal draws of that shape."""


def published_moreaugrad(
    model: nn.Module,
    x: Tensor,
    target: int,
    *,
    rho: float = 1.0,
    eta: float = 5e-3,
    group: int | None = None,
    gamma: float = 0.1,
    sigma: float = 0.1,
    steps: int = 300,
    samples: int = 32,
    average_last: int = 101,
    noise: Noise | None = None,
) -> Tensor:
    """Mean of the last displacements x_t - x, [1, C, H, W]: about -rho times the library's map.

    `x` is one image [1, C, H, W]. `group=None` is the sparse variant, `group=14` the group-sparse
    one with all channels of a 14 x 14 patch in one group (published with eta = 5e-2). sigma = 0
    with samples = 1 leaves the noise out. Cost: steps * samples gradient evaluations.
    """
    if x.ndim != 4 or x.shape[0] != 1:
        raise ValueError(f"expected one image [1, C, H, W], got shape {tuple(x.shape)}")
    x = x.detach()
    x_t = x.clone()
    shrink = _shrink if group is None else _shrink_groups(group)
    displacements: list[Tensor] = []
    for step in range(steps):
        gradient = _noisy_gradient(model, x_t, target, sigma, samples, step, noise)
        x_t = x_t - gamma * (gradient + (x_t - x) / rho)
        x_t = x + shrink(x_t - x, gamma * eta)
        displacements.append(x_t - x)
    return torch.stack(displacements[-average_last:]).mean(dim=0)


def _noisy_gradient(
    model: nn.Module,
    x_t: Tensor,
    target: int,
    sigma: float,
    samples: int,
    step: int,
    noise: Noise | None,
) -> Tensor:
    """Gradient at x_t of the mean target logit over `samples` noisy copies, [1, C, H, W]."""
    level = sigma * (x_t.max() - x_t.min())
    shape = (samples, *x_t.shape[1:])
    z = noise(step, shape) if noise else torch.randn(shape, dtype=x_t.dtype, device=x_t.device)
    with torch.enable_grad():
        point = x_t.clone().requires_grad_(True)
        stacked = point.repeat(samples, 1, 1, 1) + level * z
        score = model(stacked)[:, target].mean()
        (gradient,) = torch.autograd.grad(score, point)
    return gradient


def _shrink(d: Tensor, threshold: float) -> Tensor:
    """Soft threshold: sign(d) max(|d| - threshold, 0)."""
    return d.sign() * (d.abs() - threshold).clamp(min=0)


def _shrink_groups(size: int) -> Callable[[Tensor, float], Tensor]:
    """Group soft threshold over size x size patches, all channels together."""

    def shrink(d: Tensor, threshold: float) -> Tensor:
        _, channels, height, width = d.shape
        if height % size or width % size:
            raise ValueError(f"height and width must be multiples of {size}: {height} x {width}")
        patches = d.reshape(channels, height // size, size, width // size, size)
        norm = patches.square().sum(dim=(0, 2, 4), keepdim=True).sqrt()
        scale = (1 - threshold / norm.clamp(min=torch.finfo(d.dtype).tiny)).clamp(min=0)
        return (patches * scale).reshape_as(d)

    return shrink
