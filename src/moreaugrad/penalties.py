"""Convex penalties: what makes a map sparse, and a perturbation structured.

Each acts on a batch `[B, *shape]`, sample by sample. Two identities tie the methods together and
test every penalty: Fenchel's gap R(p) + R*(d) - <p, d> vanishes for the pairs
`(prox(u, tau), (u - prox(u, tau)) / tau)` and `(g, maximiser(g))`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad import groups
from moreaugrad.layout import per_sample
from moreaugrad.names import choose

Weight = float | Tensor
"""A number >= 0 for all samples, or one for each, `[B]`."""


class Penalty(ABC):
    """A closed convex function R of one sample.

    `u`, `g` and `d` are `[B, *shape]`; `tau` is a step, a number or `[B]`; values are `[B]`.
    """

    @abstractmethod
    def value(self, u: Tensor) -> Tensor:
        """R(u)."""

    @abstractmethod
    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        """argmin_v tau R(v) + ||v - u||^2 / 2."""

    @abstractmethod
    def conjugate(self, d: Tensor) -> Tensor:
        """R*(d) = max_u <u, d> - R(u); infinite outside its domain (up to rounding)."""

    @abstractmethod
    def maximiser(self, g: Tensor) -> Tensor:
        """argmax_d <g, d> - R*(d), an element of the subdifferential of R at g."""


class DifferentiablePenalty(Penalty):
    """One whose prox tells its own derivative by its result."""

    @abstractmethod
    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        """D^(1/2) v, D the derivative of prox(., tau) where it gave `result`: symmetric, and
        0 <= D <= 1. What is set to zero stays so."""


class SparsePenalty(DifferentiablePenalty):
    """A weighted norm of magnitudes, whose prox sets the small ones to exactly zero."""

    @abstractmethod
    def magnitudes(self, u: Tensor) -> Tensor:
        """`[B, G]`: what `prox(u, tau)` compares with its threshold (entries, or groups' norms)."""


@dataclass(frozen=True, eq=False)
class Zero(DifferentiablePenalty):
    """R = 0."""

    def value(self, u: Tensor) -> Tensor:
        return u.new_zeros(u.shape[0])

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        return u

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        return v

    def conjugate(self, d: Tensor) -> Tensor:
        return _indicator(d.flatten(1).abs().amax(1) <= 0, d)

    def maximiser(self, g: Tensor) -> Tensor:
        return torch.zeros_like(g)


@dataclass(frozen=True, eq=False)
class L1(SparsePenalty):
    """R(u) = eta ||u||_1; its prox is the soft threshold sign(u) max(|u| - tau eta, 0).

    Source: MoreauGrad definition 4; as a perturbation: fast gradient sign (AdvGrad section 4.1).
    """

    eta: Weight

    def __post_init__(self) -> None:
        _check_weight("eta", self.eta)

    def value(self, u: Tensor) -> Tensor:
        return _times(self.eta, u.flatten(1).abs().sum(1))

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        threshold = per_sample(self.eta, u) * per_sample(tau, u)
        return u.sign() * (u.abs() - threshold).clamp_min(0)

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        return torch.where(result != 0, v, 0.0)

    def conjugate(self, d: Tensor) -> Tensor:
        return _indicator(_within(d.flatten(1).abs().amax(1), self.eta), d)

    def maximiser(self, g: Tensor) -> Tensor:
        return per_sample(self.eta, g) * g.sign()

    def magnitudes(self, u: Tensor) -> Tensor:
        return u.flatten(1).abs()


@dataclass(frozen=True, eq=False)
class GroupL2(SparsePenalty):
    """R(u) = eta sum_S ||u_S||_2 over blocks S of `size` pixels; its prox shrinks whole blocks.

    `channels="joint"` puts all channels of a block into one group, "separate" makes one of each.
    size "tokens": a group for each position of samples `[positions, features]`.
    `index` gives the groups as integer labels instead (superpixels, groups of features), a tensor
    or a sequence: of the sample's shape, or of its positions (`[H, W]` of `[C, H, W]`, `[T]` of
    `[C, T]`, `[L]` of `[L, D]`).
    Source: MoreauGrad definition 4, appendix B.1; AdvGrad section 4.3, proposition 2.
    """

    eta: Weight
    size: groups.Size = 14
    channels: str = "joint"
    index: groups.Labels | None = None

    def __post_init__(self) -> None:
        _check_weight("eta", self.eta)
        if isinstance(self.size, str):
            choose("size", self.size, (groups.TOKENS,))
        if self.index is not None:
            object.__setattr__(self, "index", groups.labels(self.index))

    def partition(self, u: Tensor) -> groups.Partition:
        shape = tuple(u.shape[1:])
        if self.index is not None:
            return groups.explicit(shape, self.index, self.size == groups.TOKENS)
        if isinstance(self.size, str):
            return groups.tokens(shape)
        return groups.patches(shape, self.size, self.channels)

    def value(self, u: Tensor) -> Tensor:
        return _times(self.eta, self.partition(u).norms(u.flatten(1)).sum(1))

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        partition, flat = self.partition(u), u.flatten(1)
        norms = partition.norms(flat)
        threshold = per_sample(self.eta, norms) * per_sample(tau, norms)
        # A group of zeros stays zero; the guard keeps 0 / 0 out.
        shrink = (norms - threshold).clamp_min(0) / norms.clamp_min(torch.finfo(u.dtype).tiny)
        return (flat * partition.spread(shrink)).reshape(u.shape)

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        """On a block of norm n that is shrunk by a: sqrt(1 - a / n) across it, 1 along it."""
        partition, flat, given = self.partition(v), result.flatten(1), v.flatten(1)
        norms = partition.norms(flat)
        threshold = per_sample(self.eta, norms) * per_sample(tau, norms)
        keep = norms / (norms + threshold).clamp_min(torch.finfo(v.dtype).tiny)
        axis = flat / partition.spread(norms).clamp_min(torch.finfo(v.dtype).tiny)
        along = axis * partition.spread(partition.sums(axis * given))
        found = partition.spread(keep.sqrt()) * (given - along) + along
        return torch.where(partition.spread(norms) > 0, found, 0.0).reshape(v.shape)

    def conjugate(self, d: Tensor) -> Tensor:
        return _indicator(_within(self.partition(d).norms(d.flatten(1)).amax(1), self.eta), d)

    def maximiser(self, g: Tensor) -> Tensor:
        partition, flat = self.partition(g), g.flatten(1)
        return (per_sample(self.eta, flat) * partition.directions(flat)).reshape(g.shape)

    def magnitudes(self, u: Tensor) -> Tensor:
        return self.partition(u).norms(u.flatten(1))


@dataclass(frozen=True, eq=False)
class ElasticNet(Penalty):
    """R(u) = l1 ||u||_1 + l2 ||u||_2^2 (no half). Source: AdvGrad section 4.3, proposition 3."""

    l1: Weight
    l2: Weight

    def __post_init__(self) -> None:
        _check_weight("l1", self.l1)
        _check_weight("l2", self.l2)

    def value(self, u: Tensor) -> Tensor:
        flat = u.flatten(1)
        return _times(self.l1, flat.abs().sum(1)) + _times(self.l2, flat.square().sum(1))

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        shrink = 1 + 2 * per_sample(tau, u) * per_sample(self.l2, u)
        return L1(self.l1).prox(u, tau) / shrink

    def conjugate(self, d: Tensor) -> Tensor:
        excess = (d.abs() - per_sample(self.l1, d)).clamp_min(0)
        return _quadratic_conjugate(excess, per_sample(self.l2, d))

    def maximiser(self, g: Tensor) -> Tensor:
        return per_sample(self.l1, g) * g.sign() + 2 * per_sample(self.l2, g) * g


@dataclass(frozen=True, eq=False)
class SquaredL2(Penalty):
    """R(u) = weight ||u||_2^2 (no half)."""

    weight: Weight

    def __post_init__(self) -> None:
        _check_weight("weight", self.weight)

    def value(self, u: Tensor) -> Tensor:
        return (self._weight(u) * u.square()).flatten(1).sum(1)

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        return u / (1 + 2 * per_sample(tau, u) * self._weight(u))

    def conjugate(self, d: Tensor) -> Tensor:
        return _quadratic_conjugate(d, self._weight(d))

    def maximiser(self, g: Tensor) -> Tensor:
        return 2 * self._weight(g) * g

    def _weight(self, u: Tensor) -> Tensor:
        return per_sample(self.weight, u)


@dataclass(frozen=True, eq=False)
class WeightedL2(SquaredL2):
    """R(u) = sum_i w_i u_i^2 with weights w >= 0, of a sample's shape or one for each sample.

    Source: AdvGrad section 4.3, proposition 4, in the strict form that keeps the pair conjugate (w
    from max A - A).
    """

    weight: Tensor

    def _weight(self, u: Tensor) -> Tensor:
        if tuple(self.weight.shape) not in (tuple(u.shape[1:]), tuple(u.shape)):
            raise ValueError(
                f"weight: expected shape {tuple(u.shape[1:])} or {tuple(u.shape)}, "
                f"got {tuple(self.weight.shape)}"
            )
        return self.weight.to(u)


@dataclass(frozen=True, eq=False)
class Box(Penalty):
    """R(u) = 0 where lower <= u <= upper, infinite elsewhere (lower <= 0 <= upper)."""

    lower: Weight
    upper: Weight

    def __post_init__(self) -> None:
        _check_weight("-lower", -self.lower)
        _check_weight("upper", self.upper)

    def value(self, u: Tensor) -> Tensor:
        return _indicator((self.prox(u, 1.0) == u).flatten(1).all(1), u)

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


def _check_weight(name: str, weight: Weight) -> None:
    value = torch.as_tensor(weight)
    if not bool((value >= 0).all()) or not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name}: expected finite numbers >= 0, got {weight!r}")


def _times(weight: Weight, values: Tensor) -> Tensor:
    return per_sample(weight, values) * values


def _within(values: Tensor, bound: Weight) -> Tensor:
    """values <= bound, up to a few roundings of the bound."""
    limit = per_sample(bound, values)
    return values <= limit * (1 + 8 * torch.finfo(values.dtype).eps)


def _indicator(inside: Tensor, like: Tensor) -> Tensor:
    return like.new_zeros(len(inside)).masked_fill(~inside, torch.inf)


def _quadratic_conjugate(d: Tensor, weight: Tensor) -> Tensor:
    """sum_i d_i^2 / (4 w_i); an entry without weight must be zero, or the value is infinite."""
    # Divided first: d^2 may underflow, and 0 / 0 would hide an entry without weight.
    term = d * (d / (4 * weight))
    return torch.where(d == 0, torch.zeros_like(term), term).flatten(1).sum(1)
