"""Curves of one image's maps: the overlap that is certified or estimated, by the radius."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from moreaugrad.certificates import certificate_of_moments, estimate_of_explanation
from moreaugrad.certificates.overlap import AUTO, CLOPPER_PEARSON
from moreaugrad.explainers.calling import Progress
from moreaugrad.explainers.moreau import Moreau, MoreauGrad, SparseMoreauGrad
from moreaugrad.explainers.sparsified import RELAXED, SPARSIFIED, SparsifiedSmoothGrad
from moreaugrad.files.units import Record
from moreaugrad.runs.directory import number, numbers
from moreaugrad.runs.plans.studies import DRAWS, CertifyPlan
from moreaugrad.score.noise import ABSOLUTE

TOLERANCE = 0.01
"""Of MoreauGrad's maps: so small that they use the noise samples that the others have."""
COLUMNS = (
    "curve", "kind", "radius", "radius_in_pixels_least", "radius_in_pixels_most", "overlap",
    "overlap_if_exact",
)  # fmt: skip
"""Of a certificate's table."""
Certified = SparsifiedSmoothGrad | Moreau


def explainers_of(plan: CertifyPlan, module: nn.Module) -> dict[str, Certified]:
    noise: dict[str, Any] = {
        "sigma": plan.sigma, "sigma_mode": ABSOLUTE, "seed": plan.seed,
        "batch_size": plan.batch_size, "task": plan.task,
    }  # fmt: skip
    counted: dict[str, Any] = {"tau": plan.tau, "gamma": plan.gamma, "samples": plan.samples}
    envelope: dict[str, Any] = {
        "score": "probability", "rho": plan.rho, "draws": DRAWS,
        "max_evaluations": plan.samples, "tolerance": TOLERANCE,
    }  # fmt: skip
    return {
        SPARSIFIED: SparsifiedSmoothGrad(module, variant=SPARSIFIED, **counted, **noise),
        RELAXED: SparsifiedSmoothGrad(module, variant=RELAXED, **counted, **noise),
        SparseMoreauGrad.method: SparseMoreauGrad(
            module, sparsity=plan.sparsity, **envelope, **noise
        ),
        MoreauGrad.method: MoreauGrad(module, **envelope, **noise),
    }


def curve_record(
    plan: CertifyPlan, explainer: Certified, x: Tensor, target: int | None, progress: Progress
) -> Record:
    """A map's curve."""
    assert plan.sigma is not None
    wanted: dict[str, Any] = {n: getattr(plan, n) for n in ("radii", "top", "statement")}
    if isinstance(explainer, SparsifiedSmoothGrad):
        moments = explainer.moments(x, target, progress=progress)
        exact_only = plan.bound == CLOPPER_PEARSON and explainer.variant != SPARSIFIED
        bound = AUTO if exact_only else plan.bound
        certificate = certificate_of_moments(
            moments, sigma=plan.sigma, confidence=plan.confidence, bound=bound, **wanted
        )
        more: Record = {"bound": bound, "evaluations": moments.samples}
    else:
        found = explainer.explain(x, target, progress=progress)
        certificate = estimate_of_explanation(found, **wanted)
        exact = estimate_of_explanation(found, exact=True, **wanted)
        more = {
            "overlap_if_exact": numbers(exact.overlap[0]),
            "reason_if_exact": exact.reason,
            "distance": _row(certificate.distance),
            "distance_if_exact": _row(exact.distance),
            "status": found.status[0].value,
            "error": number(float(found.error[0])),
            "eta": number(float(found.eta[0])),
            "evaluations": int(found.evaluations[0]),
        }
    return {
        **{n: getattr(certificate, n) for n in ("kind", "reason", "statement", "confidence")},
        "top": int(certificate.top[0]),
        "overlap": numbers(certificate.overlap[0]),
        **more,
        "settings": explainer.settings(),
    }


def _row(values: Tensor | None) -> list[float | None]:
    return [] if values is None else numbers(values[0])


def curve_rows(record: Record) -> Iterator[Record]:
    """A row for each radius of each curve."""
    for key, curve in record["curves"].items():
        alone = curve.get("overlap_if_exact", curve["overlap"])
        columns = (record["radii"], record["radii_in_pixel_range"], curve["overlap"], alone)
        for radius, (least, most), overlap, exact in zip(*columns, strict=True):
            found = (key, curve["kind"], radius, least, most, overlap, exact)
            yield dict(zip(COLUMNS, found, strict=True))
