"""Krylov methods: eigenvalues and linear systems of symmetric matrices known by products alone.

Each sample of a batch has its own matrix. Estimates of a score's curvature see one neighbourhood,
a finite number of noise samples and a Krylov subspace; none of them bounds what lies outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import lengths, spread
from moreaugrad.score.noise import Noise
from moreaugrad.settings import expect


class RitzSpace:
    """Orthonormal directions V `[B, k, n]`, H V, and V' H V `[B, k, k]` in float64.

    A zero direction marks a sample whose space did not grow; it has no effect.
    """

    def __init__(self, like: Tensor) -> None:
        batch, n = like.shape
        self.basis = like.new_zeros(batch, 0, n)
        self.images = self.basis
        self.small = torch.zeros(batch, 0, 0, dtype=torch.float64, device="cpu")

    @property
    def size(self) -> int:
        """Number of directions k."""
        return self.basis.shape[1]

    def direction(self, vector: Tensor) -> Tensor:
        """The part of a vector `[B, n]` orthogonal to V, of unit length; zero if there is none.

        A part below eps^(2/3) of the vector is taken for rounding.
        """
        least = torch.finfo(vector.dtype).eps ** (2 / 3) * lengths(vector)
        for _ in range(2):  # twice is enough
            vector = vector - self.combine(self.coefficients(vector))
        length = lengths(vector)
        new = length > least
        unit = vector / torch.where(new, length, 1.0)[:, None]
        return torch.where(new[:, None], unit, 0.0)

    def append(self, direction: Tensor, image: Tensor) -> None:
        """Adds a unit direction `[B, n]` orthogonal to the others, and H times it."""
        self.basis = torch.cat([self.basis, direction[:, None]], dim=1)
        self.images = torch.cat([self.images, image[:, None]], dim=1)
        column = self.coefficients(image)
        k = column.shape[1]
        grown = column.new_zeros(len(column), k, k)
        grown[:, :-1, :-1] = self.small
        grown[:, -1] = grown[:, :, -1] = column
        self.small = grown

    def coefficients(self, vector: Tensor) -> Tensor:
        """V' v: `[B, k]`, float64 on the CPU."""
        # One sample at a time, because batched products sum over n far less accurately.
        found = [part @ v for part, v in zip(self.basis, vector, strict=True)]
        return torch.stack(found).double().cpu()

    def combine(self, coefficients: Tensor) -> Tensor:
        """V c: `[B, n]`."""
        return _combined(self.basis, coefficients)

    def combine_images(self, coefficients: Tensor) -> Tensor:
        """H V c: `[B, n]`."""
        return _combined(self.images, coefficients)

    def times(self, coefficients: Tensor) -> Tensor:
        """(V' H V) c: `[B, k]`."""
        return (self.small @ coefficients[:, :, None])[:, :, 0]

    def solve(self, shift: Tensor, coefficients: Tensor) -> Tensor:
        """(shift - V' H V)^-1 c: `[B, k]`."""
        shifts = torch.diag_embed(shift.double().cpu()[:, None].expand(-1, self.size))
        found: Tensor = torch.linalg.solve(shifts - self.small, coefficients)
        return found

    def top(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The largest Ritz pair of each sample, and its accuracy.

        The value `[B]` in float64, at least 0; its unit vector `[B, n]`, zero if the value was
        negative; an estimate `[B]` of the distance to the next eigenvalue above, min(r, r^2 / gap)
        with r the residual's length and gap the distance to the next Ritz value; and the residual
        H v - value v, `[B, n]`.
        """
        values, vectors = torch.linalg.eigh(self.small)
        value, vector = values[:, -1], vectors[:, :, -1]
        axis = self.combine(vector)
        rest = self.combine_images(vector) - value.to(axis)[:, None] * axis
        axis = torch.where((value > 0).to(axis.device)[:, None], axis, 0.0)
        residual = rest.double().norm(dim=1).cpu()
        below = values[:, -2] if values.shape[1] > 1 else torch.zeros_like(value)
        gap = (value - below.clamp_min(0)).clamp_min(0)
        sharp = torch.where(gap > residual, residual.square() / gap, residual)
        error = torch.minimum(residual, sharp)
        return value.clamp_min(0), axis, error, rest


def _combined(vectors: Tensor, coefficients: Tensor) -> Tensor:
    weights = coefficients.to(vectors)
    return torch.stack([c @ v for v, c in zip(vectors, weights, strict=True)])


Product = Callable[[Tensor, Tensor], Tensor]
"""(v `[m, n]`, rows of its samples `[m]`) -> H v `[m, n]`."""


def shifted_solve(
    product: Product,
    root: Callable[[Tensor], Tensor],
    right: Tensor,
    weight: Tensor,
    tolerance: float,
    most: int,
) -> tuple[Tensor, Tensor]:
    """z and H R z, `[B, n]` each, with (I + weight R H R) z = R right, by conjugate gradients.

    root: v -> R v, symmetric, for all samples. weight: `[B]`. A sample stops when its residual is
    at most `tolerance` times R right, after `most` products, or when a direction of negative
    curvature shows that its system is not positive definite; it takes at least the first step,
    z = R right.
    H R z costs no further product.
    """
    z = torch.zeros_like(right)
    image = torch.zeros_like(right)
    rest = root(right)
    direction, size = rest.clone(), rest.square().sum(1)
    goal = tolerance**2 * size
    active = size > 0
    for step in range(most):
        rows = active.nonzero()[:, 0]
        if len(rows) == 0:
            break
        inside = root(direction)
        made = torch.zeros_like(right)
        made[rows] = product(inside[rows], rows)
        moved = direction + weight[:, None] * root(made)
        bent = (direction * moved).sum(1)
        length = torch.where(active & (bent > 0), size / bent, 0.0)
        if step == 0:  # an indefinite system keeps the first direction, unscaled
            length = torch.where(active & (bent <= 0), torch.ones_like(length), length)
        z = z + length[:, None] * direction
        image = image + length[:, None] * made
        rest = rest - length[:, None] * moved
        after = rest.square().sum(1)
        active = active & (bent > 0) & (after > goal)
        direction = rest + torch.where(size > 0, after / size, 0.0)[:, None] * direction
        size = after
    return z, image


PLAIN_RADIUS = 1e-2
"""Length of the secants for a score without noise, as a fraction of the input's range."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Curvature:
    """Estimated extreme eigenvalues of the score's Hessian, `[B]` each.

    Both lie inside the spectrum, so the true extremes are at least as far out. residual: there is
    an eigenvalue within this distance of each. evaluations: gradient evaluations for each sample.
    """

    lowest: Tensor
    highest: Tensor
    residual: Tensor
    evaluations: int

    @property
    def weak_convexity(self) -> Tensor:
        """lambda = max(0, -lowest): f + lambda/2 ||.||^2 is locally convex, as far as estimated."""
        return self.lowest.clamp_max(0).abs()


def estimate_curvature(bound: BoundScore, steps: int = 12, seed: int = 0) -> Curvature:
    """Lanczos with full re-orthogonalisation on the Hessian around the clean input.

    Hessian products are central differences of the score's (smoothed) gradient, with the same noise
    samples on both sides: a smoothed network with kinks has curvature although the second
    derivative at each noise sample is zero. The secants are as long as the noise level, or 1 % of
    the input's range without noise. Errors: ValueError for fewer than 2 steps.
    """
    expect(steps >= 2, "steps", "at least 2", steps)
    bound.check_exact()
    radius = _radius(bound)[:, None]
    vector = Noise(seed).draw(bound.keys, 0, bound.origin, bound.mask)
    vector = vector / vector.norm(dim=1, keepdim=True)
    basis, diagonal, off = [vector], [], []
    both = bound.select(bound.rows.repeat(2))  # the ends of a secant share their passes
    for _ in range(min(steps, bound.origin.shape[1])):
        step = radius * basis[-1]
        ahead, behind = both.value_and_grad(torch.cat([step, -step]))[1].chunk(2)
        product = (ahead - behind) / (2 * radius)
        diagonal.append((product * basis[-1]).sum(1))
        for _ in range(2):  # twice is enough
            for known in basis:
                product = product - (product * known).sum(1, keepdim=True) * known
        length = lengths(product)
        off.append(length)
        basis.append(product / length[:, None].clamp_min(torch.finfo(length.dtype).tiny))
    a, b = torch.stack(diagonal, 1).double().cpu(), torch.stack(off, 1).double().cpu()
    # A product of zero ends a sample's Krylov space; later entries must not couple to it.
    reached = (b > 1e-6 * a.abs().amax(1, keepdim=True)).cumprod(1)
    tail = torch.cat([torch.ones_like(a[:, :1]), reached[:, :-1].double()], dim=1)
    a = torch.where(tail > 0, a, a[:, :1])
    coupling = torch.diag_embed(b[:, :-1] * reached[:, :-1], 1)
    values, vectors = eigh(torch.diag_embed(a) + coupling + coupling.mT)
    ends = vectors[:, -1, [0, -1]].abs().amax(1) * b[:, -1] * reached[:, -1]
    like = bound.origin
    return Curvature(
        lowest=values[:, 0].to(like),
        highest=values[:, -1].to(like),
        residual=ends.to(like),
        evaluations=2 * len(diagonal) * bound.passes,
    )


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """`torch.linalg.eigh` of `[B, k, k]`; NaN of matrices that are not finite, which it refuses."""
    lost = ~torch.isfinite(matrices).flatten(1).all(1)[:, None, None]
    values, vectors = torch.linalg.eigh(matrices.masked_fill(lost, 0.0))
    return values.masked_fill(lost[:, 0], torch.nan), vectors.masked_fill(lost, torch.nan)


def _radius(bound: BoundScore) -> Tensor:
    width = spread(bound.origin, bound.mask)
    plain = PLAIN_RADIUS * torch.where(width > 0, width, 1.0)
    if bound.sigma is None:
        return plain
    level = bound.sigma.amax(1)
    return torch.where(level > 0, level, plain)
