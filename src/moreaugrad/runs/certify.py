"""Certificates of images: how much of a map's top stays under any perturbation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from moreaugrad.certificates import (
    certificate_of_moments,
    check,
    estimate_of_explanation,
    probability_curvature,
)
from moreaugrad.certificates.certify import STATEMENTS
from moreaugrad.certificates.overlap import AUTO, BOUNDS, CLOPPER_PEARSON
from moreaugrad.data.dataset import Chosen
from moreaugrad.explainers.calling import Progress
from moreaugrad.explainers.gradient import RELAXED, SPARSIFIED, SparsifiedSmoothGrad
from moreaugrad.explainers.moreau import Moreau, MoreauGrad, SparseMoreauGrad
from moreaugrad.files.foreign import readable
from moreaugrad.files.units import Record
from moreaugrad.pictures.plot import figure_bytes
from moreaugrad.registry import choose
from moreaugrad.reports.certificates import curves_figure, findings
from moreaugrad.reports.folder import csv_bytes, table_files
from moreaugrad.runs.cost import Cost, Estimate, seconds_per_evaluation
from moreaugrad.runs.directory import (
    TROUBLE,
    RunDirectory,
    json_text,
    line,
    number,
    numbers,
    versions,
)
from moreaugrad.runs.engine import Failure, Files, NoResult, Run
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.network import Network, computing
from moreaugrad.runs.plans.studies import DRAWS, STEPS, CertifyPlan
from moreaugrad.score.noise import ABSOLUTE, RELATIVE

TOLERANCE = 0.01
"""Of MoreauGrad's maps: so small that they use the noise samples that the others have."""
COLUMNS = (
    "curve", "kind", "radius", "radius_in_pixels_least", "radius_in_pixels_most", "overlap",
    "overlap_if_exact",
)  # fmt: skip
"""Of a certificate's table."""
Certified = SparsifiedSmoothGrad | Moreau


