"""The L1 norm: sparse maps, and the sign perturbation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.penalties.base import SparsePenalty, Weight, check_weight, indicator, times, within
from moreaugrad.score.inputs import per_sample


@dataclass(frozen=True, eq=False)
class L1(SparsePenalty):
    """R(u) = eta ||u||_1; its prox is the soft threshold sign(u) max(|u| - tau eta, 0).

    Source: MoreauGrad definition 4; as a perturbation: fast gradient sign (AdvGrad section 4.1).
    """

    eta: Weight

    def __post_init__(self) -> None:
        check_weight("eta", self.eta)

    def value(self, u: Tensor) -> Tensor:
        return times(self.eta, u.flatten(1).abs().sum(1))

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        threshold = per_sample(self.eta, u) * per_sample(tau, u)
        return u.sign() * (u.abs() - threshold).clamp_min(0)

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        return torch.where(result != 0, v, 0.0)

    def conjugate(self, d: Tensor) -> Tensor:
        return indicator(within(d.flatten(1).abs().amax(1), self.eta), d)

    def maximiser(self, g: Tensor) -> Tensor:
        return per_sample(self.eta, g) * g.sign()

    def magnitudes(self, u: Tensor) -> Tensor:
        return u.flatten(1).abs()
