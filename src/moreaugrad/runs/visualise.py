"""Images that raise the score of each class, found by gradient ascent from noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import ClassVar

import torch

from moreaugrad.explainers.feature_visualisation import Ascent, activation_maximisation
from moreaugrad.files.units import Record, tensor_bytes
from moreaugrad.pictures import photo, png_bytes
from moreaugrad.reports.content import Entry, Table
from moreaugrad.reports.studies import STUDY_FILES, Findings
from moreaugrad.runs.directory import RunDirectory, json_text
from moreaugrad.runs.engine import Estimate, Files, Run, Watch, seconds_per_evaluation
from moreaugrad.runs.maps.methods import built
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.studies import VisualisePlan
from moreaugrad.runs.plans.toml import from_table
from moreaugrad.runs.processes import Processes
from moreaugrad.score.forward import forward


class VisualiseRun(Run[VisualisePlan]):
    """A unit is a class: `images/class-NUMBER.json`, its images as `-0.png`, ... and, unrounded, as
    `.safetensors`."""

    command = "visualise"
    patterns: ClassVar[Sequence[str]] = ("images/*",)
    others: ClassVar[Sequence[str]] = STUDY_FILES

    def __init__(
        self, plan: VisualisePlan, processes: Processes | None = None, watch: Watch | None = None
    ) -> None:
        """Errors: ValueError for what cannot work; nothing is written."""
        super().__init__(processes, watch)
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
        with torch.no_grad():
            count = forward(self.network.model.module, self.first).shape[1]
        found = [self.network.target(name) for name in plan.classes or range(count)]
        classes = list(dict.fromkeys(index for index in found if index is not None))
        outside = [index for index in classes if not 0 <= index < count]
        if outside:
            raise ValueError(f"classes: expected indices from 0 to {count - 1}, got {outside[0]}")
        self.gradient.bind(self.first, classes[0])  # refuses an unknown score
        self.units = {f"images/class-{index:04d}": index for index in classes}
        self.plan = replace(
            plan, classes=tuple(classes), seed=self.ascent.seed,
            ascent={name: value for name, value in asdict(self.ascent).items() if name != "seed"},
            model=self.network.resolved(plan.model), compute=self.network.compute,
        )  # fmt: skip

    def do(self, unit: str, directory: RunDirectory) -> Files:
        index, plan, network = self.units[unit], self.plan, self.network
        own, steps = self.processes.share(list(self.units)), self.ascent.steps
        done, total, label = own.index(unit) * steps, len(own) * steps, network.label(index)
        found = activation_maximisation(
            network.model.module, [index] * plan.count, self.shape, space=network.space,
            ascent=self.ascent, kind=plan.score, batch_size=plan.batch_size,
            progress=lambda step, _: self.watch.pace(done + step, total, label),
        )  # fmt: skip
        with torch.no_grad():
            outputs = forward(network.model.module, found.inputs)
        record = {
            "class": index, "label": label,
            "before": found.before.tolist(), "after": found.after.tolist(),
            "prediction": found.prediction.tolist(),
            "probability": outputs.double().softmax(1)[:, index].tolist(),
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
        return {"classes": list(map(directory.json, filter(directory.finished, self.units)))}

    def findings(self, results: Record) -> Findings:
        """A row for each image, and the images."""
        rows, images = [], []
        for unit, record in zip(self.units, results["classes"], strict=True):
            for number in range(self.plan.count):
                title = (
                    f"{record['label']}, {number + 1}" if self.plan.count > 1 else record["label"]
                )
                images.append((title, f"{unit}-{number}.png"))
                figures = [f"{record[name][number]:.3g}" for name in ("before", "after")]
                figures.append(f"{record['probability'][number]:.3f}")
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
        each = seconds_per_evaluation(self.gradient, self.first, target, self.compute)
        labels = map(self.network.label, self.units.values())
        rows = [(label, count, steps, each) for label in labels]
        return Estimate.of(count * len(self.units), rows)