class CertifyRun(Run[CertifyPlan]):
    """A unit is an image: `inputs/NAME/certify.json`, `.csv` and `.png`; or the reason why not."""

    command = "certify"
    patterns = ("inputs/*/certify",)
    others = ("tables.json", "table.md", "records.*")

    def settled(self, plan: CertifyPlan) -> CertifyPlan:
        if plan.sigma is None:
            raise ValueError(
                "sigma: expected the noise's standard deviation, as a fraction of the range of "
                "inputs, such as 0.1 (--sigma); got none"
            )
        choose("statement", plan.statement, STATEMENTS)
        choose("bound", plan.bound, (AUTO, *BOUNDS))
        choose("sigma_mode", plan.sigma_mode, (RELATIVE, ABSOLUTE))
        self.network = Network.load(plan.model, plan.compute, self.processes)
        plan = self._absolute(plan)
        self.inputs = Inputs.open(plan.data, plan.seed, self.network)
        self.target = self.network.target(plan.target)
        plan = replace(
            plan, data=self.inputs.plan, model=self.network.resolved(plan.model),
            compute=self.network.compute, target=self.target,
        )  # fmt: skip
        with computing(self.compute):
            self.first = self.inputs.first(self.network)
            self.curves = _curves(plan, self.network.model.module)
            for explainer in self.curves.values():
                check(explainer)
                with self.network.model.sized():
                    explainer.bind(self.first, self.target)
        self.folders = self.inputs.folders()
        self.units = {f"{self.folders[one.index]}/certify": one for one in self.inputs.chosen}
        return plan

    def _absolute(self, plan: CertifyPlan) -> CertifyPlan:
        """With sigma and radii in the network's input units, and a rho where none is given."""
        assert plan.sigma is not None
        preprocess = self.network.model.preprocess
        channels = list(zip(preprocess.mean, preprocess.std, strict=True))
        extent = max((1 - mean) / std for mean, std in channels) - min(-m / s for m, s in channels)
        scale = extent if plan.sigma_mode == RELATIVE else 1.0
        sigma = scale * plan.sigma
        curvature = probability_curvature(sigma)
        rho = 0.5 / curvature if plan.rho is None else plan.rho
        if not 0 < rho * curvature < 1:
            raise ValueError(
                f"rho: expected more than 0 and less than 2.07 sigma^2 = {1 / curvature:.4g}, got "
                f"{rho:.4g}: beyond it nothing bounds how a map changes"
            )
        radii = sorted({scale * radius for radius in plan.radii})
        return replace(
            plan, sigma=sigma, sigma_mode=ABSOLUTE, rho=rho,
            radii=tuple(radii or [step * sigma for step in STEPS]),
        )  # fmt: skip

    def do(self, unit: str, directory: RunDirectory) -> Files:
        """One image: all of its curves, or the reason why not."""
        one, (before, count), doing = self.units[unit], self.place(unit), ""
        each = sum(explainer.budget() for explainer in self.curves.values())
        spent, total = before * each, count * each
        try:
            x = self.network.batch([self.inputs.input(one, self.network)])
            found = {}
            for doing, explainer in self.curves.items():
                budget = explainer.budget()
                progress = partial(self._report, spent, budget, total, doing)
                found[doing] = self._curve(explainer, x, progress)
                spent += budget
            doing = ""
            record = self._record(one, x, found)
        except (*TROUBLE, OSError) as error:
            why = f"{doing}: {line(error)}" if doing else line(error)
            record = {"input": one.item.name, "problem": why}
            files = {}
            self.watch.failed(Failure.of(record))
        else:
            settings = {name: value for name, value in record.items() if name != "curves"}
            files = {
                f"{unit}.csv": csv_bytes(list(_rows(record))),
                f"{unit}.png": figure_bytes(curves_figure(record), "png", settings),
            }
        self.watch.pace((before + 1) * each, total, one.item.name)
        return {**files, f"{unit}.json": json_text(record).encode()}

    def _report(
        self, spent: float, budget: float, total: float, doing: str, done: float, _: int
    ) -> None:
        self.watch.pace(spent + done * budget, total, doing)

    def _curve(self, explainer: Certified, x: Tensor, progress: Progress) -> Record:
        plan = self.plan
        assert plan.sigma is not None
        wanted: dict[str, Any] = {n: getattr(plan, n) for n in ("radii", "top", "statement")}
        if isinstance(explainer, SparsifiedSmoothGrad):
            moments = explainer.moments(x, self.target, progress=progress)
            exact_only = plan.bound == CLOPPER_PEARSON and explainer.variant != SPARSIFIED
            bound = AUTO if exact_only else plan.bound
            certificate = certificate_of_moments(
                moments, sigma=plan.sigma, confidence=plan.confidence, bound=bound, **wanted
            )
            more: Record = {"bound": bound, "evaluations": moments.samples}
        else:
            found = explainer.explain(x, self.target, progress=progress)
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

    def _record(self, one: Chosen, x: Tensor, found: Record) -> Record:
        plan, network = self.plan, self.network
        assert plan.sigma is not None
        bound = next(iter(self.curves.values())).bind(x, self.target)
        target = int(bound.target.classes[0])
        return {
            "input": one.item.name,
            "folder": self.folders[one.index],
            "shape": list(x.shape[1:]),
            "model": readable(network.model.name),
            "prediction": network.predict(x)[0],
            "target": {"class": target, "label": network.label(target)},
            "sigma": plan.sigma,
            "sigma_in_pixel_range": self._pixels(plan.sigma),
            "rho": plan.rho,
            "rho_limit": 1 / probability_curvature(plan.sigma),
            "radii": plan.radii,
            "radii_in_pixel_range": [self._pixels(radius) for radius in plan.radii],
            "curves": found,
            "versions": versions(),
        }

    def _pixels(self, length: float) -> tuple[float, float]:
        """A length in input units as one of images in [0, 1], at least and at most: it depends on
        the channels, where they are divided by different numbers."""
        std = self.network.model.preprocess.std
        return length * min(std), length * max(std)

    def after(self, stage: Sequence[str], directory: RunDirectory) -> None:
        """Errors: NoResult where nothing could be certified."""
        failures = list(self.failures(directory))
        if len(failures) == len(self.units):
            raise NoResult(str(failures[0]))

    def finish(self, directory: RunDirectory) -> None:
        records = self.results(directory)["inputs"]
        rows = [
            {"input": record["input"], **{f"target.{k}": v for k, v in record["target"].items()},
             **row}
            for record in records
            for row in _rows(record)
        ]  # fmt: skip
        for name, data in {**table_files(rows), **findings(records).files()}.items():
            directory.put(name, data)

    def failures(self, directory: RunDirectory) -> Iterable[Failure]:
        return [Failure.of(r) for r in self.records(directory) if "problem" in r]

    def results(self, directory: RunDirectory) -> Record:
        """Records of the certified images."""
        return {"inputs": [r for r in self.records(directory) if "problem" not in r]}

    def estimate(self) -> Estimate:
        first, maps = next(iter(self.curves.values())), len(self.units)
        with computing(self.compute):
            each = seconds_per_evaluation(first, self.first, self.target)
        costs = [
            Cost.of(key, maps, explainer.budget(), each) for key, explainer in self.curves.items()
        ]
        return Estimate.of(maps, costs, self.network.device)


def _curves(plan: CertifyPlan, module: nn.Module) -> dict[str, Certified]:
    noise: dict[str, Any] = {
        "sigma": plan.sigma, "sigma_mode": ABSOLUTE, "seed": plan.seed,
        "batch_size": plan.batch_size,
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


def _row(values: Tensor | None) -> list[float | None]:
    return [] if values is None else numbers(values[0])


def _rows(record: Record) -> Iterator[Record]:
    """A row for each radius of each curve."""
    for key, curve in record["curves"].items():
        alone = curve.get("overlap_if_exact", curve["overlap"])
        columns = (record["radii"], record["radii_in_pixel_range"], curve["overlap"], alone)
        for radius, (least, most), overlap, exact in zip(*columns, strict=True):
            found = (key, curve["kind"], radius, least, most, overlap, exact)
            yield dict(zip(COLUMNS, found, strict=True))
