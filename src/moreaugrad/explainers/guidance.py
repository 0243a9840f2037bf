"""Settings for a user's own model and inputs: how much noise, and how far an envelope reaches.

The noise level is the largest one at which a map is still about as faithful as at the best level:
more noise makes a map more stable, until it explains the noise. rho is half of the limit below
which the map is unique by estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from moreaugrad.curvature.krylov import Curvature, estimate_curvature
from moreaugrad.explainers.base import Explainer
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.centre import HALVES
from moreaugrad.score.checks import as_parts
from moreaugrad.score.forward import outside_autocast
from moreaugrad.score.inputs import InputSpace, MaskLike, lengths, spread
from moreaugrad.score.noise import DEFAULT_SIGMA, Noise
from moreaugrad.score.score import Inputs, Score
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import Documented, expect
from moreaugrad.solvers.block_means import BlockMeans

AUTO = "auto"
SIGMAS = (0.025, 0.05, 0.1, 0.2, 0.4)
"""Noise levels that are tried, as fractions of each input's range."""
KEPT = 0.9
"""Fraction of the best level's faithfulness that a larger level has to keep."""
SAMPLES = 64
"""Noise samples of the map at each level."""
STEPS, ORDERS, PARTS = 10, 3, 8
"""Of its faithfulness: regions that are replaced, random replacements, and regions along an axis.
"""
SAFETY = 0.5
"""rho * lambda of the recommended rho: below 1, because the estimate of lambda may be too small."""
LANCZOS, RHO_SAMPLES = 12, 16
"""Lanczos steps of that estimate, and noise samples for one that is made for every map."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RhoGuidance(metaclass=Documented, heading="Attributes"):
    """A recommended rho, by an estimate of the score's largest negative curvature lambda.

    >>> found = mg.rho_guidance(mg.MoreauGrad(model), x)
    """

    rho: Tensor
    """0.5 / lambda, `[B]`; infinite where no negative curvature was found."""
    limit: Tensor
    """1 / lambda, `[B]`: above it the map is not unique; below it, it is unique as far as seen."""
    curvature: Curvature
    """The estimated curvature."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Guidance(RhoGuidance, heading="Attributes"):
    """Settings for each sample, and what they were chosen by. rho is for the recommended noise.

    >>> found = mg.guidance(model, x)
    >>> explainer = mg.SmoothGrad(model, sigma=float(found.sigma.median()))
    """

    sigma: Tensor
    """The recommended noise level, a fraction of the input's range, `[B]`."""
    sigmas: tuple[float, ...]
    """The levels that were tried, ascending."""
    faithfulness: Tensor
    """AOPC of the SmoothGrad map at each level, `[B, levels]`, in probability (of a regression in
    its output); NaN for a map of zeros."""
    survival: Tensor
    """Fraction of the noisy inputs at each level whose predicted class is the explained one, `[B,
    levels]`; NaN for a regression, which predicts no class."""
    evaluations: int
    """Gradient evaluations and forward passes of each sample."""


def guidance(
    model: ForwardFunc,
    inputs: Inputs,
    target: TargetLike = None,
    additional_forward_args: object = None,
    *,
    score: str = "logit",
    task: str = "auto",
    sigmas: Sequence[float] = SIGMAS,
    kept: float = KEPT,
    samples: int = SAMPLES,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Sequence[int] | Tensor | None = None,
) -> Guidance:
    """A noise level and a rho for each sample, by about 2500 evaluations of each.

    >>> found = mg.guidance(model, x)

    sigma: of `sigmas`, the largest level up to which the map stays faithful: from the level with
    the largest AOPC upwards, as long as AOPC is at least `kept` of that; the smallest where AOPC is
    nowhere above 0. Maps are SmoothGrad's with `samples` noise samples; AOPC replaces up to ten of
    about 8 x 8 regions by uniform random values in the input's own range, and counts falls of the
    probability, of a regression of its output: guide by the negative output where inputs lower it.
    rho: half of the limit at which the map stops being unique, of the score that is smoothed with
    that noise.
    inputs: images `[B, C, H, W]` or vectors `[B, N]`. The other arguments are those of an explainer
    and its `explain`.
    Errors: ValueError or TypeError for bad input.
    """
    levels = tuple(sorted({float(sigma) for sigma in sigmas}))
    usable = bool(levels) and levels[0] > 0 and levels[-1] < math.inf
    expect(usable, "sigmas", "finite numbers > 0", list(sigmas))
    expect(0 < kept <= 1, "kept", "a fraction in (0, 1]", kept)
    expect(samples >= 2, "samples", "at least 2", samples)
    bound = Score(
        model, kind=score, task=task, batch_size=batch_size, sigma=1.0, samples=samples,
        noise=Noise(seed),
    ).bind(inputs, target, additional_forward_args, ids)  # fmt: skip
    faithful = faithfulness(bound, levels)
    sigma = best_sigma(faithful, levels, kept)
    curvature = estimate_curvature(_at(bound, sigma), LANCZOS, seed)
    return Guidance(
        **_of_curvature(curvature),
        sigma=sigma,
        sigmas=levels,
        faithfulness=faithful,
        survival=torch.stack([_survival(_at(bound, level)) for level in levels], dim=1),
        evaluations=len(levels) * (_of_level(samples) + samples) + curvature.evaluations,
    )


