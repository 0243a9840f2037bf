"""CASO: the displacement that changes the loss most, to second order; see `cafo`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.curvature.krylov import shifted_solve
from moreaugrad.curvature.products import (
    EXACT,
    GAUSS_NEWTON,
    HESSIANS,
    PRODUCT,
    Exact,
    LossModel,
)
from moreaugrad.curvature.second_derivatives import NoSecondDerivative
from moreaugrad.explainers.cafo import Displacement
from moreaugrad.explainers.caso_error import check_cost, hessian_gap, solution_error
from moreaugrad.explainers.derivatives import IMPLICIT, pulled_twice
from moreaugrad.explainers.smoothed import SmoothedExplainer
from moreaugrad.penalties.base import prox_derivative
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.forward import outside_autocast
from moreaugrad.score.inputs import flat_scale
from moreaugrad.settings import expect
from moreaugrad.solvers.second_order import PROBE, QuadraticProblem
from moreaugrad.solvers.solution import Solution, Status

ROUGH = 1e-2
"""Tolerance in the steps of an attack."""
FEWEST = 4
"""Products that come before any evaluations are spent on the error."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CASO(Displacement):
    """A = -D*, D* as in CAFO but with the Hessian H of the loss: to second order.

    >>> maps = mg.CASO(model).attribute(x)

    A product with H counts as two evaluations. Further details: `lambda2`, `top_eigenvalue` (L),
    `top_error` (how far L may be above that) and, for gauss-newton, `hessian_gap`,
    ||(H - G) g|| / (L ||g||), the difference of its products from the Hessian's. The derivative is
    that of the solution with the exact Hessian, at fixed lambda1 and lambda2.

    Source: CASO paper eq. (5), theorem 3. Differs: solved to a residual, per sample.
    """

    hessian: str = "exact"
    """Which matrix: "exact", the Hessian; or "gauss-newton", equal to it for piecewise linear
    networks and cheaper for others, where `hessian_gap` reports the difference."""
    tolerance: float = 1e-4
    """Length of a proximal gradient step, times the objective's curvature and over ||g||, at which
    a sample is done.
    The explanation's error is the bound on the map's relative error that follows from it."""
    max_evaluations: int = 200
    """Evaluations at which a sample stops short of that."""

    method: ClassVar[str] = "caso"
    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT,)
    # The recorded gradient is kept for the products, and needs some times a pass's memory.
    full_passes: ClassVar[float] = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("hessian", self.hessian, HESSIANS)
        expect(self.tolerance > 0, "tolerance", "a number > 0", self.tolerance)
        expect(self.max_evaluations >= 1, "max_evaluations", "at least 1", self.max_evaluations)

    def map_budget(self) -> int:
        return self.max_evaluations

    def fixed(self, draws: int) -> Self:
        return replace(super().fixed(draws), tolerance=max(self.tolerance, ROUGH))

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        """J' c = -grad_x w'(g + H D) at fixed D, w and weights: 2 lambda2 w = R z, R R the prox's
        derivative, (I - R H R / (2 lambda2)) z = R c."""
        scale = flat_scale(self.std, bound.layout, bound.origin)
        penalty, twice = self._penalty(bound), 2 * maps.details["lambda2"]
        tau = maps.eta / twice
        # The map is minus the displacement.
        delta = -maps.values
        model = LossModel(bound, Exact, scale)
        if penalty.differentiable:

            def root(v: Tensor) -> Tensor:
                return penalty.prox_root(delta, tau, v)

            z, _ = shifted_solve(
                model.product, root, cotangent, -1 / twice, self.tolerance, self.max_evaluations
            )
            w = root(z)
        else:
            inner = (model.gradient + model.product(delta, bound.rows)) / twice[:, None]
            w = prox_derivative(penalty, inner, tau)(cotangent)
        # Of the score, whose derivatives are minus the loss's.
        return pulled_twice(bound, w / twice[:, None] / scale, delta / scale)

    def _maps(self, bound: BoundScore) -> Solution:
        with outside_autocast(bound.origin.device):  # an attack comes here directly
            try:
                return self._solved(bound, self.hessian)
            except NoSecondDerivative as error:
                if self.hessian == GAUSS_NEWTON:
                    raise
                maps = self._solved(bound, GAUSS_NEWTON)
                warnings.warn(f"solved with the Gauss-Newton matrix instead: {error}", stacklevel=2)
                return replace(maps, settings={"hessian": GAUSS_NEWTON})

    def _solved(self, bound: BoundScore, hessian: str) -> Solution:
        scale = flat_scale(self.std, bound.layout, bound.origin)
        model = LossModel(bound, HESSIANS[hessian], scale)
        penalty = self._penalty(bound)
        given = self._given(bound)
        problem = QuadraticProblem(
            gradient=model.gradient,
            product=model.product,
            probe=PROBE.draw(bound.keys, 0, bound.origin, bound.mask),
            eta=given,
            lambda2=torch.full_like(given, self.c1 if self.lambda2 is None else self.lambda2),
            penalty=penalty,
            rule=self._rule(penalty, bound),
            c1=self.c1 if self.lambda2 is None else None,
            cost=PRODUCT * bound.passes,
        )
        begun = 1 if hessian == EXACT else 1 + PRODUCT
        allowed = self.max_evaluations // bound.passes - begun
        check = check_cost(model)
        if allowed - check < PRODUCT * FEWEST:
            check = 0
        found = problem.solve(self.tolerance, (allowed - check) // PRODUCT)
        error, residual = solution_error(
            model, found, problem.rule, follows=self.lambda2 is None, measured=check > 0
        )
        rough = ~(residual <= self.tolerance)
        rough &= found.having(Status.CONVERGED)
        found = found.marked(Status.PRECISION, rough, error)
        if bound.sigma is not None:
            found = found.marked(Status.FIXED_BUDGET, found.having(Status.CONVERGED))
        delta = found.values
        surrogate = (model.gradient * delta + found.image * delta / 2).sum(1)
        details = self._details(bound, scale, delta, surrogate)
        details |= {
            "lambda2": found.lambda2, "top_eigenvalue": found.top, "top_error": found.top_error,
        }  # fmt: skip
        provenance = found.provenance() | {
            "residual": residual,
            "evaluations": found.evaluations + (begun + check) * bound.passes,
            "details": details | hessian_gap(model, found.top),
        }
        return Solution(values=0.0 - delta, **provenance)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothCASO(CASO, SmoothedExplainer):
    """CASO of the mean loss over `samples` antithetic noise samples: one joint problem.

    >>> maps = mg.SmoothCASO(model, samples=4).attribute(x)

    Source: CASO paper definition 4, eq. (8). Differs: one target for all noise samples.
    """

    samples: int = 32

    tolerance: float = 1e-2
    """Residual at which a sample is done; the error by the noise is usually far larger."""
    max_evaluations: int = 3200
    """Evaluations, of all noise samples together, at which a sample stops short of that."""

    method: ClassVar[str] = "smooth-caso"
