"""Certificates of explainers: how many of a map's largest entries stay under any perturbation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moreaugrad.certificates.overlap import (
    AUTO,
    bounds,
    distance_within,
    hoeffding_deviation,
    overlap_of_bounds,
    overlap_within,
    probability_curvature,
    smoothed_curvature,
    sparse_lipschitz,
    vanilla_lipschitz,
)
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.calling import Progress
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.explainers.moreau import Moreau, MoreauGrad
from moreaugrad.explainers.published import PublishedMoreauGrad
from moreaugrad.explainers.sparsified import Moments, SparsifiedSmoothGrad
from moreaugrad.registry import choose
from moreaugrad.score.noise import ABSOLUTE
from moreaugrad.score.score import Inputs
from moreaugrad.score.targets import NO_CLASS, TargetLike
from moreaugrad.settings import Documented, expect

CERTIFICATE, ESTIMATE = "certificate", "estimate"
POPULATION, TWO_SAMPLE = "population", "two-sample"
STATEMENTS = (POPULATION, TWO_SAMPLE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate(metaclass=Documented, heading="Attributes"):
    """For each sample b: at least the fraction `overlap[b, r]` of the `top[b]` largest entries of
    its map are among the largest of the map at any input within `radii[r]`.

    >>> explainer = mg.SparsifiedSmoothGrad(model, samples=64, sigma=0.5, sigma_mode="absolute")
    >>> certificate = mg.certificates.certify(explainer, x, radii=[0.0, 0.1])
    """

    radii: Tensor
    """Lengths of perturbations, `[R]`: Euclidean norms over all entries, in the units of the
    network's input."""
    overlap: Tensor
    """Fractions in [0, 1], `[B, R]`."""
    top: Tensor
    """Number of entries that count as largest, `[B]`."""
    kind: str
    """Either "certificate", which fails with a probability of at most 1 - `confidence` for each
    sample ("population": of all x' together; "two-sample": of any one x' that was chosen without
    the noise of its map), or "estimate", for which `reason` says what is not proven."""
    statement: str
    """The statement in words; it says which map at the other input is meant."""
    confidence: float | None = None
    """Probability that a sample's certificate is correct; None for an estimate."""
    reason: str = ""
    """What is not proven, for an estimate."""
    target: Tensor | None = None
    """The class that both maps explain, `[B]`, whatever the network predicts at the other input;
    None where it is not known."""
    distance: Tensor | None = None
    """Bound of the distance between the two maps, each scaled to length 1, `[B, R]`; None where
    there is none."""


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
    """The certificate of SparsifiedSmoothGrad, or the estimate for MoreauGrad and its variants.

    inputs, target, additional_forward_args, ids: as for `explain`. radii: lengths of perturbations,
    in the units of the input. top: the fraction of all entries that count as largest. statement:
    "population", where the map at the other input is the exact mean; "two-sample", where it is
    computed like the first, from noise that is independent of how that input was found (another
    seed). confidence, bound: of the means of SparsifiedSmoothGrad, see `bounds`. lipschitz: a
    proven Lipschitz constant of the score, as `lipschitz_bound` returns, for MoreauGrad of a score
    other than the probability.
    Errors: ValueError for settings that invalidate the statement, TypeError for a method without
    one (see `check`), FloatingPointError for gradients that are not finite.
    """
    check(explainer, lipschitz)
    if isinstance(explainer, SparsifiedSmoothGrad):
        moments = explainer.moments(
            inputs, target, additional_forward_args, ids=ids, progress=progress
        )
        return certificate_of_moments(
            moments, sigma=given_number("sigma", explainer.sigma), radii=radii, top=top,
            statement=statement, confidence=confidence, bound=bound,
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
    """The certificate of a mean of maps in [0, 1] whose noise has the standard deviation `sigma`
    at every input. The other arguments are those of `certify`.

    "two-sample" gives each of the two means half of the failure probability, and bounds the error
    of the second by Hoeffding's inequality. Source: Levine et al. (2019).
    """
    choose("statement", statement, STATEMENTS)
    expect(0 < confidence < 1, "confidence", "a number between 0 and 1", confidence)
    _check_mask(moments.masked)
    batch, entries = moments.mean.shape
    count = count_of(top, entries)
    failure, deviation = 1 - confidence, 0.0
    other = "the exact mean over the noise"
    if statement == TWO_SAMPLE:
        failure /= 2
        deviation = hoeffding_deviation(moments.samples, entries, failure)
        other = f"a mean of {moments.samples} noise samples that x' does not depend on"
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
        + f", with confidence {confidence:g} over the noise samples",
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
    """The estimate for a MoreauGrad map: it moves by at most L_S times the length of the
    perturbation, plus its own error (twice for "two-sample").

    L_S follows from the curvature of the smoothed score: a probability, or with `lipschitz` any
    score with that Lipschitz constant. exact: leave the error out, as for a map without error. The
    other arguments are those of `certify`. The penalty's weight eta is fixed at its value. Entries
    that are 0 do not count as largest.
    Errors: TypeError for the map of another method; ValueError for settings that do not fit.
    Source: derived in docs/certificates.md.
    """
    choose("statement", statement, STATEMENTS)
    settings = explanation.settings
    if "rho" not in settings or explanation.method == PublishedMoreauGrad.method:
        raise TypeError(
            "explanation: expected one of a MoreauGrad explainer, got one of "
            f"{explanation.method}: how fast its maps change is not known"
        )
    _check_mask(explanation.mask is not None)
    rho, curvature = _envelope(settings, lipschitz)
    if explanation.method == MoreauGrad.method:
        speed, fixed = vanilla_lipschitz(rho, curvature, curvature), ""
    else:
        speed = sparse_lipschitz(rho, curvature, curvature)
        fixed = ", with eta fixed at its value"
    maps = torch.cat([part.flatten(1).double() for part in explanation.parts], dim=1)
    if not bool(torch.isfinite(maps).all()):
        raise FloatingPointError(f"{explanation.method}: the map is NaN or infinite")
    at = _radii(radii).to(maps)
    times = 0 if exact else 1 + STATEMENTS.index(statement)
    error = (explanation.error.double() * maps.norm(dim=1)).nan_to_num(nan=torch.inf)
    change = (speed * at).expand(len(maps), -1)
    if times:
        change = change + times * error[:, None]
    count = (maps != 0).sum(1).clamp_max(count_of(top, maps.shape[1]))
    other = "the exact map" if statement == POPULATION else "a map of the same error"
    return Certificate(
        radii=at,
        overlap=overlap_within(maps, change, count),
        top=count,
        kind=ESTIMATE,
        target=explanation.target,
        statement=_words(other, explanation.target) + fixed,
        reason="leaves out that the map is computed from noise samples"
        if exact
        else "the map is computed from noise samples, and its error is an estimate",
        distance=distance_within(maps, change),
    )


def check(explainer: Explainer, lipschitz: float | None = None) -> None:
    """Errors: ValueError for settings that invalidate the statement, TypeError for a method without
    one."""
    if not isinstance(explainer, (SparsifiedSmoothGrad, Moreau)):
        raise TypeError(
            "expected SparsifiedSmoothGrad or a MoreauGrad explainer, got "
            f"{type(explainer).__name__}: how fast its maps change is not known"
        )
    if isinstance(explainer, Moreau):
        _envelope(explainer.settings(), lipschitz)
        return
    _noise(explainer.settings())
    if explainer.antithetic:
        raise ValueError(
            "antithetic: expected False: the means' bounds need independent noise samples"
        )


def _noise(settings: Mapping[str, Any]) -> float:
    """The standard deviation of the noise, the same at every input. Errors: ValueError."""
    check_layer(settings.get("layer"))
    sigma = given_number("sigma", settings["sigma"])
    if not sigma > 0:
        raise ValueError("sigma: expected noise, sigma > 0: without it a map has no bound")
    if settings["sigma_mode"] != ABSOLUTE:
        raise ValueError(
            f"sigma_mode: expected {ABSOLUTE!r}, got {settings['sigma_mode']!r}: a noise level "
            "that changes with the range of the perturbed input invalidates the statement"
        )
    return sigma


def _envelope(settings: Mapping[str, Any], lipschitz: float | None) -> tuple[float, float]:
    """rho of MoreauGrad, and a bound of its smoothed score's curvature. Errors: ValueError."""
    sigma, score, noise = _noise(settings), settings["score"], settings["noise"]
    if score != "probability" and lipschitz is None:
        raise ValueError(
            f"score: expected 'probability', got {score!r}: the noise alone bounds the "
            "curvature only for numbers in [0, 1]; for others give lipschitz=, see lipschitz_bound"
        )
    if noise != "fresh":
        raise ValueError(
            f"noise: expected 'fresh', got {noise!r}: the mean over a fixed set of noise "
            "samples has no bound of its curvature, and no estimated error"
        )
    rho = given_number("rho", settings["rho"])
    curvature = probability_curvature(sigma)
    if lipschitz is not None:
        curvature = smoothed_curvature(lipschitz, sigma)
    sparse_lipschitz(rho, curvature, curvature)
    return rho, curvature


def given_number(name: str, value: float | str) -> float:
    """Errors: ValueError for a setting that is chosen for each input."""
    if isinstance(value, str):
        raise ValueError(
            f"{name}: expected a number, got {value!r}: what is chosen by the input changes with "
            "it, which invalidates the statement"
        )
    return value


def count_of(top: float, entries: int) -> int:
    """How many of the entries count as largest."""
    expect(0 < top <= 1, "top", "a fraction in (0, 1]", top)
    return max(1, math.floor(top * entries + 1e-9))


def _radii(radii: Sequence[float]) -> Tensor:
    given = [float(radius) for radius in radii]  # of a tensor or an array too
    known = bool(given) and all(0 <= radius < math.inf for radius in given)
    expect(known, "radii", "finite numbers >= 0", given)
    return torch.tensor(given, dtype=torch.float64)


def check_layer(layer: object) -> None:
    """Errors: ValueError for a layer whose output is explained instead of the input."""
    if layer is not None:
        raise ValueError(
            "layer: expected None: noise and radii would be in the units of the layer's output, "
            "and how far an input within a radius moves that output is not known. Explain the part "
            "of the network after the layer as a separate model, whose input is that output"
        )


def _check_mask(masked: bool) -> None:
    if masked:
        raise ValueError(
            "mask: expected None: padding has no noise, so a map has no bound where x' differs "
            "there. Remove the padding"
        )


def _words(other: str, target: Tensor | None) -> str:
    """The statement; both maps explain the same class, whatever the network predicts at x'."""
    classes = [] if target is None else target.tolist()
    of_class = "of the class explained at x"
    if NO_CLASS in classes:
        of_class = "of the function explained at x"
    elif len(set(classes)) == 1:
        of_class = f"of class {classes[0]}"
    elif classes:
        of_class += f" (`target`: {', '.join(map(str, classes))})"
    return (
        "for every x' within the radius (Euclidean, in the units of the network's input and of "
        "sigma), at least this fraction of the largest entries of the map at x is among the "
        f"largest at x' of {other}, both {of_class}"
    )
