"""Certifies pictures one by one; what is finished stays, whatever happens to the next."""

from __future__ import annotations

import csv
import io
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w
from torch import Tensor

from moreaugrad.certificates import (
    Certificate,
    certificate_of_moments,
    estimate_of_explanation,
    probability_curvature,
)
from moreaugrad.explainers.progress import Progress
from moreaugrad.explainers.sparsified import SparsifiedSmoothGrad
from moreaugrad.files.names import readable
from moreaugrad.pictures.plot import figure_bytes
from moreaugrad.runs.cases import Case, Sample
from moreaugrad.runs.certify.figure import curves_figure
from moreaugrad.runs.certify.plan import PreparedCertify
from moreaugrad.runs.config import to_table
from moreaugrad.runs.explaining import TROUBLE, line
from moreaugrad.runs.folder import OutputFolder
from moreaugrad.runs.network import fixed_threads
from moreaugrad.runs.pace import Unwatched, Watch
from moreaugrad.runs.records import Record, json_text, versions
from moreaugrad.runs.results import Failure

SETTINGS, CURVES = "certify.toml", "certify.json"
NAMED = {"images": "files", "model.weights": "network", "model.labels": "outputs"}
"""See `RunDirectory.named`."""


@dataclass(kw_only=True, eq=False)
class CertifyOutcome:
    """A record of each finished picture, and what went wrong."""

    folder: Path
    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0


def run_certify(
    prepared: PreparedCertify, out: Path, *, overwrite: bool = False, watch: Watch | None = None
) -> CertifyOutcome:
    """Writes `certify.toml` and, for each image, a folder in `inputs/` with `certify.json`, `.csv`
    and `.png`.

    A picture that cannot be read or certified is told and left out. An interruption (Ctrl-C) keeps
    what is finished. Errors: ValueError for an unsuitable folder, and where nothing could be done.
    """
    with fixed_threads(prepared.network.compute.threads):
        return _Run(prepared, out, watch or Unwatched()).run(overwrite)


