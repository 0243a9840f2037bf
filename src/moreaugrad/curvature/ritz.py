"""What is known of each sample's symmetric matrix H from its products with a few directions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class TopPair:
    """Largest Ritz value `[B]`, at least 0, its `vector` `[B, n]` of unit length (zero where the
    value was negative), and `error` `[B]`, how far below an eigenvalue it is.

    The error is min(r, r^2 / gap), gap the distance to the next value and r the length of `rest`
    `[B, n]`, the pair's residual: what its vector lacks to be an eigenvector.
    """

    value: Tensor
    vector: Tensor
    error: Tensor
    rest: Tensor


class RitzSpace:
    """Orthonormal directions V `[B, k, n]`, H V, and V' H V `[B, k, k]` in float64.

    A zero direction stands for "nothing new here"; it takes no part.
    """

    def __init__(self, like: Tensor) -> None:
        batch, n = like.shape
        self.basis = like.new_zeros(batch, 0, n)
        self.images = self.basis
        self.small = torch.zeros(batch, 0, 0, dtype=torch.float64)

    @property
    def size(self) -> int:
        """k, the number of directions."""
        return self.basis.shape[1]

    def direction(self, vector: Tensor) -> Tensor:
        """What is new in a vector `[B, n]`, of unit length; zero where there is nothing.

        Less than eps^(2/3) of it would be the rounding of the rest.
        """
        least = torch.finfo(vector.dtype).eps ** (2 / 3) * vector.norm(dim=1)
        for _ in range(2):  # twice is enough
            vector = vector - self.combine(self.coefficients(vector))
        length = vector.norm(dim=1)
        new = length > least
        unit = vector / torch.where(new, length, 1.0)[:, None]
        return torch.where(new[:, None], unit, 0.0)

    def append(self, direction: Tensor, image: Tensor) -> None:
        """A unit direction `[B, n]` orthogonal to the others, and H times it."""
        self.basis = torch.cat([self.basis, direction[:, None]], dim=1)
        self.images = torch.cat([self.images, image[:, None]], dim=1)
        column = self.coefficients(image)
        k = column.shape[1]
        grown = column.new_zeros(len(column), k, k)
        grown[:, :-1, :-1] = self.small
        grown[:, -1] = grown[:, :, -1] = column
        self.small = grown

    def coefficients(self, vector: Tensor) -> Tensor:
        """V' v: `[B, k]`, float64 on the processor."""
        # One sample at a time: sums over n in batched products are far less accurate.
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

    def gram(self, entries: Tensor) -> Tensor:
        """V' V over some of the entries `[B, n]`: `[B, k, k]`."""
        found = [(v * kept) @ v.T for v, kept in zip(self.basis, entries, strict=True)]
        return torch.stack(found).double().cpu()

    def top(self) -> TopPair:
        """The largest eigenvalue as far as the space shows it, `[B]` each, float64."""
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
        return TopPair(value=value.clamp_min(0), vector=axis, error=error, rest=rest)


def _combined(vectors: Tensor, coefficients: Tensor) -> Tensor:
    weights = coefficients.to(vectors)
    return torch.stack([c @ v for v, c in zip(vectors, weights, strict=True)])