def faithfulness(bound: BoundScore, levels: Sequence[float]) -> Tensor:
    """AOPC of the SmoothGrad map at each level, `[B, levels]`, one sample as if alone.

    bound: with the noise of a level of 1. Errors: ValueError for what has no regions to replace.
    """
    shapes = bound.layout.shapes
    if len(shapes) != 1 or len(shapes[0]) not in (1, 3) or bound.mask is not None:
        raise ValueError(
            "sigma: expected a number, because the one that suits a sample is found by replacing "
            "regions of one image [B, C, H, W] or vector [B, N] without padding; got samples of "
            f"shape {', '.join(map(str, shapes))}"
        )
    plain = replace(bound, sigma=None)
    spaces = [_own_range(part) for part in bound.origin]
    found = []
    for level in levels:
        with outside_autocast(bound.origin.device):
            (maps,) = bound.layout.restore(BlockMeans.of(_at(bound, level), centred=True).mean)
        rows = [
            _faithfulness(plain.select(row), maps[row], space)
            for row, space in zip(bound.rows[:, None], spaces, strict=True)
        ]
        found.append(torch.cat(rows))
    return torch.stack(found, dim=1)


def best_sigma(faithful: Tensor, levels: Sequence[float], kept: float = KEPT) -> Tensor:
    """Of each sample `[B]`: from the level with the largest faithfulness upwards, the last one
    before it falls below `kept` of that; the smallest level where none is faithful (above 0)."""
    known = faithful.nan_to_num(nan=-torch.inf)
    most, first = known.max(1)
    enough = known >= kept * most[:, None]
    place = torch.arange(len(levels), device=known.device)
    lost = (place > first[:, None]) & ~enough
    last = torch.where(lost.any(1), lost.int().argmax(1), len(levels)) - 1
    last = torch.where(most > 0, last, 0)
    return torch.tensor(levels, dtype=torch.float64, device=known.device)[last]


def with_best_sigma(bound: BoundScore) -> BoundScore:
    """With the noise level of each sample, the best one where none is chosen yet. bound: with the
    noise of a level of 1."""
    if "sigma" in bound.chosen:
        return _at(bound, bound.chosen["sigma"])
    few = replace(bound, samples=SAMPLES)
    sigma = best_sigma(faithfulness(few, SIGMAS), SIGMAS)
    chosen = {**bound.chosen, "sigma": sigma}
    return replace(_at(bound, sigma), chosen=chosen, spent=bound.spent + sigma_cost())


def with_best_rho(bound: BoundScore, seed: int) -> BoundScore:
    """With the rho of each sample, see `best_rho`."""
    chosen = {**bound.chosen, "rho": best_rho(bound, seed)}
    return replace(bound, chosen=chosen, spent=bound.spent + rho_cost(bound.passes))


def best_rho(bound: BoundScore, seed: int) -> Tensor:
    """Half of the limit of each sample by estimate, `[B]`, and at most so much that the envelope
    reaches no farther than noise of that level, or without noise of the usual level.

    Where no negative curvature is found, any rho gives a unique map, but of a point far from the
    input.
    """
    few = replace(bound, samples=min(bound.samples, RHO_SAMPLES))
    guided = _of_curvature(estimate_curvature(few, LANCZOS, seed))["rho"]
    usual = DEFAULT_SIGMA * spread(few.origin, few.mask)
    level = usual if few.sigma is None else few.sigma.amax(1)
    length = lengths(few.value_and_grad()[1])
    reach = level * bound.counts.to(level).sqrt() / length
    reach = torch.where(level > 0, reach, torch.inf)  # a constant input has no range
    rho = torch.minimum(guided, reach)
    return torch.where(rho.isfinite() & (rho > 0), rho, 1.0)


