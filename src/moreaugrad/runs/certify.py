"""Certificates of images: how much of a map's top, and which of its pixels, stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from moreaugrad.certificates import (
    certify_pixels,
    check,
    check_votes,
    probability_curvature,
)
from moreaugrad.certificates.certify import STATEMENTS, check_layer
from moreaugrad.certificates.overlap import AUTO, BOUNDS
from moreaugrad.data.dataset import Chosen
from moreaugrad.files.foreign import readable
from moreaugrad.files.units import Record
from moreaugrad.pictures import photo
from moreaugrad.pictures.plot import figure_bytes
from moreaugrad.registry import choose
from moreaugrad.reports.certificates import curves_figure, findings
from moreaugrad.reports.folder import csv_bytes, table_files
from moreaugrad.runs.cost import Cost, Estimate, seconds_per_evaluation
from moreaugrad.runs.curves import curve_record, curve_rows, explainers_of
from moreaugrad.runs.directory import (
    TROUBLE,
    RunDirectory,
    json_text,
    line,
    problem,
    versions,
)
from moreaugrad.runs.engine import Failure, Files, NoResult, Run
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.maps.methods import made
from moreaugrad.runs.network import Network, computing
from moreaugrad.runs.pixels import pixel_files, pixel_record, pixel_rows
from moreaugrad.runs.plans.studies import STEPS, CertifyPlan
from moreaugrad.score.noise import ABSOLUTE, RELATIVE


class CertifyRun(Run[CertifyPlan]):
    """A unit is an image's curves, `inputs/NAME/certify.json`, `.csv` and `.png`, or the pixels of
    its map by a method, `inputs/NAME/pixels-METHOD.*`; or the reason why not."""

    command = "certify"
    patterns = ("inputs/*/certify", "inputs/*/pixels-*")
    others = ("tables.json", "table.md", "records.*", "pixels.csv")

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
        common: dict[str, Any] = {"task": plan.task}
        if plan.batch_size is not None:
            common["batch_size"] = plan.batch_size
        methods = made(plan.methods, common, plan.seed, self.network, self.target)
        self.methods = {method.label: method.explainer for method in methods}
        plan = replace(
            plan, data=self.inputs.plan, model=self.network.resolved(plan.model),
            compute=self.network.compute, target=self.target,
            methods={method.label: method.settings for method in methods},
        )  # fmt: skip
        with computing(self.compute):
            self.first = self.inputs.first(self.network)
            self.curves = explainers_of(plan, self.network.model.module)
            for explainer in self.curves.values():
                check(explainer)
            for explainer in self.methods.values():
                check_layer(explainer.layer)
            for explainer in (*self.curves.values(), *self.methods.values()):
                with self.network.model.sized():
                    explainer.bind(self.first, self.target)
            pixels = math.prod(self.first.shape[2:])
            check_votes(plan.votes, pixels, plan.threshold, plan.confidence, "votes")
        self.folders = self.inputs.folders()
        names = {"certify": "", **{f"pixels-{label}": label for label in self.methods}}
        self.units = {
            f"{self.folders[one.index]}/{name}": (one, label)
            for one in self.inputs.chosen
            for name, label in names.items()
        }
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
        """The curves of an image, or its pixels by a method; or the reason why not."""
        one, label = self.units[unit]
        own = self.processes.share(list(self.units))
        budgets = [self._budget(self.units[each][1]) for each in own]
        spent, total = sum(budgets[: own.index(unit)]), sum(budgets)
        read = False
        try:
            x = self.network.batch([self.inputs.input(one, self.network)])
            read = True
            if label:
                files = self._pixels(unit, one, x, label, partial(self._report, spent, total))
            else:
                files = self._curves(unit, one, x, partial(self._report, spent, total))
        except (*TROUBLE, OSError) as error:
            record = {"input": one.item.name, **({"method": label} if label else {})}
            record["problem"] = problem(error) if read else line(error)
            files = {f"{unit}.json": json_text(record).encode()}
            if read or not label:  # an image that cannot be read is reported once
                self.watch.failed(Failure.of(record))
        self.watch.pace(spent + self._budget(label), total, one.item.name)
        return files

    def _budget(self, label: str) -> int:
        """Evaluations at most of a unit: of an image's curves, or of its pixels by a method."""
        if label:
            return self.plan.votes * self.methods[label].budget()
        return sum(explainer.budget() for explainer in self.curves.values())

    def _report(
        self, spent: float, total: float, before: float, budget: float, doing: str, done: float,
        _: int,
    ) -> None:  # fmt: skip
        self.watch.pace(spent + before + done * budget, total, doing)

    def _pixels(
        self, unit: str, one: Chosen, x: Tensor, label: str, report: Callable[..., None]
    ) -> Files:
        plan, explainer = self.plan, self.methods[label]
        assert plan.sigma is not None
        found = certify_pixels(
            explainer, x, self.target, sigma=plan.sigma, samples=plan.votes, top=plan.top,
            threshold=plan.threshold, confidence=plan.confidence, seed=plan.seed,
            progress=partial(report, 0, self._budget(label), f"{label}, pixels"),
        )  # fmt: skip
        record = pixel_record(
            found, self._common(one, x, int(found.target[0])), label, explainer.settings()
        )
        return pixel_files(unit, record, found, photo(x[0]))

    def _curves(self, unit: str, one: Chosen, x: Tensor, report: Callable[..., None]) -> Files:
        found, spent, plan = {}, 0, self.plan
        for key, explainer in self.curves.items():
            budget = explainer.budget()
            try:
                progress = partial(report, spent, budget, key)
                found[key] = curve_record(plan, explainer, x, self.target, progress)
            except TROUBLE as error:
                raise ValueError(f"{key}: {problem(error)}") from error
            spent += budget
        assert plan.sigma is not None
        bound = next(iter(self.curves.values())).bind(x, self.target)
        limit = 1 / probability_curvature(plan.sigma)
        record = {
            **self._common(one, x, int(bound.target.classes[0])),
            "rho": plan.rho, "rho_limit": limit, "curves": found,
        }  # fmt: skip
        settings = {name: value for name, value in record.items() if name != "curves"}
        return {
            f"{unit}.csv": csv_bytes(list(curve_rows(record))),
            f"{unit}.png": figure_bytes(curves_figure(record), "png", settings),
            f"{unit}.json": json_text(record).encode(),
        }

    def _common(self, one: Chosen, x: Tensor, target: int) -> Record:
        """What the records of an image's curves and of its pixels have alike."""
        plan, network = self.plan, self.network
        assert plan.sigma is not None
        return {
            "input": one.item.name,
            "folder": self.folders[one.index],
            "shape": list(x.shape[1:]),
            "model": readable(network.model.name),
            "prediction": network.predict(x, plan.task)[0],
            "target": {"class": target, "label": network.label(target)},
            "sigma": plan.sigma,
            "sigma_in_pixel_range": self._in_pixels(plan.sigma),
            "radii": plan.radii,
            "radii_in_pixel_range": [self._in_pixels(radius) for radius in plan.radii],
            "versions": versions(),
        }

    def _in_pixels(self, length: float) -> tuple[float, float]:
        """A length in input units as one of images in [0, 1], at least and at most: it depends on
        the channels, where they are divided by different numbers."""
        std = self.network.model.preprocess.std
        return length * min(std), length * max(std)

    def after(self, stage: Sequence[str], directory: RunDirectory) -> None:
        """Errors: NoResult where nothing could be certified."""
        records = self.records(directory)
        if records and all("problem" in record for record in records):
            raise NoResult(str(Failure.of(records[0])))

    def finish(self, directory: RunDirectory) -> None:
        found = self.results(directory)
        curves, pixels = (
            [
                {"input": record["input"],
                 **{f"target.{k}": v for k, v in record["target"].items()}, **row}
                for record in found[name]
                for row in rows(record)
            ]
            for name, rows in (("inputs", curve_rows), ("pixels", pixel_rows))
        )  # fmt: skip
        files = {**table_files(curves), "pixels.csv": csv_bytes(pixels)}
        for name, data in {**files, **findings(**found).files()}.items():
            directory.put(name, data)

    def failures(self, directory: RunDirectory) -> Iterable[Failure]:
        """An image that has no curves is one failure, whatever became of its pixels."""
        wrong = [record for record in self.records(directory) if "problem" in record]
        lost = {record["input"] for record in wrong if "method" not in record}
        return [Failure.of(r) for r in wrong if "method" not in r or r["input"] not in lost]

    def results(self, directory: RunDirectory) -> Record:
        """Records of the certified images, and of their pixels by each method."""
        known = [record for record in self.records(directory) if "problem" not in record]
        return {
            "inputs": [record for record in known if "curves" in record],
            "pixels": [record for record in known if "curves" not in record],
        }

    def estimate(self) -> Estimate:
        first, maps = next(iter(self.curves.values())), len(self.inputs.chosen)
        with computing(self.compute):
            each = seconds_per_evaluation(first, self.first, self.target)
        costs = [
            Cost.of(key, maps, explainer.budget(), each) for key, explainer in self.curves.items()
        ]
        costs += [
            Cost.of(f"{label}, pixels", maps, self._budget(label), each) for label in self.methods
        ]
        return Estimate.of(maps, costs, self.network.device)
