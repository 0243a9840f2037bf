"""CASO: the displacement that changes the loss most, to second order, and the error of its map.

The solver's residual says how well the problem of these products is solved. It does not include
that other noise samples would give another problem, nor that reduced precision has changed the
problem: `_accuracy` adds both.
"""

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
    outside_autocast,
)
from moreaugrad.curvature.second_derivatives import NoSecondDerivative
from moreaugrad.explainers.cafo import DisplacementExplainer
from moreaugrad.explainers.derivatives import IMPLICIT, pulled_twice
from moreaugrad.explainers.gradient import SmoothedExplainer
from moreaugrad.penalties.base import prox_derivative
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import flat_scale
from moreaugrad.score.numerics import OtherRounding
from moreaugrad.settings import expect
from moreaugrad.solvers.blocks import block_error, paired_blocks, relative
from moreaugrad.solvers.problem import QuadraticProblem
from moreaugrad.solvers.second_order import PROBE, QuadraticSolution, Rule, SecondOrder
from moreaugrad.solvers.solution import Solution, Status

ROUGH = 1e-2
"""Tolerance in the steps of an attack."""
FEWEST = 4
"""Products that come before any evaluations are spent on the error."""
CHECK = 1 + 2 * PRODUCT
"""Evaluations of the error, for each noise sample: a gradient, and products with the solution and
with L's eigenvector."""
ROUNDINGS = 6
"""Other roundings of the network's results that estimate the error of reduced precision."""
LEAST = 4
"""Least error, in units of the working precision."""
ROUGHLY = 1e-3
"""Smallest relative difference to the Hessian that is reported."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CASO(DisplacementExplainer):
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
    """Distance of 0 from the objective's subdifferential, over ||g||, at which a sample is done.
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

    def budget(self) -> int:
        return self.max_evaluations * self._draws()

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
            rows = torch.arange(len(bound), device=delta.device)
            inner = (model.gradient + model.product(delta, rows)) / twice[:, None]
            w = prox_derivative(penalty, inner, tau)(cotangent)
        # Of the score, whose derivatives are minus the loss's.
        return pulled_twice(bound, w / twice[:, None] / scale, delta / scale)

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
        penalty = self._penalty(bound)
        given = self._given(bound)
        problem = QuadraticProblem(
            gradient=model.gradient,
            product=model.product,
            probe=PROBE.draw(bound.keys, 0, bound.origin, bound.mask),
            eta=given,
            lambda2=torch.full_like(given, self.c1 if self.lambda2 is None else self.lambda2),
            penalty=penalty,
            cost=PRODUCT * bound.passes,
        )
        begun = 1 if hessian == EXACT else 1 + PRODUCT
        allowed = self.max_evaluations // bound.passes - begun
        check = _check_cost(model)
        if allowed - check < PRODUCT * FEWEST:
            check = 0
        solver = SecondOrder(
            tolerance=self.tolerance,
            max_products=(allowed - check) // PRODUCT,
            rule=self._rule(penalty, bound),
            c1=self.c1 if self.lambda2 is None else None,
        )
        found = solver.solve(problem)
        error, residual = _accuracy(
            model, found, solver.rule, follows=self.lambda2 is None, measured=check > 0
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
            "details": details | _hessian_gap(model, found.top),
        }
        return Solution(values=0.0 - delta, **provenance)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothCASO(SmoothedExplainer, CASO):
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


def _check_cost(model: LossModel) -> int:
    """Evaluations of `_accuracy` for each noise sample."""
    if model.bound.sigma is not None:
        return CHECK
    return ROUNDINGS * CHECK if model.reduced else 0


def _accuracy(
    model: LossModel,
    found: QuadraticSolution,
    rule: Rule | None,
    *,
    follows: bool,
    measured: bool,
) -> tuple[Tensor, Tensor]:
    """The solution's relative error and the residual, `[B]` each, with all causes counted.

    rule: how lambda1 was chosen; None if it was given. follows: lambda2 is L / 2 + c1, so L's error
    counts too. measured: False leaves what noise or rounding add unknown, NaN.
    """
    # Neither is known better than the precision in which the solver computes.
    least = torch.finfo(found.values.dtype).eps * found.values.any(1)
    error, residual = found.error + LEAST * least, found.residual.maximum(least)
    if _check_cost(model) == 0:
        return error, residual
    noisy = model.bound.sigma is not None
    if not measured:
        unknown = torch.full_like(error, torch.nan)
        return unknown, residual if noisy else unknown
    if noisy:
        return error.hypot(_sampling_error(model, found, rule, follows=follows)), residual
    more, off = _rounding_error(model, found, rule, follows=follows)
    return error + more + model.bound.layout.lost(found.values), residual + off


def _sampling_error(
    model: LossModel, found: QuadraticSolution, rule: Rule | None, *, follows: bool
) -> Tensor:
    """Standard error of the solution `[B]`, over its length, from blocks of noise samples."""
    blocks = paired_blocks(model.bound.samples)
    joined = [torch.cat(_slopes(model, found, follows, block), dim=1) for block in blocks]

    def mapped(both: Tensor) -> Tensor:
        gradient, slope = both.chunk(2, dim=1)
        return found.moved(slope - found.slope, gradient, rule)

    return relative(block_error(blocks, joined, mapped), found.values)


def _rounding_error(
    model: LossModel, found: QuadraticSolution, rule: Rule | None, *, follows: bool
) -> tuple[Tensor, Tensor]:
    """Errors by rounding: the solution's, over its length, and its slope's, over ||g||, `[B]` each.

    The largest change among a few other roundings of the network's results.
    """
    error, residual = torch.zeros_like(found.residual), torch.zeros_like(found.residual)
    for seed in range(ROUNDINGS):
        with OtherRounding(seed):
            gradient, slope = _slopes(model, found, follows, None)
        change = slope - found.slope
        moved = found.moved(change, gradient, rule)
        error = torch.maximum(error, (moved - found.values).norm(dim=1))
        residual = torch.maximum(residual, change.norm(dim=1))
    length = model.gradient.norm(dim=1)
    return relative(error, found.values), torch.where(residual == 0, residual, residual / length)


def _slopes(
    model: LossModel, found: QuadraticSolution, follows: bool, draws: range | None
) -> tuple[Tensor, Tensor]:
    """g and g + H D - L D over some noise samples, `[B, n]` each; no L D if lambda2 is given."""
    gradient, along, top = model.at(draws, found.values, found.axis)
    slope = gradient + along
    if follows:
        slope = slope - (top * found.axis).sum(1, keepdim=True) * found.values
    return gradient, slope


def _hessian_gap(model: LossModel, top: Tensor) -> dict[str, Tensor]:
    """How far Gauss-Newton products are from the Hessian's; warns where they differ.

    ||(H - G) g|| / (L ||g||): zero for piecewise linear networks, up to rounding.
    """
    if model.kind is Exact:
        return {}
    off = model.lacking.norm(dim=1)
    gap = torch.where(off == 0, off, off / (top * model.gradient.norm(dim=1)))
    if bool((gap > ROUGHLY).any()):
        warnings.warn(
            "gauss-newton: not the Hessian of this network, which is not piecewise linear: their "
            f"products with the gradient differ by up to {float(gap.max()):.2g} of the largest "
            "eigenvalue's; use hessian='exact'",
            stacklevel=2,
        )
    return {"hessian_gap": gap}