def sigma_cost(samples: int = SAMPLES) -> int:
    """Evaluations of one sample that a choice of its noise level takes."""
    return len(SIGMAS) * _of_level(samples)


def rho_cost(passes: int) -> int:
    """Evaluations of one sample that a choice of its rho takes."""
    return (2 * LANCZOS + 1) * min(passes, RHO_SAMPLES)


def _of_level(samples: int) -> int:
    return samples + HALVES + (STEPS + 1) * ORDERS


def _at(bound: BoundScore, level: float | Tensor) -> BoundScore:
    """With the noise of that level, one for all or `[B]`."""
    assert bound.sigma is not None
    factor = level[:, None].to(bound.sigma) if isinstance(level, Tensor) else level
    return replace(bound, sigma=factor * bound.sigma)


def _own_range(sample: Tensor) -> InputSpace | None:
    """Values between which an input's regions are replaced; None for a constant one."""
    low, high = float(sample.min()), float(sample.max())
    return InputSpace(low=low, high=high) if low < high else None


def _faithfulness(plain: BoundScore, maps: Tensor, space: InputSpace | None) -> Tensor:
    """AOPC of one sample, `[1]`."""
    from moreaugrad.metrics.faithfulness import Replacement, aopc

    if space is None:
        return torch.full((1,), torch.nan, dtype=torch.float64, device=maps.device)
    shape = maps.shape[1:]
    size = min(shape[1:]) / PARTS if len(shape) == 3 else shape[0] / PARTS**2
    score = None if plain.readout.task == "regression" else "probability"
    how = Replacement(size=max(1, round(size)), draws=ORDERS, score=score)
    return aopc(plain, maps, space, steps=STEPS, how=how)


def _survival(bound: BoundScore) -> Tensor:
    """Fraction of the noise samples `[B]` in which the explained class is the prediction."""
    if bound.readout.task == "regression":
        return torch.full_like(bound.clean, torch.nan, dtype=torch.float64)
    margin = replace(bound, readout=replace(bound.readout, kind="margin"))

    def work(points: Tensor, rows: Tensor) -> tuple[Tensor]:
        with torch.no_grad():
            return ((margin.value(points, rows) > 0).to(points.dtype),)

    return margin.mean(work)[0].double()


def rho_guidance(
    explainer: Explainer,
    inputs: Inputs,
    target: TargetLike = None,
    additional_forward_args: object = None,
    steps: int = LANCZOS,
    *,
    mask: MaskLike = None,
) -> RhoGuidance:
    """The rho for which rho * lambda = 0.5 by estimate, for each sample's score.

    >>> found = mg.rho_guidance(mg.MoreauGrad(model), x)

    A smoothed score is averaged over `explainer.samples` noise samples. steps: Lanczos steps.
    Source: MoreauGrad theorem 1.
    """
    bound = explainer.bind(inputs, target, additional_forward_args, mask=mask)
    curvature = estimate_curvature(bound, steps, getattr(explainer, "seed", 0))
    return RhoGuidance(**_of_curvature(curvature))


def _of_curvature(curvature: Curvature) -> dict[str, Any]:
    limit = 1 / curvature.weak_convexity
    return {"rho": SAFETY * limit, "limit": limit, "curvature": curvature}


def paper_rho(inputs: Inputs) -> float:
    """rho = 1 / sqrt(E ||X||_2), the paper's rule of thumb, with the mean over this batch.

    >>> rho = mg.paper_rho(x)

    It depends on the units and the number of pixels: about 0.05 for mean/std-normalised 224 x 224
    photos, for which the paper itself uses 1. Source: MoreauGrad section 6.2.
    """
    parts = as_parts(inputs)
    square = torch.stack([part.double().flatten(1).square().sum(1) for part in parts]).sum(0)
    return 1 / math.sqrt(float(square.sqrt().mean()))
