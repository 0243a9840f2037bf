"""Penalties of several inputs as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.penalties.base import DifferentiablePenalty, Penalty, SparsePenalty, Weight
from moreaugrad.score.inputs import Layout


@dataclass(frozen=True, eq=False)
class Joint(SparsePenalty):
    """One penalty for each input, on the flat `[B, n]` matrix of all: R(u) = sum_j R_j(u_j)."""

    penalties: tuple[Penalty, ...]
    layout: Layout

    def value(self, u: Tensor) -> Tensor:
        return torch.stack([p.value(part) for p, part in self._parts(u)]).sum(0)

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        return self.layout.flatten([p.prox(part, tau) for p, part in self._parts(u)])

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        found = []
        for (penalty, part), at in zip(self._parts(v), self.layout.split(result), strict=True):
            if not isinstance(penalty, DifferentiablePenalty):
                raise TypeError(f"expected a penalty with prox_root, got {type(penalty).__name__}")
            found.append(penalty.prox_root(at, tau, part))
        return self.layout.flatten(found)

    def conjugate(self, d: Tensor) -> Tensor:
        return torch.stack([p.conjugate(part) for p, part in self._parts(d)]).sum(0)

    def maximiser(self, g: Tensor) -> Tensor:
        return self.layout.flatten([p.maximiser(part) for p, part in self._parts(g)])

    def magnitudes(self, u: Tensor) -> Tensor:
        found = []
        for penalty, part in self._parts(u):
            if not isinstance(penalty, SparsePenalty):
                raise TypeError(f"sparsity: expected L1 or GroupL2, got {type(penalty).__name__}")
            found.append(penalty.magnitudes(part))
        return torch.cat(found, dim=1)

    def _parts(self, flat: Tensor) -> list[tuple[Penalty, Tensor]]:
        return list(zip(self.penalties, self.layout.split(flat), strict=True))
