"""How far a map of a second-order problem may be off for reasons that its solver cannot see.

The solver's residual says how well the problem of these products is solved. With noise, other draws
would give another problem; in reduced precision, the network's rounding has changed it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from moreaugrad.curvature.products import PRODUCT, Exact, LossModel
from moreaugrad.score.numerics import OtherRounding
from moreaugrad.solvers.second_order import QuadraticSolution, Rule

CHECK = 1 + 2 * PRODUCT
"""Evaluations of one draw: its gradient, and products with the solution and L's eigenvector."""
ROUNDINGS = 6
BLOCKS = 16
LEAST = 4
"""Units of the working precision that an error counts at least."""
ROUGHLY = 1e-3
"""Difference to the Hessian that is not reported."""


def blocks_of(samples: int) -> list[range]:
    """Draws in at most 16 blocks of whole antithetic pairs, as equal as can be."""
    pairs = samples // 2
    count = min(BLOCKS, pairs)
    ends = [2 * (pairs * k // count) for k in range(count)] + [samples] if count else [0, samples]
    return [range(low, high) for low, high in pairwise(ends)]


def mean_of(blocks: Sequence[range], terms: Sequence[Tensor]) -> Tensor:
    """The mean over all draws, from the means over blocks."""
    sums = [len(block) * term for block, term in zip(blocks, terms, strict=True)]
    return torch.stack(sums).sum(0) / sum(map(len, blocks))


def jackknife(
    blocks: Sequence[range], terms: Sequence[Tensor], mapped: Callable[[Tensor], Tensor]
) -> Tensor:
    """Standard error `[B]` of mapped(mean over draws), from the means over blocks `[B, n]`.

    Delete-one through `mapped`, because the error of a thresholded map is not the thresholded
    error. NaN for fewer than two blocks.
    """
    total = sum(map(len, blocks))
    if len(blocks) < 2:
        return torch.full_like(terms[0][:, 0], torch.nan)
    sums = [len(block) * term for block, term in zip(blocks, terms, strict=True)]
    whole = total * mean_of(blocks, terms)
    maps = [
        mapped((whole - part) / (total - len(block)))
        for block, part in zip(blocks, sums, strict=True)
    ]
    centre = torch.stack(maps).mean(0)
    squares = [
        (total - len(block)) / total * (one - centre).double().square().sum(1)
        for block, one in zip(blocks, maps, strict=True)
    ]
    return torch.stack(squares).sum(0).sqrt().to(terms[0])


def check_cost(model: LossModel) -> int:
    """Evaluations, for each draw, of what `accuracy` measures."""
    if model.bound.sigma is not None:
        return CHECK
    return ROUNDINGS * CHECK if model.reduced else 0


def accuracy(
    model: LossModel,
    found: QuadraticSolution,
    rule: Rule | None,
    *,
    follows: bool,
    measured: bool,
) -> tuple[Tensor, Tensor]:
    """The solution's relative error and the residual `[B]`, all causes counted.

    rule: by which lambda1 was chosen; None where it was given. follows: lambda2 is L / 2 + c1, and
    L's own error counts. Not measured, what the draws or the rounding add is unknown: NaN.
    """
    # Neither is known better than to the precision that the solver computes in.
    least = torch.finfo(found.values.dtype).eps * found.values.any(1)
    error, residual = found.error + LEAST * least, found.residual.maximum(least)
    if check_cost(model) == 0:
        return error, residual
    noisy = model.bound.sigma is not None
    if not measured:
        unknown = torch.full_like(error, torch.nan)
        return unknown, residual if noisy else unknown
    if noisy:
        return error.hypot(sampling_error(model, found, rule, follows=follows)), residual
    more, off = rounding_error(model, found, rule, follows=follows)
    return error + more + model.bound.layout.lost(found.values), residual + off


def sampling_error(
    model: LossModel, found: QuadraticSolution, rule: Rule | None, *, follows: bool
) -> Tensor:
    """Standard error of the solution `[B]`, over its length, by blocks of the draws."""
    blocks = blocks_of(model.bound.samples)
    gradients, slopes = [], []
    for block in blocks:
        gradient, slope = _slopes(model, found, follows, block)
        gradients.append(gradient)
        slopes.append(slope)
    n = gradients[0].shape[1]
    mean = found.slope

    def mapped(both: Tensor) -> Tensor:
        return found.moved(both[:, n:] - mean, both[:, :n], rule)

    joined = [torch.cat(pair, dim=1) for pair in zip(gradients, slopes, strict=True)]
    return relative(jackknife(blocks, joined, mapped), found.values)


def rounding_error(
    model: LossModel, found: QuadraticSolution, rule: Rule | None, *, follows: bool
) -> tuple[Tensor, Tensor]:
    """Of the solution, over its length, and of the objective's derivatives, over ||g||: `[B]` each.

    The largest of a few changes that come of rounding the network's results otherwise.
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
    """g and g + H D - L D over some draws, `[B, n]` each, L where lambda2 follows it."""
    gradient, along, top = model.at(draws, found.values, found.axis)
    slope = gradient + along
    if follows:
        slope = slope - (top * found.axis).sum(1, keepdim=True) * found.values
    return gradient, slope


def relative(error: Tensor, delta: Tensor) -> Tensor:
    """An error's length `[B]` over that of the solution."""
    return torch.where(error == 0, error, error / delta.norm(dim=1))


def hessian_gap(model: LossModel, top: Tensor) -> dict[str, Tensor]:
    """How far products with the Gauss-Newton matrix are from the Hessian's; a warning if they are.

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
