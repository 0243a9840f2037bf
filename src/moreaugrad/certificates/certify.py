"""Certificates of explainers: how much of a map's top stays under any perturbation of its input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.certificates.bounds import AUTO, bounds, hoeffding_deviation
from moreaugrad.certificates.moreau import (
    distance_within,
    overlap_within,
    probability_curvature,
    smoothed_curvature,
    sparse_lipschitz,
    vanilla_lipschitz,
)
from moreaugrad.certificates.smoothed import overlap_of_bounds
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.explainers.moreau import Moreau, MoreauGrad
from moreaugrad.explainers.progress import Progress
from moreaugrad.explainers.sparsified import Moments, SparsifiedSmoothGrad
from moreaugrad.registry import choose
from moreaugrad.score.noise import ABSOLUTE
from moreaugrad.score.score import Inputs
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import DocumentedResult

CERTIFICATE, ESTIMATE = "certificate", "estimate"
POPULATION, TWO_SAMPLE = "population", "two-sample"
STATEMENTS = (POPULATION, TWO_SAMPLE)
SAMPLED = "the map is sampled, and its error is an estimate"


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate(metaclass=DocumentedResult):
    """At least the fraction `overlap[b, r]` of the `top[b]` largest entries of sample b's map are
    among the largest of the map at any input within `radii[r]`.

    >>> explainer = mg.SparsifiedSmoothGrad(model, samples=64, sigma=0.5, sigma_mode="absolute")
    >>> certificate = mg.certificates.certify(explainer, x, radii=[0.0, 0.1])
    """

    radii: Tensor
    """Lengths of perturbations, `[R]`: Euclidean norms of all entries, in the units of the
    network's input."""
    overlap: Tensor
    """Fractions in [0, 1], `[B, R]`."""
    top: Tensor
    """How many entries count as largest, `[B]`."""
    kind: str
    """Either "certificate", which fails with a probability of at most 1 - `confidence` for each
    sample (all radii together), or "estimate", for which `reason` says what is not proven."""
    statement: str
    """What is stated in words, with the map at the other input that is meant."""
    confidence: float | None = None
    """Probability that a sample's certificate holds."""
    reason: str = ""
    """What is not proven of an estimate."""
    target: Tensor | None = None
    """The class of both maps, `[B]`, which is held, whatever the network predicts at the other
    input; None where it is not known."""
    distance: Tensor | None = None
    """Bound of the distance of the two maps at unit length, `[B, R]`, where there is one."""


def certify(
    explainer: Explainer,
    inputs: Inputs,
    target: TargetLike = None,
    additional_forward_args: object = None,
    *,
    radii: Sequence[float],
    top: float = 0.1,
    statement: str = POPULATION,
    confidence: float = 0.95,
    bound: str = AUTO,
    lipschitz: float | None = None,
    ids: Sequence[int] | Tensor | None = None,
    progress: Progress | bool | None = None,
) -> Certificate:
    """The certificate of SparsifiedSmoothGrad, or the estimate for the MoreauGrad family.

    top: the share of all entries that counts as largest. statement: "population", the map at the
    other input is the exact mean; "two-sample", it is computed as the first, from noise that is
    independent of how that input was found (another seed). confidence and bound: of the means of
    SparsifiedSmoothGrad, see `bounds`. lipschitz: of the score, for MoreauGrad of another one than
    the probability; a proven bound, as `lipschitz_bound` gives.
    Errors: ValueError for settings that make the statement void (`check`), FloatingPointError for
    gradients that are not finite.
    """
    check(explainer, lipschitz)
    if isinstance(explainer, SparsifiedSmoothGrad):
        moments = explainer.moments(
            inputs, target, additional_forward_args, ids=ids, progress=progress
        )
        return certificate_of_moments(
            moments, sigma=explainer.sigma, radii=radii, top=top, statement=statement,
            confidence=confidence, bound=bound,
        )  # fmt: skip
    found = explainer.explain(inputs, target, additional_forward_args, ids=ids, progress=progress)
    return estimate_of_explanation(
        found, radii=radii, top=top, statement=statement, lipschitz=lipschitz
    )


def certificate_of_moments(
    moments: Moments,
    *,
    sigma: float,
    radii: Sequence[float],
    top: float = 0.1,
    statement: str = POPULATION,
    confidence: float = 0.95,
    bound: str = AUTO,
) -> Certificate:
    """Of a mean of maps in [0, 1] whose noise has the standard deviation `sigma` at every input.

    Two-sample: half of the failure probability is for each of the two means, the second one's
    error being bounded by Hoeffding. Source: Levine et al. (2019).
    """
    choose("statement", statement, STATEMENTS)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence!r}")
    _check_mask(moments.masked)
    batch, entries = moments.mean.shape
    count = _count(top, entries)
    failure, deviation = 1 - confidence, 0.0
    other = "the exact mean over the noise"
    if statement == TWO_SAMPLE:
        failure /= 2
        deviation = hoeffding_deviation(moments.samples, entries, failure)
        other = f"a mean of {moments.samples} draws of a seed that x' does not depend on"
    lower, upper = bounds(moments, failure, bound)
    at = _radii(radii)
    overlap = overlap_of_bounds(
        moments.mean, lower, upper, at, sigma=sigma, count=count, deviation=deviation
    )
    return Certificate(
        radii=at.to(overlap),
        overlap=overlap,
        top=torch.full((batch,), count, device=overlap.device),
        kind=CERTIFICATE,
        confidence=confidence,
        target=moments.target,
        statement=_words(other, moments.target)
        + f", with confidence {confidence:g} over the draws",
    )


