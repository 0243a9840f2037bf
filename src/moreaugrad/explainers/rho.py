"""Which rho to take: from an estimated curvature, or by the paper's rule of thumb."""

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
"""rho * lambda that the guidance aims at: below 1 with room for what the estimate missed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RhoGuidance:
    """`rho` to use and the `limit` 1 / lambda, `[B]` each; infinite where no curvature was seen.

    An estimate: beyond the limit the map is not unique; below it nothing was seen against it.
    """

    rho: Tensor
    limit: Tensor
    curvature: Curvature


def rho_guidance(
    explainer: Moreau,
    inputs: Inputs,
    target: TargetLike = None,
    additional_forward_args: object = None,
    steps: int = 12,
    *,
    mask: MaskLike = None,
) -> RhoGuidance:
    """The rho at which this explainer's score has rho * lambda = 0.5 by estimate, per sample.

    `explainer.samples` draws enter where it has noise. Source: MoreauGrad theorem 1.
    """
    bound = explainer.bind(inputs, target, additional_forward_args, mask=mask)
    curvature = estimate_curvature(bound, steps, explainer.seed)
    limit = 1 / curvature.weak_convexity
    return RhoGuidance(rho=SAFETY * limit, limit=limit, curvature=curvature)


def paper_rho(inputs: Inputs) -> float:
    """rho = 1 / sqrt(E ||X||_2), the paper's rule of thumb, over this batch.

    It depends on the units and the number of pixels: about 0.05 for mean/std-normalised 224 x 224
    photos, where the paper itself uses 1. Source: MoreauGrad section 6.2.
    """
    parts = as_parts(inputs)
    square = torch.stack([part.double().flatten(1).square().sum(1) for part in parts]).sum(0)
    return 1 / math.sqrt(float(square.sqrt().mean()))
