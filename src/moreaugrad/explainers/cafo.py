"""CAFO: the displacement that changes the loss most, to first order; and what CASO shares with it.

CASO: D* = argmax_D g'D + D'HD / 2 - lambda1 R(D) - lambda2 ||D||^2, g and H the gradient and
the Hessian of the loss; CAFO: the same with H = 0. R is the L1 norm unless another penalty is
given. That is the relaxation of a limit on the number of entries, which would be a combinatorial
problem; the two agree where the Hessian meets a restricted eigenvalue condition (CASO paper,
appendix E) that cannot be checked for a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.explainers.derivatives import IMPLICIT, gradient_and_product
from moreaugrad.explainers.lambda1 import for_sparsity, searched
from moreaugrad.explainers.penalised import PenalisedExplainer
from moreaugrad.explainers.uncertainty import blocks_of, jackknife, mean_of, relative
from moreaugrad.penalties import Penalty
from moreaugrad.penalties.base import prox_derivative
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.inputs import flat_scale
from moreaugrad.score.noise import RELATIVE, Noise
from moreaugrad.score.score import Score
from moreaugrad.solvers.problem import real_magnitudes
from moreaugrad.solvers.second_order import Rule
from moreaugrad.solvers.solution import Solution, Status

AUTO, SEARCH = "auto", "search"
PIXEL_C1 = 10.0


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GroupFeatures(PenalisedExplainer):
    """A = -D*, in units of `std` times the input; positive where the input raises the score.

    D* = argmin_D -<g, D> - <D, H D> / 2 + lambda1 R(D) + lambda2 ||D||^2 (no half), g and H the
    loss's derivatives.

    Details: `surrogate`, the loss's rise in the model at D*, and `increase`, its true rise.
    """

    score: str = "log-probability"
    """The loss is minus this score; "log-probability" makes it the cross-entropy."""
    std: float | Sequence[float] = 1.0
    """What the preprocessing divided the pixels by: a number, or one for each channel. The problem
    is then that of pixels in [0, 1], which the paper's c1 and lambda1 are for; 1 takes the inputs
    as they are (there c1 and lambda1 are std^2 and std times those for pixels)."""
    c1: float = PIXEL_C1
    """lambda2 = L / 2 + c1, L the Hessian's largest eigenvalue (0 for CAFO)."""
    lambda1: float | str = AUTO
    """Weight that multiplies the penalty: a number; "auto" by `sparsity`; or "search", the paper's
    choice: on the grid max|g| / 2^j the last with at least three quarters of zeros."""
    lambda2: float | None = None
    """Weight of the squared L2 penalty itself, instead of c1."""
    sparsity: float = 0.9
    """Fraction of zero entries (groups) that an automatic `lambda1` aims at."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_weight("lambda1", self.lambda1, (AUTO, SEARCH))
        if not self.c1 > 0:
            raise ValueError(f"c1: expected a number > 0, got {self.c1!r}")
        if self.lambda2 is not None and not self.lambda2 > 0:
            raise ValueError(f"lambda2: expected a number > 0, got {self.lambda2!r}")
        if not 0 <= self.sparsity <= 1:
            raise ValueError(f"sparsity: expected a fraction from 0 to 1, got {self.sparsity!r}")

    @classmethod
    def published(cls, forward_func: ForwardFunc, **settings: Any) -> Self:
        """The paper's settings: c1 = 10 for pixels in [0, 1], lambda1 by search.

        Give `std` where the preprocessing divides by it. The solution is ours, which is exact: the
        paper's ten steps are not.
        """
        chosen: dict[str, Any] = {"c1": PIXEL_C1, "lambda1": SEARCH} | settings
        return cls(forward_func, **chosen)

    def _rule(self, penalty: Penalty, bound: BoundScore) -> Rule | None:
        """By which lambda1 is chosen; None where it is given."""
        if not isinstance(self.lambda1, str):
            return None
        counts = real_magnitudes(penalty, bound)
        if self.lambda1 == SEARCH:
            return searched(penalty.magnitudes, counts)
        return for_sparsity(self.sparsity, penalty.magnitudes, counts)

    def _given(self, bound: BoundScore) -> Tensor:
        """lambda1 `[B]`, 0 where it is chosen."""
        number = 0.0 if isinstance(self.lambda1, str) else self.lambda1
        return torch.full_like(bound.origin[:, 0], number)

    def _told(
        self, bound: BoundScore, scale: Tensor, delta: Tensor, surrogate: Tensor
    ) -> dict[str, Tensor]:
        """How much the displacement changes the loss: in the model, and truly (one more pass)."""
        points = bound.origin + delta / scale
        unmetered = replace(bound, meter=None)
        with torch.no_grad():
            there = unmetered.in_chunks(lambda rows: bound.value(points[rows], rows))
        increase = bound.clean - there
        return {"surrogate": surrogate, "increase": increase.to(surrogate)}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CAFO(GroupFeatures):
    """D* = P(g / (2 lambda2)), lambda2 = c1, P the prox of lambda1 / (2 lambda2) R: to first order.

    With the L1 norm that is ST_lambda1(g) / (2 lambda2).

    >>> maps = mg.CAFO(model).attribute(x)

    Source: CASO paper eq. (3).
    """

    method: ClassVar[str] = "cafo"
    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT,)

    @property
    def _lambda2(self) -> float:
        return self.c1 if self.lambda2 is None else self.lambda2

    def _maps(self, bound: BoundScore) -> Solution:
        scale = flat_scale(self.std, bound.layout, bound.origin)
        penalty = self._penalty(bound)
        rule, given = self._rule(penalty, bound), self._given(bound)

        def weight(gradient: Tensor) -> Tensor:
            return given if rule is None else rule(gradient, lambda _: gradient)

        def solved(gradient: Tensor) -> Tensor:
            twice = 2 * self._lambda2
            if penalty.sparse:  # a norm
                return penalty.prox(gradient, weight(gradient)) / twice
            return penalty.prox(gradient / twice, weight(gradient) / twice)

        # Blocks of draws, also where there is one.
        blocks = blocks_of(bound.passes)
        parts = [-bound.value_and_grad(draws=block)[1] / scale for block in blocks]
        gradient = mean_of(blocks, parts)
        delta = solved(gradient)
        error = relative(jackknife(blocks, parts, solved), delta)
        status = Status.DIRECT if bound.sigma is None else Status.FIXED_BUDGET
        told = self._told(bound, scale, delta, (gradient * delta).sum(1))
        maps = Solution.direct(0.0 - delta, evaluations=bound.passes, status=status, error=error)
        return replace(maps, eta=weight(gradient), details=told)

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        """H D c / (2 lambda2), D the derivative of the prox; lambda1 is held."""
        scale = flat_scale(self.std, bound.layout, bound.origin)
        penalty, twice = self._penalty(bound), 2 * self._lambda2
        tau = maps.eta / twice
        if penalty.differentiable:
            delta = -maps.values
            inside = penalty.prox_root(delta, tau, penalty.prox_root(delta, tau, cotangent))
        else:
            inner = -bound.value_and_grad()[1] / scale / twice
            inside = prox_derivative(penalty, inner, tau)(cotangent)
        return gradient_and_product(bound, inside / (twice * scale))[1]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothFeatures(GroupFeatures):
    """g and H are means over `samples` antithetic draws of noise: one joint problem.

    Source: CASO paper eq. (8). Differs: one target for all draws.
    """

    sigma: float = 0.15
    """Standard deviation of the noise, as a fraction of each input's own range (max - min); with
    sigma_mode "absolute" in the input's units."""
    samples: int = 32
    """Noise samples, in antithetic pairs."""
    sigma_mode: str = RELATIVE
    """Units of `sigma`: "relative" or "absolute"."""
    seed: int = 0
    """Random seed of the noise, which is a function of (seed, id of the sample, draw)."""

    @cached_property
    def _score(self) -> Score:
        return replace(
            super()._score, sigma=self.sigma, samples=self.samples,
            sigma_mode=self.sigma_mode, noise=Noise(self.seed),
        )  # fmt: skip

    def _draws(self) -> int:
        return self.samples if self.sigma > 0 else 1

    def fixed(self, draws: int) -> Self:
        return replace(super().fixed(draws), samples=min(self.samples, draws))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothCAFO(SmoothFeatures, CAFO):
    """CAFO of the mean loss under Gaussian noise.

    >>> maps = mg.SmoothCAFO(model, samples=4).attribute(x)

    Source: CASO paper section 5.
    """

    method: ClassVar[str] = "smooth-cafo"
