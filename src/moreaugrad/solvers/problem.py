"""The problems that solvers know: a smooth term with per-sample value and gradient, a penalty."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from moreaugrad.penalties import Penalty, SparsePenalty
from moreaugrad.score.bound import BoundScore


class Problem(ABC):
    """minimise over u `[B, n]`: h(u) + eta R(u), h smooth.

    `penalty` is R with unit weight and `eta` `[B]` its weight; `unit` `[B]` is a natural step
    length, at which convergence is judged and from which line searches start.
    """

    penalty: Penalty
    eta: Tensor

    @property
    @abstractmethod
    def unit(self) -> Tensor: ...

    @abstractmethod
    def start(self) -> Tensor:
        """A first u `[B, n]`."""

    @abstractmethod
    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """h(u) `[B]` and its gradient `[B, n]`."""

    @abstractmethod
    def evaluations(self) -> int:
        """Gradient evaluations that one call of `value_and_grad` costs a sample."""

    @abstractmethod
    def select(self, rows: Tensor) -> Self: ...

    def prox(self, u: Tensor, step: Tensor) -> Tensor:
        return self.penalty.prox(u, step * self.eta)


@dataclass(frozen=True, kw_only=True, eq=False)
class MoreauProblem(Problem):
    """h(u) = f(x + u) + ||u||^2 / (2 rho). Source: MoreauGrad eq. (5), definition 4.

    The map is A = -u* / rho; in terms of the score's gradient, -P(-rho grad f(x + u*)) / rho with
    P the prox of rho eta R.
    """

    score: BoundScore
    rho: Tensor
    eta: Tensor
    penalty: Penalty

    @property
    def unit(self) -> Tensor:
        return self.rho

    @property
    def counts(self) -> Tensor:
        """How many of the penalty's magnitudes have a real entry, `[B]`."""
        assert isinstance(self.penalty, SparsePenalty)
        origin, mask = self.score.origin, self.score.mask
        real = torch.ones_like(origin[:1]) if mask is None else mask.to(origin.dtype)
        return (self.penalty.magnitudes(real) > 0).sum(1).expand(len(origin))

    def start(self) -> Tensor:
        return self.score.origin.new_zeros(self.score.origin.shape)

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        value, grad = self.score.value_and_grad(u)
        quadratic = u.square().sum(1) / (2 * self.rho)
        return value + quadratic, grad + u / self.rho[:, None]

    def evaluations(self) -> int:
        return self.score.passes

    def select(self, rows: Tensor) -> MoreauProblem:
        return replace(self, score=self.score.select(rows), rho=self.rho[rows], eta=self.eta[rows])
