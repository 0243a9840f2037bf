"""The error of a CASO map: the solver's residual, and what noise and rounding add to it.

The residual says how well the problem of the computed products is solved. It does not include that
other noise samples would give another problem, nor that reduced precision has changed the problem.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from moreaugrad.curvature.products import PRODUCT, Exact, LossModel
from moreaugrad.score.inputs import lengths
from moreaugrad.score.rounding import ROUNDINGS, OtherRounding
from moreaugrad.solvers.blocks import block_error, paired_blocks, relative
from moreaugrad.solvers.second_order import QuadraticSolution
from moreaugrad.solvers.sparsity import Rule

CHECK = 1 + 2 * PRODUCT
"""Evaluations of the error, for each noise sample: a gradient, and products with the solution and
with L's eigenvector."""
LEAST = 4
"""Least error, in units of the working precision."""
ROUGHLY = 1e-3
"""Smallest relative difference to the Hessian that is reported."""


def check_cost(model: LossModel) -> int:
    """Evaluations of `solution_error` for each noise sample."""
    if model.bound.sigma is not None:
        return CHECK
    return ROUNDINGS * CHECK if model.reduced else 0


def solution_error(
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
    if check_cost(model) == 0:
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

    The root of the sum, not of the mean, of the squared changes by a few other roundings: a single
    rounding is up to that many standard deviations off where few operators decide the error.
    """
    error, residual = torch.zeros_like(found.residual), torch.zeros_like(found.residual)
    for seed in range(ROUNDINGS):
        with OtherRounding(seed):
            gradient, slope = _slopes(model, found, follows, None)
        change = slope - found.slope
        moved = found.moved(change, gradient, rule)
        error = error.hypot(lengths(moved - found.values))
        residual = residual.hypot(lengths(change))
    length = lengths(model.gradient)
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


def hessian_gap(model: LossModel, top: Tensor) -> dict[str, Tensor]:
    """How far Gauss-Newton products are from the Hessian's; warns where they differ.

    ||(H - G) g|| / (L ||g||): zero for piecewise linear networks, up to rounding.
    """
    if model.kind is Exact:
        return {}
    off = lengths(model.lacking)
    gap = torch.where(off == 0, off, off / top / lengths(model.gradient))
    if bool((gap > ROUGHLY).any()):
        warnings.warn(
            "gauss-newton: not the Hessian of this network, which is not piecewise linear: their "
            f"products with the gradient differ by up to {float(gap.max()):.2g} of the largest "
            "eigenvalue's; use hessian='exact'",
            stacklevel=2,
        )
    return {"hessian_gap": gap}
