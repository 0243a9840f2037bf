"""The choice of rho, by an estimate of the curvature or by the paper's rule of thumb."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.curvature.krylov import Curvature, estimate_curvature
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.score.checks import as_parts
from moreaugrad.score.inputs import MaskLike
from moreaugrad.score.score import Inputs
from moreaugrad.score.targets import TargetLike

SAFETY = 0.5
"""rho * lambda of the recommended rho: below 1, because the estimate of lambda may be too small."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RhoGuidance:
    """A recommended rho, by an estimate of the score's largest negative curvature lambda.

    >>> found = mg.rho_guidance(mg.MoreauGrad(model), x)
    """

    rho: Tensor
    """0.5 / lambda, `[B]`; infinite where no negative curvature was found."""
    limit: Tensor
    """1 / lambda, `[B]`: above it the map is not unique; below it, it is unique as far as seen."""
    curvature: Curvature
    """The estimated curvature."""


def rho_guidance(
    explainer: Moreau,
    inputs: Inputs,
    target: TargetLike = None,
    additional_forward_args: object = None,
    steps: int = 12,
    *,
    mask: MaskLike = None,
) -> RhoGuidance:
    """The rho for which rho * lambda = 0.5 by estimate, for each sample's score.

    >>> found = mg.rho_guidance(mg.MoreauGrad(model), x)

    A smoothed score is averaged over `explainer.samples` noise samples. steps: Lanczos steps.
    Source: MoreauGrad theorem 1.
    """
    bound = explainer.bind(inputs, target, additional_forward_args, mask=mask)
    curvature = estimate_curvature(bound, steps, explainer.seed)
    limit = 1 / curvature.weak_convexity
    return RhoGuidance(rho=SAFETY * limit, limit=limit, curvature=curvature)


def paper_rho(inputs: Inputs) -> float:
    """rho = 1 / sqrt(E ||X||_2), the paper's rule of thumb, with the mean over this batch.

    >>> rho = mg.paper_rho(x)

    It depends on the units and the number of pixels: about 0.05 for mean/std-normalised 224 x 224
    photos, for which the paper itself uses 1. Source: MoreauGrad section 6.2.
    """
    parts = as_parts(inputs)
    square = torch.stack([part.double().flatten(1).square().sum(1) for part in parts]).sum(0)
    return 1 / math.sqrt(float(square.sqrt().mean()))
