"""What a network looks for in each class, as a run: pictures that raise its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import tomli_w
import torch

from moreaugrad.explainers.feature_visualisation import Ascent, activation_maximisation
from moreaugrad.pictures import photo, png_bytes
from moreaugrad.runs.config import moved_network, relative, to_table
from moreaugrad.runs.estimate import Cost, Estimate, seconds_per_evaluation
from moreaugrad.runs.job import ComputePlan, ModelPlan
from moreaugrad.runs.markdown import escaped
from moreaugrad.runs.network import Network, fixed_threads, resolved_device, weights_digest
from moreaugrad.runs.pace import Watch
from moreaugrad.runs.records import Record
from moreaugrad.runs.study import Done, Study, StudyFolder
from moreaugrad.runs.team import Team
from moreaugrad.runs.variants import built
from moreaugrad.score.forward import forward
from moreaugrad.score.pixels import InputSpace


@dataclass(frozen=True, kw_only=True)
class VisualisePlan:
    """classes: indices or labels; () is all. count: pictures of each, from noise of their own.

    score: which is raised. The pictures have the size that the network's preprocessing gives.
    """

    classes: tuple[int | str, ...] = ()
    count: int = 1
    score: str = "logit"
    ascent: Ascent = field(default_factory=Ascent)
    model: ModelPlan = field(default_factory=ModelPlan)
    compute: ComputePlan = field(default_factory=ComputePlan)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count: expected at least 1, got {self.count}")


class VisualiseStudy(Study):
    """A unit is a class; its pictures are in `pictures/` and, unrounded, in `maps/`."""

    name = "visualise"
    command = "visualise"
    named: ClassVar[Mapping[str, str]] = {
        "model.weights": "network", "model.labels": "outputs",
    }  # fmt: skip

    def __init__(self, plan: VisualisePlan, team: Team | None = None) -> None:
        compute = replace(
            plan.compute, device=(team or Team()).own(resolved_device(plan.compute.device)),
            threads=plan.compute.threads or 1,
        )  # fmt: skip
        self.network = Network.load(plan.model, compute)
        self.preprocess = self.network.model.preprocess
        shape = self.preprocess.input_shape
        if shape is None:
            raise ValueError(
                f"{plan.model.name} does not tell the size of its inputs: give --crop (or --resize "
                "HEIGHT,WIDTH)"
            )
        self.shape = shape
        with torch.no_grad():
            outputs = self.network.model.module(self.network.batch([torch.zeros(shape)]))
        wanted = plan.classes or range(outputs.shape[1])
        found = [self.network.target(name) for name in wanted]
        classes = list(dict.fromkeys(index for index in found if index is not None))
        outside = [index for index in classes if not 0 <= index < outputs.shape[1]]
        if outside:
            raise ValueError(
                f"classes: expected indices from 0 to {outputs.shape[1] - 1}, got {outside[0]}"
            )
        self._classes = {f"class-{index:04d}": index for index in classes}
        self.plan = replace(plan, classes=tuple(classes), compute=self.network.compute)

    def estimate(self) -> Estimate:
        """Of the steps, from a short timing of such passes; nothing is written."""
        plan, steps = self.plan, self.plan.ascent.steps
        # As many pictures in a pass as are raised together.
        settings = {"score": plan.score, "batch_size": plan.count}
        explainer = built("simple-gradient", self.network.model.module, settings)
        first = self.network.batch([torch.zeros(self.shape)])
        with fixed_threads(self.compute.threads):
            each = seconds_per_evaluation(explainer, first, next(iter(self._classes.values())))
        return Estimate(
            inputs=plan.count * len(self.units), seconds_per_evaluation=each,
            costs=tuple(
                Cost(key=self.network.label(label), maps=plan.count, evaluations=steps,
                     seconds=plan.count * steps * each)
                for label in self._classes.values()
            ),
        )  # fmt: skip

    @property
    def compute(self) -> ComputePlan:
        return self.network.compute

    @property
    def units(self) -> Sequence[str]:
        return list(self._classes)

    def config(self, folder: Path) -> str:
        told = self.plan.model.resolved(self.preprocess)
        moved = moved_network(told, lambda name: relative(name, folder))
        digests = {
            "network": weights_digest(self.network.model.module),
            "outputs": self.network.outputs_digest(),
        }
        return tomli_w.dumps(to_table(replace(self.plan, model=moved)) | digests)

    def begin(self, folder: StudyFolder, watch: Watch) -> None:
        """Nothing."""

    def do(self, unit: str, folder: StudyFolder, watch: Watch) -> Done | None:
        label, plan = self._classes[unit], self.plan
        done = self.units.index(unit) * plan.ascent.steps
        total = len(self.units) * plan.ascent.steps
        module = self.network.model.module
        found = activation_maximisation(
            module, [label] * plan.count, self.shape,
            space=InputSpace(mean=self.preprocess.mean, std=self.preprocess.std),
            ascent=plan.ascent, kind=plan.score,
            progress=lambda step, _: watch.pace(done + step, total, self.network.label(label)),
        )  # fmt: skip
        with torch.no_grad():
            chances = forward(module, found.inputs).double().softmax(1)[:, label]
        files = {}
        for number, pixels in enumerate(found.pixels):
            picture = photo(pixels)
            assert picture is not None
            told = {"class": label, "label": self.network.label(label), "number": number}
            files[f"pictures/{unit}-{number}.png"] = png_bytes(picture.pixels, told)
        record = {
            "class": label, "label": self.network.label(label),
            "before": found.before.tolist(), "after": found.after.tolist(),
            "prediction": found.prediction.tolist(), "probability": chances.tolist(),
        }  # fmt: skip
        return Done(record=record, maps={"pixels": found.pixels}, files=files)

    def results(self, folder: StudyFolder) -> Record:
        return {"classes": [folder.record(unit) for unit in self.units]}

    def table(self, results: Record) -> str:
        lines = [
            f"# What {escaped(self.plan.model.name)} looks for",
            "",
            f"| class | picture | {self.plan.score} before | after | probability |",
            "|---|---|---:|---:|---:|",
        ]
        for unit, record in zip(self.units, results["classes"], strict=True):
            label = escaped(record["label"])
            for number, after in enumerate(record["after"]):
                lines.append(
                    f"| {label} | ![{label}](pictures/{unit}-{number}.png) | "
                    f"{record['before'][number]:.3g} | {after:.3g} | "
                    f"{record['probability'][number]:.3f} |"
                )
        return "\n".join(lines) + "\n"