def estimate_of_explanation(
    explanation: Explanation,
    *,
    radii: Sequence[float],
    top: float = 0.1,
    statement: str = POPULATION,
    exact: bool = False,
    lipschitz: float | None = None,
) -> Certificate:
    """Of a MoreauGrad map: it moves by at most L_S times the perturbation, plus its own error
    (twice for two-sample). L_S comes from the smoothed score's curvature: that of a probability,
    or, with `lipschitz`, of a score that changes no faster.

    `exact` leaves the error out: what would hold for a map without any.
    The weight eta is held at its value. Entries that are 0 do not count as largest.
    Source: derived in docs/certificates.md.
    """
    choose("statement", statement, STATEMENTS)
    settings = explanation.settings
    _check_input(settings.get("layer"))
    _check_mask(explanation.mask is not None)
    rho, curvature = settings["rho"], _curvature(settings["sigma"], lipschitz)
    if explanation.method == MoreauGrad.method:
        speed, held = vanilla_lipschitz(rho, curvature, curvature), ""
    else:
        speed = sparse_lipschitz(rho, curvature, curvature)
        held = ", with eta held at its value"
    maps = torch.cat([part.flatten(1).double() for part in explanation.parts], dim=1)
    if not bool(torch.isfinite(maps).all()):
        raise FloatingPointError(f"{explanation.method}: the map is NaN or infinite")
    at = _radii(radii).to(maps)
    times = 0 if exact else 1 + STATEMENTS.index(statement)
    error = (explanation.error.double() * maps.norm(dim=1)).nan_to_num(nan=torch.inf)
    change = (speed * at).expand(len(maps), -1)
    if times:
        change = change + times * error[:, None]
    count = (maps != 0).sum(1).clamp_max(_count(top, maps.shape[1]))
    other = "the exact map" if statement == POPULATION else "a map of the same error"
    return Certificate(
        radii=at,
        overlap=overlap_within(maps, change, count),
        top=count,
        kind=ESTIMATE,
        target=explanation.target,
        statement=_words(other, explanation.target) + held,
        reason="leaves out that the map is sampled" if exact else SAMPLED,
        distance=distance_within(maps, change),
    )


def check(explainer: Explainer, lipschitz: float | None = None) -> None:
    """Errors: ValueError for settings whose statement would be void, TypeError for a method that
    has none."""
    if not isinstance(explainer, (SparsifiedSmoothGrad, Moreau)):
        raise TypeError(
            "expected SparsifiedSmoothGrad or a MoreauGrad explainer, got "
            f"{type(explainer).__name__}: nothing is known of how its maps change"
        )
    _check_input(explainer.layer)
    if not explainer.sigma > 0:
        raise ValueError("sigma: expected noise, sigma > 0: nothing bounds a map without it")
    if explainer.sigma_mode != ABSOLUTE:
        raise ValueError(
            f"sigma_mode: expected {ABSOLUTE!r}, got {explainer.sigma_mode!r}: a noise level that "
            "follows the range of a perturbed input voids the statement"
        )
    if isinstance(explainer, SparsifiedSmoothGrad):
        if explainer.antithetic:
            raise ValueError(
                "antithetic: expected False: the bounds of the means need independent draws"
            )
        return
    if explainer.score != "probability" and lipschitz is None:
        raise ValueError(
            f"score: expected 'probability', got {explainer.score!r}: only for numbers in [0, 1] "
            "does the noise alone bound the curvature; for others give lipschitz=, see "
            "lipschitz_bound"
        )
    if not explainer.fresh:
        raise ValueError(
            f"noise: expected 'fresh', got {explainer.noise!r}: the mean over a fixed set of draws "
            "has no bound of its curvature, and no error of its own"
        )
    curvature = _curvature(explainer.sigma, lipschitz)
    sparse_lipschitz(explainer.rho, curvature, curvature)


def _curvature(sigma: float, lipschitz: float | None) -> float:
    if lipschitz is None:
        return probability_curvature(sigma)
    return smoothed_curvature(lipschitz, sigma)


def _count(top: float, entries: int) -> int:
    if not 0 < top <= 1:
        raise ValueError(f"top: expected a share in (0, 1], got {top!r}")
    return max(1, math.floor(top * entries + 1e-9))


def _radii(radii: Sequence[float]) -> Tensor:
    if not radii or not all(0 <= radius < math.inf for radius in radii):
        raise ValueError(f"radii: expected finite numbers >= 0, got {list(radii)}")
    return torch.tensor(list(radii), dtype=torch.float64)


def _check_input(layer: object) -> None:
    if layer is not None:
        raise ValueError(
            "layer: expected None: noise and radii would be in the units of the layer's output, "
            "and nothing is known of how far an input within a radius moves that. Make the part of "
            "the network after the layer a model of its own, whose input is the layer's output"
        )


def _check_mask(masked: bool) -> None:
    if masked:
        raise ValueError(
            "mask: expected None: padding has no noise, so nothing bounds a map where x' differs "
            "there. Cut the padding off"
        )


def _words(other: str, target: Tensor | None) -> str:
    return (
        "for every x' within the radius (Euclidean, in the units of the network's input and of "
        "sigma), at least this fraction of the largest entries of the map at x is among the "
        f"largest at x' of {other}, both {_held(target)}"
    )


def _held(target: Tensor | None) -> str:
    """The class that the maps are of, whatever the network predicts at x'."""
    if target is None:
        return "of the class held at x"
    classes = list(dict.fromkeys(target.tolist()))
    if len(classes) == 1:
        return f"of class {classes[0]}"
    return f"of the class held at x (`target`: {', '.join(map(str, target.tolist()))})"
