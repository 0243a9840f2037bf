"""The problems that sparse maps solve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.penalties import Penalty
from moreaugrad.score.batched import Batched
from moreaugrad.score.bound_score import BoundScore


class Problem(Batched, ABC):
    """minimise over u `[B, n]`: h(u) + eta R(u), h smooth, sample by sample.

    `penalty` is R and `eta` `[B]` its weight; `unit` `[B]` is a step length at which the residual
    is measured and from which line searches start.
    """

    penalty: Penalty
    eta: Tensor

    @property
    @abstractmethod
    def unit(self) -> Tensor: ...

    @property
    @abstractmethod
    def start(self) -> Tensor:
        """The first u, `[B, n]`."""

    @abstractmethod
    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """h(u) `[B]` and its gradient `[B, n]`."""

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Evaluations of each sample by one call of `value_and_grad`."""

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
        """Number of the penalty's magnitudes that have a real entry, `[B]`."""
        return real_magnitudes(self.penalty, self.score)

    @property
    def start(self) -> Tensor:
        return torch.zeros_like(self.score.origin)

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        value, grad = self.score.value_and_grad(u)
        quadratic = u.square().sum(1) / (2 * self.rho)
        return value + quadratic, grad + u / self.rho[:, None]

    @property
    def evaluations(self) -> int:
        return self.score.passes


@dataclass(frozen=True, kw_only=True, eq=False)
class QuadraticProblem(Problem):
    """minimise lambda2 ||D||^2 - g'D - D'HD / 2 + lambda1 R(D). Source: CASO paper eq. (5)."""

    gradient: Tensor
    """g, `[B, n]`."""
    product: Callable[[Tensor, Tensor], Tensor]
    """v `[m, n]` and the numbers of their samples `[m]` to H v `[m, n]`."""
    probe: Tensor
    """Random directions `[B, n]`: they reveal what the gradient's Krylov space lacks."""
    eta: Tensor
    """lambda1, `[B]`."""
    lambda2: Tensor
    penalty: Penalty
    cost: int = 2
    """Evaluations of one product."""
    rows: Tensor | None = None
    """Numbers of these samples among the product's; None: all."""

    def __post_init__(self) -> None:
        if self.rows is None:
            rows = torch.arange(len(self.gradient), device=self.gradient.device)
            object.__setattr__(self, "rows", rows)

    @property
    def unit(self) -> Tensor:
        return 0.5 / self.lambda2

    @property
    def start(self) -> Tensor:
        return torch.zeros_like(self.gradient)

    @property
    def evaluations(self) -> int:
        return self.cost

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        assert self.rows is not None
        image = self.product(u, self.rows)
        twice = 2 * self.lambda2[:, None]
        value = (u * (twice * u / 2 - self.gradient - image / 2)).sum(1)
        return value, twice * u - self.gradient - image


def real_magnitudes(penalty: Penalty, score: BoundScore) -> Tensor:
    """Number of a penalty's magnitudes with an entry that is not padding, `[B]`."""
    origin, mask = score.origin, score.mask
    real = torch.ones_like(origin[:1]) if mask is None else mask.to(origin.dtype)
    return (penalty.magnitudes(real) > 0).sum(1).expand(len(origin))
