"""The penalties of several inputs as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.penalties.base import Penalty, Weight
from moreaugrad.score.inputs import Layout


@dataclass(frozen=True, eq=False)
class PerInput(Penalty):
    """One penalty for each input, on the flat `[B, n]` matrix of all: R(u) = sum_j R_j(u_j).

    It can do what each of them can.
    """

    penalties: tuple[Penalty, ...]
    layout: Layout

    @property
    def sparse(self) -> bool:
        return all(penalty.sparse for penalty in self.penalties)

    @property
    def differentiable(self) -> bool:
        return all(penalty.differentiable for penalty in self.penalties)

    def value(self, u: Tensor) -> Tensor:
        return torch.stack([p.value(part) for p, part in self._parts(u)]).sum(0)

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        return self.layout.flatten([p.prox(part, tau) for p, part in self._parts(u)])

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        at = zip(self._parts(v), self.layout.split(result), strict=True)
        return self.layout.flatten([p.prox_root(there, tau, part) for (p, part), there in at])

    def conjugate(self, d: Tensor) -> Tensor:
        return torch.stack([p.conjugate(part) for p, part in self._parts(d)]).sum(0)

    def maximiser(self, g: Tensor) -> Tensor:
        return self.layout.flatten([p.maximiser(part) for p, part in self._parts(g)])

    def magnitudes(self, u: Tensor) -> Tensor:
        return torch.cat([p.magnitudes(part) for p, part in self._parts(u)], dim=1)

    def _parts(self, flat: Tensor) -> list[tuple[Penalty, Tensor]]:
        return list(zip(self.penalties, self.layout.split(flat), strict=True))
