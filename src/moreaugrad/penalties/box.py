"""The indicator of a box: perturbations that stay within bounds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.penalties.base import Penalty, Weight, check_weight, indicator
from moreaugrad.score.inputs import per_sample


@dataclass(frozen=True, eq=False)
class Box(Penalty):
    """R(u) = 0 where lower <= u <= upper, infinite elsewhere (lower <= 0 <= upper)."""

    lower: Weight
    upper: Weight

    def __post_init__(self) -> None:
        check_weight("-lower", -self.lower)
        check_weight("upper", self.upper)

    def value(self, u: Tensor) -> Tensor:
        return indicator((self.prox(u, 1.0) == u).flatten(1).all(1), u)

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        return torch.minimum(torch.maximum(u, per_sample(self.lower, u)), per_sample(self.upper, u))

    def conjugate(self, d: Tensor) -> Tensor:
        low, high = per_sample(self.lower, d) * d, per_sample(self.upper, d) * d
        return torch.maximum(low, high).flatten(1).sum(1)

    def maximiser(self, g: Tensor) -> Tensor:
        outside = int(self.value(g).isinf().sum())
        if outside:
            raise ValueError(
                f"Box has no maximiser outside the box: expected lower <= g <= upper, but "
                f"{outside} of {len(g)} samples leave it"
            )
        return torch.zeros_like(g)
