"""Penalties of one entry at a time: the L1 norm, squares, the elastic net, and a box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.penalties.base import (
    Penalty,
    Weight,
    check_weight,
    indicator,
    over,
    times,
    within,
)
from moreaugrad.score.inputs import per_sample
from moreaugrad.settings import expect


@dataclass(frozen=True, eq=False)
class L1(Penalty):
    """R(u) = eta ||u||_1; its prox is the soft threshold sign(u) max(|u| - tau eta, 0).

    >>> adversary = mg.training.Fast(mg.L1(0.02))  # the fast gradient sign, of length 0.02

    Source: MoreauGrad definition 4; as a perturbation: fast gradient sign (AdvGrad section 4.1).
    """

    eta: Weight
    """Weight >= 0: a number, or one for each sample, `[B]`."""

    def __post_init__(self) -> None:
        check_weight("eta", self.eta)

    def value(self, u: Tensor) -> Tensor:
        return times(self.eta, u.flatten(1).abs().sum(1))

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        threshold = per_sample(self.eta, u) * per_sample(tau, u)
        return u - u.clamp(-threshold, threshold)

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        return torch.where(result != 0, v, 0.0)

    def conjugate(self, d: Tensor) -> Tensor:
        return indicator(within(d.flatten(1).abs().amax(1), self.eta), d)

    def maximiser(self, g: Tensor) -> Tensor:
        return per_sample(self.eta, g) * g.sign()

    def magnitudes(self, u: Tensor) -> Tensor:
        return over(u.flatten(1).abs(), self.eta)

    def margins(self, u: Tensor, tau: Weight) -> Tensor:
        return u.abs() - per_sample(self.eta, u) * per_sample(tau, u)


@dataclass(frozen=True, eq=False)
class ElasticNet(Penalty):
    """R(u) = l1 ||u||_1 + l2 ||u||_2^2 (no half).

    >>> delta = mg.ElasticNet(0.01, 0.05).maximiser(x)

    Source: AdvGrad section 4.3, proposition 3.
    """

    l1: Weight
    """Weight >= 0 of the L1 norm: a number, or one for each sample, `[B]`."""
    l2: Weight
    """Weight >= 0 of the squared L2 norm, likewise."""

    def __post_init__(self) -> None:
        check_weight("l1", self.l1)
        check_weight("l2", self.l2)

    def value(self, u: Tensor) -> Tensor:
        flat = u.flatten(1)
        return times(self.l1, flat.abs().sum(1)) + times(self.l2, flat.square().sum(1))

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        shrink = 1 + 2 * per_sample(tau, u) * per_sample(self.l2, u)
        return L1(self.l1).prox(u, tau) / shrink

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        shrink = 1 + 2 * per_sample(tau, v) * per_sample(self.l2, v)
        return torch.where(result != 0, v, 0.0) / shrink.sqrt()

    def margins(self, u: Tensor, tau: Weight) -> Tensor:
        return L1(self.l1).margins(u, tau)

    def conjugate(self, d: Tensor) -> Tensor:
        l1 = per_sample(self.l1, d)
        excess = (d.abs() - l1).clamp_min(0)
        # Rounding is none, which matters where l2 is 0.
        excess = torch.where(excess <= 8 * torch.finfo(d.dtype).eps * l1, 0.0, excess)
        return _quadratic_conjugate(excess, per_sample(self.l2, d))

    def maximiser(self, g: Tensor) -> Tensor:
        return per_sample(self.l1, g) * g.sign() + 2 * per_sample(self.l2, g) * g


@dataclass(frozen=True, eq=False)
class SquaredL2(Penalty):
    """R(u) = weight ||u||_2^2 (no half).

    >>> delta = mg.SquaredL2(0.5).maximiser(x)
    """

    weight: Weight
    """Weight >= 0: a number, or one for each sample, `[B]`."""

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)

    def value(self, u: Tensor) -> Tensor:
        return (self._weight(u) * u.square()).flatten(1).sum(1)

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        return u / (1 + 2 * per_sample(tau, u) * self._weight(u))

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        return v / (1 + 2 * per_sample(tau, v) * self._weight(v)).sqrt()

    def conjugate(self, d: Tensor) -> Tensor:
        return _quadratic_conjugate(d, self._weight(d))

    def maximiser(self, g: Tensor) -> Tensor:
        return 2 * self._weight(g) * g

    def _weight(self, u: Tensor) -> Tensor:
        return per_sample(self.weight, u)


@dataclass(frozen=True, eq=False)
class WeightedL2(SquaredL2):
    """R(u) = sum_i w_i u_i^2, a weight for each entry.

    >>> found = mg.WeightedL2(torch.ones_like(x[0])).value(x)

    Source: AdvGrad section 4.3, proposition 4, in the strict form that keeps the pair conjugate (w
    from max A - A).
    """

    weight: Tensor
    """w >= 0, of a sample's shape or one for each sample, `[B, *shape]` (or a list)."""

    def __post_init__(self) -> None:
        if not isinstance(self.weight, Tensor):
            weight = torch.tensor(self.weight, dtype=torch.float64, device="cpu")
            object.__setattr__(self, "weight", weight)
        super().__post_init__()

    def _weight(self, u: Tensor) -> Tensor:
        shape, allowed = tuple(self.weight.shape), (tuple(u.shape[1:]), tuple(u.shape))
        expect(shape in allowed, "weight", f"shape {allowed[0]} or {allowed[1]}", shape)
        return self.weight.to(u)


@dataclass(frozen=True, eq=False)
class Box(Penalty):
    """R(u) = 0 where lower <= u <= upper, infinite elsewhere (lower <= 0 <= upper).

    >>> found = mg.Box(-0.1, 0.1).prox(x, 1.0)
    """

    lower: Weight
    """Lower bound <= 0: a number, or one for each sample, `[B]`."""
    upper: Weight
    """Upper bound >= 0, likewise."""

    def __post_init__(self) -> None:
        check_weight("-lower", -self.lower)
        check_weight("upper", self.upper)

    def value(self, u: Tensor) -> Tensor:
        return indicator((self.prox(u, 1.0) == u).flatten(1).all(1), u)

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        return torch.minimum(torch.maximum(u, per_sample(self.lower, u)), per_sample(self.upper, u))

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        inside = (result > per_sample(self.lower, v)) & (result < per_sample(self.upper, v))
        return torch.where(inside, v, 0.0)

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


def _quadratic_conjugate(d: Tensor, weight: Tensor) -> Tensor:
    """sum_i d_i^2 / (4 w_i), infinite if an entry of weight 0 is not 0."""
    # Divide first: d^2 may underflow, and 0 / 0 would hide an entry of weight 0.
    term = d * (d / (4 * weight))
    return torch.where(d == 0, torch.zeros_like(term), term).flatten(1).sum(1)
