"""The problem that every sparse map solves, and what all of its solvers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from moreaugrad.penalties import Penalty
from moreaugrad.score.batched import Batched
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.solvers.solution import Solution


class Problem(Batched, ABC):
    """minimise over u `[B, n]`: h(u) + eta R(u), h smooth, sample by sample.

    `penalty` is R and `eta` `[B]` its weight; `unit` `[B]` is a natural step length, at which
    convergence is judged and from which line searches start.
    """

    penalty: Penalty
    eta: Tensor

    @property
    @abstractmethod
    def unit(self) -> Tensor: ...

    @property
    @abstractmethod
    def start(self) -> Tensor:
        """A first u `[B, n]`."""

    @abstractmethod
    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """h(u) `[B]` and its gradient `[B, n]`."""

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Gradient evaluations that one call of `value_and_grad` costs a sample."""

    def prox(self, u: Tensor, step: Tensor) -> Tensor:
        return self.penalty.prox(u, step * self.eta)


P = TypeVar("P", bound=Problem, contravariant=True)


class Solver(ABC, Generic[P]):
    """Solves problems of one kind, each sample to its own accuracy and with its own status."""

    @abstractmethod
    def solve(self, problem: P, start: Tensor | None = None) -> Solution:
        """From `start` `[B, n]`; None is the problem's own."""


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
    """minimise lambda2 ||D||^2 - g'D - D'HD / 2 + lambda1 R(D). Source: CASO paper eq. (5).

    gradient: g `[B, n]`. product: v `[m, n]` and its samples' rows, to H v `[m, n]`, which counts
    as `cost` evaluations. eta: lambda1 `[B]`. lambda2 `[B]`.
    probe `[B, n]`: random directions that look for what the gradient's Krylov space cannot see.
    """

    gradient: Tensor
    product: Callable[[Tensor, Tensor], Tensor]
    probe: Tensor
    eta: Tensor
    lambda2: Tensor
    penalty: Penalty
    cost: int = 2
    rows: Tensor | None = None
    """Which of the product's samples these are; None: all."""

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
        return (u * (twice * u / 2 - self.gradient - image / 2)).sum(1), (
            twice * u - self.gradient - image
        )


SIDES = 2
"""Passes that a draw costs a mask: what it shows, and what it hides."""
EPSILON = 1e-7


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskProblem(Problem):
    """h(m) = mean_z [-ln p(show) - lambda2 ln(1 - p(hide) + 1e-7)], m in [0, 1]: RelEx's.

    show = (x + z) * m, hide = (x + z) * (1 - m). score: ln p, whose draws the mean is over.
    first: where the descent starts. Source: Lim et al. (2021).
    """

    score: BoundScore
    first: Tensor
    lambda2: Tensor
    eta: Tensor
    penalty: Penalty

    @property
    def unit(self) -> Tensor:
        return torch.ones_like(self.eta)

    @property
    def start(self) -> Tensor:
        return self.first

    @property
    def evaluations(self) -> int:
        return SIDES * self.score.passes

    def projected(self, u: Tensor) -> Tensor:
        return u.clamp(0, 1)

    def prox(self, u: Tensor, step: Tensor) -> Tensor:
        """Of a penalty of entries, the sum with the box's indicator; else a step towards both."""
        return self.projected(super().prox(u, step))

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = self.score.mean(self._work(u), width=SIDES)
        return value, slope

    def slope(self, u: Tensor, draws: Sequence[int]) -> Tensor:
        """The gradient over some draws."""
        return self.score.mean(self._work(u), draws=draws, width=SIDES)[1]

    def _work(self, u: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
        def of_draws(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            log_p, grad = self.score.value_and_grad_at(*sides(points, u[rows], rows))
            shown, hidden = grad.chunk(SIDES)
            log_shown, log_hidden = log_p.chunk(SIDES)
            # 1 - e^l loses no digit near l = 0.
            left = EPSILON - torch.expm1(log_hidden)
            lambda2 = self.lambda2[rows]
            weight = lambda2 * log_hidden.exp() / left
            value = -log_shown - lambda2 * left.log()
            return value, -points * (shown + weight[:, None] * hidden)

        return of_draws


def sides(points: Tensor, mask: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What masks show and then what they hide of `points`, `[m, n]` all: `[2m, n]`, and samples."""
    return torch.cat((points * mask, points * (1 - mask))), torch.cat((rows, rows))


def real_magnitudes(penalty: Penalty, score: BoundScore) -> Tensor:
    """How many of a penalty's magnitudes have an entry that is no padding, `[B]`."""
    origin, mask = score.origin, score.mask
    real = torch.ones_like(origin[:1]) if mask is None else mask.to(origin.dtype)
    return (penalty.magnitudes(real) > 0).sum(1).expand(len(origin))