class _Run:
    def __init__(self, prepared: PreparedCertify, out: Path, watch: Watch) -> None:
        self.prepared, self.watch = prepared, watch
        self.folder = OutputFolder(
            out, command="certify", named=NAMED, config=SETTINGS, record=CURVES,
            inputs=[case.folder for case in prepared.cases],
        )  # fmt: skip
        self.outcome = CertifyOutcome(folder=out)
        self.spent, self.left = 0, len(prepared.cases)
        self.each = sum(explainer.budget() for explainer in prepared.curves.values())

    def run(self, overwrite: bool) -> CertifyOutcome:
        config = tomli_w.dumps(to_table(self.prepared.plan))
        with self.folder.opened(config, overwrite=overwrite):
            return self._certify()

    def _certify(self) -> CertifyOutcome:
        began = time.perf_counter()
        try:
            for case in self.prepared.cases:
                self._one(case)
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        finally:
            if not self.outcome.records:
                self.folder.discard()
        self.outcome.seconds = time.perf_counter() - began
        if not self.outcome.interrupted and not self.outcome.records:
            raise ValueError(str(self.outcome.failures[0]))
        return self.outcome

    def _one(self, case: Case) -> None:
        """One picture: all of its curves, or none."""
        doing = ""
        try:
            sample = case.load(self.prepared.network.model.preprocess)
            x = self.prepared.network.batch([sample.x])
            found = {}
            for doing in self.prepared.curves:
                found[doing] = self._curve(doing, x)
            record = self._record(sample, x, found)
        except (*TROUBLE, OSError) as error:
            failure = Failure(title=case.title, method=doing, message=line(error))
            self.outcome.failures.append(failure)
            self.watch.failed(failure)
        else:
            self._write(record)
            self.outcome.records.append(record)
        self.left -= 1
        self.spent = self.each * (len(self.prepared.cases) - self.left)
        self.watch.pace(self.spent, self.each * len(self.prepared.cases), case.title)

    def _progress(self, key: str) -> Progress:
        budget = self.prepared.curves[key].budget()
        before, total = self.spent, self.each * len(self.prepared.cases)

        def tell(done: float, _: int) -> None:
            self.spent = before + round(done * budget)
            self.watch.pace(self.spent, total, key)

        return tell

    def _curve(self, key: str, x: Tensor) -> Record:
        plan, explainer = self.prepared.plan, self.prepared.curves[key]
        target, progress = self.prepared.target, self._progress(key)
        wanted: dict[str, Any] = {
            "radii": plan.radii, "top": plan.top, "statement": plan.statement,
        }  # fmt: skip
        if isinstance(explainer, SparsifiedSmoothGrad):
            moments = explainer.moments(x, target, progress=progress)
            bound = plan.bound_for(explainer)
            certificate = certificate_of_moments(
                moments, sigma=plan.sigma, confidence=plan.confidence, bound=bound, **wanted
            )
            told: Record = {"bound": bound, "evaluations": moments.samples}
        else:
            found = explainer.explain(x, target, progress=progress)
            certificate = estimate_of_explanation(found, **wanted)
            exact = estimate_of_explanation(found, exact=True, **wanted)
            told = {
                "overlap_if_exact": _numbers(exact.overlap[0]),
                "reason_if_exact": exact.reason,
                "distance": _numbers(certificate.distance),
                "distance_if_exact": _numbers(exact.distance),
                "status": found.status[0].value,
                "error": _number(float(found.error[0])),
                "eta": _number(float(found.eta[0])),
                "evaluations": int(found.evaluations[0]),
            }
        return _told(certificate) | told | {"settings": explainer.settings()}

    def _record(self, sample: Sample, x: Tensor, found: dict[str, Record]) -> Record:
        prepared, plan = self.prepared, self.prepared.plan
        network = prepared.network
        bound = next(iter(prepared.curves.values())).bind(x, prepared.target)
        target = int(bound.target.classes[0])
        prediction = network.predict(x, "auto")[0]
        return {
            "input": sample.case.title,
            "folder": sample.case.folder,
            "shape": list(sample.x.shape),
            "model": readable(network.model.name),
            "prediction": [
                {"class": index, "label": network.label(index), "probability": probability}
                for index, probability in prediction
            ],
            "target": {"class": target, "label": network.label(target)},
            "sigma": plan.sigma,
            "sigma_in_pixel_range": prepared.pixels(plan.sigma),
            "rho": plan.resolved_rho,
            "rho_limit": 1 / probability_curvature(plan.sigma),
            "radii": plan.radii,
            "radii_in_pixel_range": [prepared.pixels(radius) for radius in plan.radii],
            "curves": found,
            "versions": versions(),
        }

    def _write(self, record: Record) -> None:
        settings = {name: value for name, value in record.items() if name != "curves"}
        self.folder.finish(
            record["folder"],
            {
                "certify.csv": _csv(record).encode(),
                "certify.png": figure_bytes(curves_figure(record), "png", settings),
                CURVES: json_text(record).encode(),
            },
        )


def _told(certificate: Certificate) -> Record:
    return {
        "kind": certificate.kind,
        "reason": certificate.reason,
        "statement": certificate.statement,
        "confidence": certificate.confidence,
        "top": int(certificate.top[0]),
        "overlap": _numbers(certificate.overlap[0]),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _numbers(values: Tensor | None) -> list[float | None]:
    return [] if values is None else [_number(value) for value in values.flatten().tolist()]


def _csv(record: Record) -> str:
    """A row for each radius of each curve."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        ("curve", "kind", "radius", "radius_in_pixels_least", "radius_in_pixels_most", "overlap",
         "overlap_if_exact")
    )  # fmt: skip
    for key, curve in record["curves"].items():
        alone = curve.get("overlap_if_exact", curve["overlap"])
        columns = (record["radii"], record["radii_in_pixel_range"], curve["overlap"], alone)
        for radius, (least, most), share, exact in zip(*columns, strict=True):
            rows.writerow((key, curve["kind"], radius, least, most, share, exact))
    return text.getvalue()
