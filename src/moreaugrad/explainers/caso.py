"""Context-aware first- and second-order explanations: the displacement that changes the loss most.

CASO: D* = argmax_D g'D + D'HD / 2 - lambda1 ||D||_1 - lambda2 ||D||^2, g and H the gradient and
the Hessian of the loss; CAFO: the same with H = 0. The L1 term is the relaxation of a limit on the
number of entries, which would be a combinatorial problem; the two agree where the Hessian meets a
restricted eigenvalue condition (CASO paper, appendix E) that cannot be checked for a network.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.curvature.conjugate import shifted_solve
from moreaugrad.curvature.products import (
    EXACT,
    GAUSS_NEWTON,
    HESSIANS,
    PRODUCT,
    Exact,
    LossModel,
    outside_autocast,
)
from moreaugrad.curvature.second_derivatives import NoSecondDerivative
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.derivatives import IMPLICIT, gradient_and_product, pulled_twice
from moreaugrad.explainers.lambda1 import for_sparsity, given, searched
from moreaugrad.explainers.uncertainty import (
    accuracy,
    blocks_of,
    check_cost,
    hessian_gap,
    jackknife,
    mean_of,
    relative,
    statuses,
)
from moreaugrad.penalties import L1
from moreaugrad.registry import choose
from moreaugrad.score.bound import BoundScore, ForwardFunc
from moreaugrad.score.inputs import flat_scale
from moreaugrad.score.noise import RELATIVE, Noise
from moreaugrad.score.score import Score
from moreaugrad.solvers.second_order import (
    PROBE,
    Rule,
    SecondOrderProblem,
    solve_second_order,
)
from moreaugrad.solvers.solution import Solution, Status

AUTO, SEARCH = "auto", "search"
PIXEL_C1 = 10.0
ROUGH = 1e-2
"""Tolerance of an attack's steps."""
FEWEST = 4
"""Products that are made before any evaluations go into the error."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GroupFeatures(Explainer):
    """A = -D*, in units of `std` times the input; positive where the input raises the score.

    D* = argmin_D -<g, D> - <D, H D> / 2 + lambda1 ||D||_1 + lambda2 ||D||^2 (no half), g and H the
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
    """Weight of the L1 penalty: a number; "auto" by `sparsity`; or "search", the paper's choice: on
    the grid max|g| / 2^j the last with at least three quarters of zeros."""
    lambda2: float | None = None
    """Weight of the squared L2 penalty itself, instead of c1."""
    sparsity: float = 0.9
    """Fraction of zero entries that an automatic `lambda1` aims at."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.lambda1, str):
            choose("lambda1", self.lambda1, (AUTO, SEARCH))
        elif not self.lambda1 >= 0:
            raise ValueError(
                f"lambda1: expected a number >= 0, 'auto' or 'search', got {self.lambda1!r}"
            )
        if not self.c1 > 0:
            raise ValueError(f"c1: expected a number > 0, got {self.c1!r}")
        if self.lambda2 is not None and not self.lambda2 > 0:
            raise ValueError(f"lambda2: expected a number > 0, got {self.lambda2!r}")
        if not 0 <= self.sparsity <= 1:
            raise ValueError(f"sparsity: expected a share from 0 to 1, got {self.sparsity!r}")

    @classmethod
    def published(cls, forward_func: ForwardFunc, **settings: Any) -> Self:
        """The paper's settings: c1 = 10 for pixels in [0, 1], lambda1 by search.

        Give `std` where the preprocessing divides by it. The solution is ours, which is exact: the
        paper's ten steps are not.
        """
        chosen: dict[str, Any] = {"c1": PIXEL_C1, "lambda1": SEARCH} | settings
        return cls(forward_func, **chosen)

    def _rule(self, counts: Tensor) -> Rule | None:
        if not isinstance(self.lambda1, str):
            return given(self.lambda1)
        if self.lambda1 == SEARCH:
            return searched(counts)
        return for_sparsity(self.sparsity, counts)

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
    """D* = ST_lambda1(g) / (2 lambda2), lambda2 = c1: CASO to first order.

    >>> maps = mg.CAFO(model).attribute(x)

    Source: CASO paper eq. (3).
    """

    method: ClassVar[str] = "cafo"
    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT,)

    def _maps(self, bound: BoundScore) -> Solution:
        scale = flat_scale(self.std, bound.layout, bound.origin)
        rule = self._rule(bound.counts)
        lambda2 = self.c1 if self.lambda2 is None else self.lambda2

        def weight(gradient: Tensor) -> Tensor:
            given = torch.zeros_like(gradient[:, 0])
            return given if rule is None else rule(gradient, lambda _: gradient)

        def solved(gradient: Tensor) -> Tensor:
            return L1(1.0).prox(gradient, weight(gradient)) / (2 * lambda2)

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
        """H c / (2 lambda2) of the entries that are not zero; lambda1 is held."""
        scale = flat_scale(self.std, bound.layout, bound.origin)
        lambda2 = self.c1 if self.lambda2 is None else self.lambda2
        inside = torch.where(maps.values != 0, cotangent, 0.0) / (2 * lambda2 * scale)
        return gradient_and_product(bound, inside)[1]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CASO(GroupFeatures):
    """D*, with the Hessian H of the loss.

    >>> maps = mg.CASO(model).attribute(x)

    A product with H counts as two evaluations. Details also: `lambda2`, `top_eigenvalue` (L),
    `top_error` (how far below it may be), and for gauss-newton `hessian_gap`, ||(H - G) g|| / (L
    ||g||), what its products lack of the Hessian's. The derivative holds lambda1 and lambda2, and
    is that of the exact Hessian's solution.

    Source: CASO paper eq. (5), theorem 3. Differs: solved to a residual, per sample.
    """

    hessian: str = "exact"
    """Which Hessian: "exact"; or "gauss-newton", the same for piecewise linear networks and cheaper
    for others, where `hessian_gap` says how far it is from their Hessian."""
    tolerance: float = 1e-4
    """Distance of 0 from the objective's derivatives, over ||g||, at which a sample is done; the
    explanation's error is the bound of the map's relative error that follows from it."""
    max_evaluations: int = 200
    """Evaluations at which a sample stops short of that."""

    method: ClassVar[str] = "caso"
    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT,)
    # The recorded gradient is kept for the products, and needs some times a pass's memory.
    full_passes: ClassVar[float] = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("hessian", self.hessian, HESSIANS)
        if not self.tolerance > 0:
            raise ValueError(f"tolerance: expected a number > 0, got {self.tolerance!r}")
        if self.max_evaluations < 1:
            raise ValueError(f"max_evaluations: expected at least 1, got {self.max_evaluations!r}")

    def budget(self) -> int:
        return self.max_evaluations * self._draws()

    def fixed(self, draws: int) -> Self:
        return replace(super().fixed(draws), tolerance=max(self.tolerance, ROUGH))

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        """J' c = -grad_x w'(g + H D), with (2 lambda2 I - H) w = c on the entries that are not
        zero; D, w and lambda2 held."""
        scale = flat_scale(self.std, bound.layout, bound.origin)
        support = maps.values != 0
        twice = 2 * maps.details["lambda2"]
        model = LossModel(bound, Exact, scale)

        def root(v: Tensor) -> Tensor:
            return torch.where(support, v, 0.0)

        w, _ = shifted_solve(
            model.product, root, cotangent, -1 / twice, self.tolerance, self.max_evaluations
        )
        # Of the score, whose derivatives are minus the loss's; the map is minus D.
        return pulled_twice(bound, w / twice[:, None] / scale, -maps.values / scale)

    def _maps(self, bound: BoundScore) -> Solution:
        with outside_autocast(bound) as bound:
            try:
                return self._solved(bound, self.hessian)
            except NoSecondDerivative as error:
                if self.hessian == GAUSS_NEWTON:
                    raise
                maps = self._solved(bound, GAUSS_NEWTON)
                warnings.warn(f"solved with the Gauss-Newton matrix instead: {error}", stacklevel=2)
                return maps

    def _solved(self, bound: BoundScore, hessian: str) -> Solution:
        scale = flat_scale(self.std, bound.layout, bound.origin)
        model = LossModel(bound, HESSIANS[hessian], scale)
        problem = SecondOrderProblem(
            gradient=model.gradient,
            product=model.product,
            probe=PROBE.draw(bound.keys, 0, bound.origin, bound.mask),
            lambda1=self._rule(bound.counts),
            lambda2=self.lambda2,
            c1=self.c1,
        )
        begun = 1 if hessian == EXACT else 1 + PRODUCT
        allowed = self.max_evaluations // bound.passes - begun
        check = check_cost(model)
        if allowed - check < PRODUCT * FEWEST:
            check = 0
        most = (allowed - check) // PRODUCT
        found = solve_second_order(problem, self.tolerance, most)
        chosen = problem.lambda1 if isinstance(self.lambda1, str) else None
        error, residual = accuracy(
            model, found, chosen, follows=self.lambda2 is None, measured=check > 0
        )
        surrogate = (model.gradient * found.delta + found.image * found.delta / 2).sum(1)
        return Solution(
            values=0.0 - found.delta,
            status=statuses(found, residual, self.tolerance, most, noisy=bound.sigma is not None),
            residual=residual,
            error=error,
            eta=found.lambda1,
            steps=found.products,
            evaluations=(begun + PRODUCT * found.products + check) * bound.passes,
            details=self._told(bound, scale, found.delta, surrogate)
            | {"lambda2": found.lambda2, "top_eigenvalue": found.top, "top_error": found.top_error}
            | hessian_gap(model, found.top),
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class _Smooth(GroupFeatures):
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
class SmoothCAFO(_Smooth, CAFO):
    """CAFO of the mean loss under Gaussian noise.

    >>> maps = mg.SmoothCAFO(model, samples=4).attribute(x)

    Source: CASO paper section 5.
    """

    method: ClassVar[str] = "smooth-cafo"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothCASO(_Smooth, CASO):
    """CASO of the mean loss under Gaussian noise.

    >>> maps = mg.SmoothCASO(model, samples=4).attribute(x)

    Source: CASO paper definition 4.
    """

    tolerance: float = 1e-2
    """Residual at which a sample is done; what the number of draws leaves open is far more."""
    max_evaluations: int = 3200
    """Evaluations of all draws at which a sample stops short of that."""

    method: ClassVar[str] = "smooth-caso"
