"""Slow, literal versions of what the library computes: loops, brute force and closed forms."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def group_labels(shape: tuple[int, ...], size: Sequence[int], channels: str) -> Tensor:
    """The block of each entry of a sample, entry by entry; labels mean nothing but equality."""
    spatial = shape[1:] if len(shape) > 1 else shape
    names: dict[tuple[int, ...], int] = {}
    label = torch.zeros(shape, dtype=torch.long)
    for entry in itertools.product(*map(range, shape)):
        position = entry[-len(spatial) :]
        block = tuple(p // s for p, s in zip(position, size, strict=True))
        if channels == "separate" and len(shape) > 1:
            block = (entry[0], *block)
        label[entry] = names.setdefault(block, len(names))
    return label


def groups_of(label: Tensor) -> list[list[int]]:
    """The flat entries of each group."""
    found: dict[int, list[int]] = {}
    for entry, name in enumerate(label.flatten().tolist()):
        found.setdefault(name, []).append(entry)
    return list(found.values())


def soft(u: Tensor, threshold: float) -> Tensor:
    """sign(u) max(|u| - threshold, 0), one entry at a time."""
    out = [math.copysign(max(abs(v) - threshold, 0.0), v) for v in u.flatten().tolist()]
    return torch.tensor(out, dtype=u.dtype).reshape(u.shape)


def soft_groups(u: Tensor, threshold: float, label: Tensor) -> Tensor:
    """max(0, 1 - threshold / ||u_S||) u_S for each group S of one sample."""
    out = torch.zeros_like(u).flatten()
    flat = u.flatten()
    for entries in groups_of(label):
        norm = math.sqrt(sum(float(flat[i]) ** 2 for i in entries))
        for i in entries:
            out[i] = 0.0 if norm <= threshold else flat[i] * (1 - threshold / norm)
    return out.reshape(u.shape)


def group_norms(u: Tensor, label: Tensor) -> list[float]:
    flat = u.flatten().tolist()
    return [math.sqrt(sum(flat[i] ** 2 for i in entries)) for entries in groups_of(label)]


def zoomed_minimum(objective: Callable[[Tensor], Tensor], centre: Tensor, width: float) -> Tensor:
    """The minimiser `[2]` of a convex function of two numbers, by grids that close in on it.

    `objective` takes points `[N, 2]`. A grid is moved while its best point lies on its edge and
    shrunk otherwise.
    """
    offsets = torch.linspace(-1, 1, 21, dtype=torch.float64)
    grid = torch.cartesian_prod(offsets, offsets)
    best = centre.double()
    for _ in range(200):
        points = best + width * grid
        at = int(objective(points).argmin())
        edge = bool((grid[at].abs() == 1).any())
        best = points[at]
        width = width if edge else 0.3 * width
        if width < 1e-7:
            break
    return best


def quadratic_map(hessian: Tensor, slope: Tensor, x: Tensor, rho: float) -> Tensor:
    """MG = (I + rho H)^-1 (H x + b) of one sample."""
    eye = torch.eye(len(x), dtype=x.dtype)
    return torch.linalg.solve(eye + rho * hessian, hessian @ x + slope)


def moreau_map(
    gradient: Callable[[Tensor], Tensor],
    shrink: Callable[[Tensor, float], Tensor],
    x: Tensor,
    *,
    rho: float,
    eta: float,
    curvature: float,
    steps: int = 20_000,
) -> Tensor:
    """A = -u / rho of one sample by plain proximal gradient steps of 1 / (curvature + 1 / rho).

    `gradient` is that of the score at a point, `shrink(u, threshold)` the penalty's prox.
    """
    u, step = torch.zeros_like(x), 1 / (curvature + 1 / rho)
    for _ in range(steps):
        following = shrink(u - step * (gradient(x + u) + u / rho), step * eta)
        if torch.equal(following, u):
            break
        u = following
    return -u / rho


def lipschitz_bound(rho: float, lowest: float, highest: float) -> float:
    """L_S of docs/certificates.md: by how much a penalised map changes per unit of the input.

    `lowest` is lambda (largest negative curvature, as a positive number), `highest` is M.
    """
    margin = 1 - rho * lowest
    first = 0.5 * math.sqrt((highest + lowest) / (rho * margin)) + lowest / margin
    return min(first, max(highest, lowest) / margin)


def central_differences(function: Callable[[Tensor], Tensor], x: Tensor, step: float) -> Tensor:
    """d function / d x_i, last axis i, for one sample `x` `[n]` in float64."""
    columns = []
    for i in range(x.numel()):
        move = torch.zeros_like(x)
        move.view(-1)[i] = step
        columns.append((function(x + move) - function(x - move)) / (2 * step))
    return torch.stack(columns, dim=-1)
