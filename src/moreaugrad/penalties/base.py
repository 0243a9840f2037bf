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

from moreaugrad.score.inputs import per_sample

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
        return indicator(d.flatten(1).abs().amax(1) <= 0, d)

    def maximiser(self, g: Tensor) -> Tensor:
        return torch.zeros_like(g)


def check_weight(name: str, weight: Weight) -> None:
    value = torch.as_tensor(weight)
    if not bool((value >= 0).all()) or not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name}: expected finite numbers >= 0, got {weight!r}")


def times(weight: Weight, values: Tensor) -> Tensor:
    return per_sample(weight, values) * values


def within(values: Tensor, bound: Weight) -> Tensor:
    """values <= bound, up to a few roundings of the bound."""
    limit = per_sample(bound, values)
    return values <= limit * (1 + 8 * torch.finfo(values.dtype).eps)


def indicator(inside: Tensor, like: Tensor) -> Tensor:
    return like.new_zeros(len(inside)).masked_fill(~inside, torch.inf)
