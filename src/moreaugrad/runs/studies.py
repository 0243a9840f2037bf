"""Studies of a network: maps of copies of it with randomised weights, and feature visualisation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad.data.dataset import Chosen
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.feature_visualisation import Ascent, activation_maximisation
from moreaugrad.files.units import Record, tensor_bytes
from moreaugrad.metrics import randomisation
from moreaugrad.metrics.sanity import CASCADING, layers
from moreaugrad.pictures import photo, png_bytes
from moreaugrad.registry import choose
from moreaugrad.reports.content import Entry, Table
from moreaugrad.reports.studies import STUDY_FILES, Findings
from moreaugrad.runs.cost import (
    PILOTED,
    Cost,
    Estimate,
    method_costs,
    seconds_per_evaluation,
)
from moreaugrad.runs.directory import RunDirectory, json_text, line, numbers
from moreaugrad.runs.engine import Failure, Files, Run
from moreaugrad.runs.inputs import UNREADABLE, Inputs, check_readable
from moreaugrad.runs.maps.methods import built, check_settings, made, notes_on
from moreaugrad.runs.maps.metrics import make_metric, metric_settings
from moreaugrad.runs.network import Network, computing
from moreaugrad.runs.plans.maps import OF_LABEL
from moreaugrad.runs.plans.studies import SanityPlan, VisualisePlan
from moreaugrad.runs.plans.toml import from_table


class SanityRun(Run[SanityPlan]):
    """A unit is a method in a mode: `records/METHOD-MODE.json`."""

    command = "sanity"
    patterns = ("records/*",)
    others = STUDY_FILES

    def settled(self, plan: SanityPlan) -> SanityPlan:
        """Reads all images."""
        # A block is a layer as the network has it, next to its batch normalisation.
        threads = plan.compute.threads or 1
        compute = replace(plan.compute, fold_batchnorm=False, threads=threads)
        network = self.network = Network.load(plan.model, compute, self.processes)
        self.inputs = Inputs.open(plan.data, plan.seed, network)
        target = plan.target if plan.target == OF_LABEL else network.target(plan.target)
        check_settings(plan.settings, plan.methods)
        common = None if isinstance(target, str) else target
        methods = made(plan.methods, plan.settings, plan.seed, network, common, inputs=self.inputs)
        self.notes = notes_on(methods, self.inputs)
        given = {label: metric_settings(label, own) for label, own in plan.metrics.items()}
        self.metrics = {label: make_metric(label, own).measure for label, own in given.items()}
        self._failures: list[Failure] = []
        chosen, self.x = self._read()
        self.ids = [one.index for one in chosen]
        self.target = self.inputs.targets(chosen, target, network)
        # The whole network has no name, and is one block where it is a single layer.
        known = [name for name, _ in network.model.module.named_modules() if name]
        blocks = plan.blocks or layers(network.model.module, self.x[:1])
        data: Any = self.inputs.plan  # of the plan's own class
        plan = replace(
            plan, data=data, target=target, settings={}, metrics=given,
            methods={method.label: method.settings for method in methods},
            blocks=tuple(choose("blocks", name, known) if name else name for name in blocks),
            model=network.resolved(plan.model), compute=network.compute,
        )  # fmt: skip
        self.units = {
            f"records/{m.label}-{mode}": (m, mode) for m in methods for mode in plan.modes
        }
        for method in methods:
            with network.model.sized():
                method.explainer.bind(self.x[:1])
        return plan

    def _read(self) -> tuple[list[Chosen], Tensor]:
        """The images that can be read, and what the network takes in, as one batch."""
        found: list[tuple[Chosen, Tensor]] = []
        for one in self.inputs.chosen:
            try:
                found.append((one, self.inputs.input(one, self.network)))
            except UNREADABLE as error:
                self._failures.append(Failure(title=one.item.name, message=line(error)))
                self.watch.failed(self._failures[-1])
        check_readable(self._failures, len(self.inputs.chosen), self.inputs.plan.max_unreadable)
        shapes = {tuple(x.shape) for _, x in found}
        if len(shapes) > 1:
            raise ValueError(
                "images: expected images that become inputs of one shape, got "
                f"{', '.join(map(str, sorted(shapes)))}: give --resize and --crop"
            )
        return [one for one, _ in found], self.network.batch([x for _, x in found])

    def do(self, unit: str, directory: RunDirectory) -> Files:
        (method, mode), plan = self.units[unit], self.plan

        def make(module: nn.Module) -> Explainer:
            found: Explainer = replace(method.explainer, forward_func=module)
            return found

        target = self.target
        if isinstance(target, int):
            target = torch.full((len(self.x),), target, device=self.network.device)
        found = randomisation(
            self.network.model.module, make, self.x, target,
            mode=mode, blocks=plan.blocks, seeds=plan.seeds, similarities=self.metrics,
            calibration=self.x if plan.calibrate else None, ids=self.ids,
        )  # fmt: skip
        before, count = self.place(unit)
        self.watch.pace(before + 1, count, f"{method.label}, {mode}")
        record = {
            "method": method.label, "mode": mode, "blocks": list(found.blocks),
            "seeds": list(found.seeds), "images": len(self.x),
            "similarity": {name: numbers(values) for name, values in found.similarity.items()},
        }  # fmt: skip
        return {f"{unit}.json": json_text(record).encode()}

    def failures(self, directory: RunDirectory) -> Iterable[Failure]:
        return self._failures

    def results(self, directory: RunDirectory) -> Record:
        """The mean similarity by method, mode, block and metric; of the finished units."""
        rows = []
        for record in self.records(directory):
            for metric, values in record["similarity"].items():
                for place, block in enumerate(record["blocks"]):
                    every = [value for seed in values for value in seed[place]]
                    known = [value for value in every if value is not None]
                    rows.append(
                        {"method": record["method"], "mode": record["mode"], "block": block,
                         "metric": metric, "mean": math.fsum(known) / len(known) if known else None,
                         "defined": len(known), "undefined": len(every) - len(known)}
                    )  # fmt: skip
        return {
            "images": len(self.x), "unreadable": len(self._failures),
            "seeds": list(self.plan.seeds), "similarity": rows,
        }  # fmt: skip

    def findings(self, results: Record) -> Findings:
        """A table for each method and mode, with a row for each block."""
        seeds, lost = len(results["seeds"]), results["unreadable"]
        rows: dict[tuple[str, str], dict[str, list[Entry]]] = {}
        for row in results["similarity"]:
            blocks = rows.setdefault((row["method"], row["mode"]), {})
            blocks.setdefault(row["block"] or "all", []).append(_entry(row))
        return Findings(
            title="Maps of networks with randomised weights",
            lead="Mean similarity to the maps of the network itself, over "
            f"{results['images']} images and {seeds} randomisation{'s' * (seeds > 1)}; next to it "
            "how many maps of randomised networks have no value (zero everywhere, or not finite).",
            tables=[
                Table(
                    title=f"{method}, {mode}", rows=list(blocks.items()),
                    head=f"randomised {'from the output to' if mode == CASCADING else 'alone'}",
                    columns=list(self.metrics),
                )
                for (method, mode), blocks in rows.items()
            ],
            notes=[f"{lost} more images could not be read."] if lost else [],
        )  # fmt: skip

    def estimate(self) -> Estimate:
        maps = len(self.x) * (1 + len(self.plan.seeds) * len(self.plan.blocks))
        target = 0 if self.target is None else int(torch.as_tensor(self.target).flatten()[0])
        costs, few = list[Cost](), torch.split(self.x[:PILOTED], 1)
        methods = {method.label: method for method, _ in self.units.values()}
        with computing(self.compute):
            first = next(iter(methods.values())).explainer
            each = seconds_per_evaluation(first, few[0], target)
            for label, method in methods.items():
                most = method.explainer.budget()
                rows = [(f"{label}-{mode}", maps, most) for mode in self.plan.modes]
                costs += method_costs(method.explainer, target, few, each, rows)
        return Estimate.of(len(self.x), costs, self.network.device)


def _entry(row: Record) -> Entry:
    text = "" if row["mean"] is None else f"{row['mean']:.3f}"
    return Entry(text=text, note=f"{row['undefined']} without" if row["undefined"] else "")


class VisualiseRun(Run[VisualisePlan]):
    """A unit is a class: `images/class-NUMBER.json`, its images as `-0.png`, ... and, unrounded, as
    `.safetensors`."""

    command = "visualise"
    patterns = ("images/*",)
    others = STUDY_FILES

    def settled(self, plan: VisualisePlan) -> VisualisePlan:
        self.ascent = from_table(Ascent, {"seed": plan.seed, **plan.ascent}, "set.")
        compute = replace(plan.compute, threads=plan.compute.threads or 1)
        self.network = Network.load(plan.model, compute, self.processes)
        shape = self.network.model.preprocess.input_shape
        if shape is None:
            raise ValueError(
                f"{plan.model.name} does not say the size of its inputs: give --crop (or --resize "
                "HEIGHT,WIDTH)"
            )
        self.shape = shape
        self.first = self.network.batch([torch.zeros(shape)])
        self.gradient = built(
            "simple-gradient", self.network.model.module,
            {"score": plan.score, "batch_size": plan.batch_size or plan.count},
        )  # fmt: skip
        known = self.network.probabilities(self.first)
        if known is None:
            raise ValueError(
                f"{plan.model.name}: expected outputs [B] or [B, K] of classes, got more dimensions"
            )
        count = known.shape[1]
        found = [self.network.target(name) for name in plan.classes or range(count)]
        classes = list(dict.fromkeys(index for index in found if index is not None))
        outside = [index for index in classes if not 0 <= index < count]
        if outside:
            raise ValueError(f"classes: expected indices from 0 to {count - 1}, got {outside[0]}")
        self.gradient.bind(self.first, classes[0])  # refuses an unknown score
        self.units = {f"images/class-{index:04d}": index for index in classes}
        return replace(
            plan, classes=tuple(classes), seed=self.ascent.seed,
            ascent={name: value for name, value in asdict(self.ascent).items() if name != "seed"},
            model=self.network.resolved(plan.model), compute=self.network.compute,
        )  # fmt: skip

    def do(self, unit: str, directory: RunDirectory) -> Files:
        index, plan, network = self.units[unit], self.plan, self.network
        (before, count), steps = self.place(unit), self.ascent.steps
        done, total, label = before * steps, count * steps, network.label(index)
        found = activation_maximisation(
            network.model.module, [index] * plan.count, self.shape, space=network.space,
            ascent=self.ascent, kind=plan.score, batch_size=plan.batch_size,
            progress=lambda step, _: self.watch.pace(done + step, total, label),
        )  # fmt: skip
        probabilities = network.probabilities(found.inputs)
        assert probabilities is not None
        record = {
            "class": index, "label": label,
            "before": numbers(found.before), "after": numbers(found.after),
            "prediction": found.prediction.tolist(),
            "probability": numbers(probabilities[:, index]),
        }  # fmt: skip
        files = {f"{unit}.safetensors": tensor_bytes({"pixels": found.pixels})}
        for number, pixels in enumerate(found.pixels):
            image = photo(pixels)
            assert image is not None
            about = {"class": index, "label": label, "number": number}
            files[f"{unit}-{number}.png"] = png_bytes(image.pixels, about)
        return {**files, f"{unit}.json": json_text(record).encode()}

    def results(self, directory: RunDirectory) -> Record:
        """Records of the finished classes."""
        return {"classes": self.records(directory)}

    def findings(self, results: Record) -> Findings:
        """A row for each image, and the images."""
        rows, images = [], []
        for unit, record in zip(self.units, results["classes"], strict=True):
            for number in range(self.plan.count):
                title = record["label"] + (f", {number + 1}" if self.plan.count > 1 else "")
                images.append((title, f"{unit}-{number}.png"))
                figures = [
                    "" if (value := record[name][number]) is None else f"{value:{form}}"
                    for name, form in (("before", ".3g"), ("after", ".3g"), ("probability", ".3f"))
                ]
                rows.append((title, [Entry(text=text) for text in figures]))
        score = self.plan.score
        table = Table(
            title="", head="image of", rows=rows,
            columns=[f"{score} of the noise", f"{score} of the image", "probability of the class"],
        )  # fmt: skip
        return Findings(
            title=f"Feature visualisation of {self.plan.model.name}", tables=[table], images=images,
            lead=f"Images that raise the {score} of a class, by {self.ascent.steps} steps of "
            "gradient ascent from noise.",
        )  # fmt: skip

    def estimate(self) -> Estimate:
        """Of the steps, from a short timing of passes of as many images as are raised together."""
        count, steps = self.plan.count, self.ascent.steps
        target = next(iter(self.units.values()))
        with computing(self.compute):
            each = seconds_per_evaluation(self.gradient, self.first, target)
        labels = map(self.network.label, self.units.values())
        costs = [Cost.of(label, count, steps, each) for label in labels]
        return Estimate.of(count * len(self.units), costs, self.network.device)
