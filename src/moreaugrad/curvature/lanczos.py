"""How curved a score is around an input.

Everything here is an estimate: it sees one neighbourhood, a finite number of draws and a Krylov
subspace, and none of that bounds what lies outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.score.bound import BoundScore
from moreaugrad.score.masks import spread
from moreaugrad.score.noise import Noise

PLAIN_RADIUS = 1e-2
"""Length of the secants of a score without noise, as a share of the input's range."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Curvature:
    """Estimated extreme eigenvalues of the score's Hessian, `[B]` each.

    `residual`: an eigenvalue lies within it of each of the two. Both lie inside the spectrum, so
    the true extremes are at least as far out. `evaluations`: gradient evaluations for a sample.
    """

    lowest: Tensor
    highest: Tensor
    residual: Tensor
    evaluations: int

    @property
    def weak_convexity(self) -> Tensor:
        """lambda = max(0, -lowest): f + lambda/2 ||.||^2 is locally convex, as far as was seen."""
        return self.lowest.clamp_max(0).abs()


def estimate_curvature(bound: BoundScore, steps: int = 12, seed: int = 0) -> Curvature:
    """Lanczos with full re-orthogonalisation on the Hessian around the clean input.

    Hessian products are central differences of the score's (smoothed) gradient, with the same
    draws on both sides: a smoothed network with kinks has curvature although every draw's second
    derivative is zero. The secants are as long as the noise level, or 1 % of the input's range
    without noise.
    """
    if steps < 2:
        raise ValueError(f"steps: expected at least 2, got {steps}")
    radius = _radius(bound)[:, None]
    vector = Noise(seed).draw(bound.keys, 0, bound.origin, bound.mask)
    vector = vector / vector.norm(dim=1, keepdim=True)
    basis, diagonal, off = [vector], [], []
    for _ in range(min(steps, bound.origin.shape[1])):
        ahead = bound.value_and_grad(radius * basis[-1])[1]
        behind = bound.value_and_grad(-radius * basis[-1])[1]
        product = (ahead - behind) / (2 * radius)
        diagonal.append((product * basis[-1]).sum(1))
        for _ in range(2):  # twice is enough
            for known in basis:
                product = product - (product * known).sum(1, keepdim=True) * known
        length = product.norm(dim=1)
        off.append(length)
        basis.append(product / length[:, None].clamp_min(torch.finfo(length.dtype).tiny))
    a, b = torch.stack(diagonal, 1).double().cpu(), torch.stack(off, 1).double().cpu()
    # A product of zero ends a sample's Krylov space; what follows must not couple back.
    reached = (b > 1e-6 * a.abs().amax(1, keepdim=True)).cumprod(1)
    tail = torch.cat([torch.ones_like(a[:, :1]), reached[:, :-1].double()], dim=1)
    a = torch.where(tail > 0, a, a[:, :1])
    coupling = torch.diag_embed(b[:, :-1] * reached[:, :-1], 1)
    values, vectors = torch.linalg.eigh(torch.diag_embed(a) + coupling + coupling.mT)
    ends = vectors[:, -1, [0, -1]].abs().amax(1) * b[:, -1] * reached[:, -1]
    like = bound.origin
    return Curvature(
        lowest=values[:, 0].to(like),
        highest=values[:, -1].to(like),
        residual=ends.to(like),
        evaluations=2 * len(diagonal) * bound.passes,
    )


def _radius(bound: BoundScore) -> Tensor:
    width = spread(bound.origin, bound.mask)
    plain = PLAIN_RADIUS * torch.where(width > 0, width, 1.0)
    if bound.sigma is None:
        return plain
    level = bound.sigma.amax(1)
    return torch.where(level > 0, level, plain)
