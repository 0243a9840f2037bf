"""The benchmark of a network on this machine: images a second of each method and quality level."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from captum.attr import NoiseTunnel, Saliency
from torch import Tensor

from moreaugrad.explainers import METHODS
from moreaugrad.explainers.quality import QUALITIES, is_level
from moreaugrad.files.units import Record
from moreaugrad.reports.content import Entry, Table
from moreaugrad.reports.studies import Findings
from moreaugrad.runs.directory import environment
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.maps.methods import built
from moreaugrad.runs.network import Network, computing
from moreaugrad.runs.plans.bench import BenchPlan
from moreaugrad.runs.timing import network_time, peak_memory, timed
from moreaugrad.score.forward import Chunks
from moreaugrad.score.noise import Noise

CAPTUM = "captum NoiseTunnel"
SIGMA = 0.15
"""Noise of SmoothGrad and of NoiseTunnel, as a fraction of the range of the inputs."""
MOST = 50
"""Repetitions."""
Explain = Callable[[Tensor, Tensor], float]
"""Explains inputs, each for a class; the mean number of evaluations of an input."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One method on `images` images at once. seconds: of each repetition. in_passes: the fraction
    of the time that is spent in network passes, None where these are compiled. memory: MiB at the
    peak, None where unknown. relative: images a second over those of Captum's NoiseTunnel."""

    method: str
    images: int
    seconds: tuple[float, ...]
    rate: float
    slowest: float
    fastest: float
    evaluations: float
    in_passes: float | None
    memory: float | None
    relative: float


class Bench:
    """Errors: ValueError for a network or methods that cannot be timed."""

    def __init__(self, plan: BenchPlan) -> None:
        self.plan = plan
        self.network = Network.load(plan.model, plan.compute)
        self.device = self.network.device
        self.batch = plan.batch or ((1, 8) if self.device.type == "cpu" else (1, 8, 64))
        self.works = {CAPTUM: self._tunnel} | dict(self._methods())
        self.x = self._inputs()

    def _methods(self) -> Iterator[tuple[str, Explain]]:
        module = self.network.model.module
        for label, own in self.plan.methods.items():
            name = METHODS.check(str(own.get("method", label)))
            known = METHODS[name].defaults()
            given = {k: v for k, v in own.items() if k != "method"}
            usual = {"samples": self.plan.samples, "seed": 0}
            usual = {
                k: v for k, v in usual.items() if k in known and k not in METHODS[name].settings
            }
            levels: Mapping[str, dict[str, Any]] = {label: {}}
            if is_level(known.get("tolerance")) and "tolerance" not in given:
                levels = {f"{label}, {level}": {"tolerance": level} for level in self.plan.levels}
            for title, more in levels.items():
                explainer = built(name, module, {**usual, **given, **more})

                def explain(x: Tensor, target: Tensor, explainer: Any = explainer) -> float:
                    found = explainer.explain(x, target, ids=range(len(x)))
                    return float(found.evaluations.double().mean())

                yield title, explain

    def _tunnel(self, x: Tensor, target: Tensor) -> float:
        """The mean of the plain gradient under noise, as Captum computes it."""
        samples = self.plan.samples
        chunk = Chunks.of(None, x.flatten(1)).size
        NoiseTunnel(Saliency(self.network.model.module)).attribute(
            x, nt_type="smoothgrad", nt_samples=samples, target=target, abs=False,
            nt_samples_batch_size=min(samples, max(1, chunk // len(x))),
            stdevs=SIGMA * float(x.max() - x.min()),
        )  # fmt: skip
        return float(samples)

    def _inputs(self) -> Tensor:
        """As many as the largest batch: images in turn, or noise of the network's input size."""
        count, plan, network = max(self.batch), self.plan, self.network
        if plan.data.files or plan.data.source:
            inputs = Inputs.open(plan.data, 0, network)
            some = [inputs.input(one, network) for one in inputs.chosen[:count]]
        else:
            shape = network.model.preprocess.input_shape
            if shape is None:
                raise ValueError(
                    f"{plan.model.name} does not say the size of its inputs: give --crop (or "
                    "--resize HEIGHT,WIDTH), or images"
                )
            size = torch.Size(shape).numel()
            some = [Noise().normal(0, number, size).reshape(shape) for number in range(count)]
        if len({tuple(x.shape) for x in some}) > 1:
            raise ValueError("images: expected inputs of one shape: give --resize and --crop")
        return network.batch([some[number % len(some)] for number in range(count)])

    def run(self, progress: Callable[[int, int, str], None]) -> list[Speed]:
        """All methods in turn at each number of images. progress: of the numbers that are done."""
        found: list[Speed] = []
        with computing(self.network.compute):
            for place, count in enumerate(self.batch):
                progress(place, len(self.batch), f"{count} at once")
                found += self._measured(count)
        return found

    def _measured(self, count: int) -> list[Speed]:
        x = self.x[:count]
        with torch.no_grad():
            target = self.network.model.module(x).argmax(1)
        calls = {name: partial(work, x, target) for name, work in self.works.items()}
        evaluations = {name: call() for name, call in calls.items()}  # a warm-up too
        memory = {name: peak_memory(call, self.device) for name, call in calls.items()}
        passes: dict[str, float] = {}
        # Compiled passes cannot be looked into.
        for name, call in [] if self.plan.compute.compile else calls.items():
            with network_time(self.network.model.module, self.device) as inside:
                whole = timed(call, self.device)
                passes[name] = inside() / whole
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(MOST):
            # In turns, so that whatever else the machine does meets all of them alike.
            for name, call in calls.items():
                if sum(seconds[name]) < self.plan.seconds:
                    seconds[name].append(timed(call, self.device))
            if all(sum(each) >= self.plan.seconds for each in seconds.values()):
                break
        usual = {name: statistics.median(each) for name, each in seconds.items()}
        return [
            Speed(
                method=name, images=count, seconds=tuple(each), rate=count / usual[name],
                slowest=count / max(each), fastest=count / min(each),
                evaluations=evaluations[name], in_passes=passes.get(name), memory=memory[name],
                relative=usual[CAPTUM] / usual[name],
            )
            for name, each in seconds.items()
        ]  # fmt: skip

    def record(self, found: list[Speed]) -> Record:
        """For scripts: what was measured, of what, and on which machine."""
        compute = self.network.compute
        return {
            "model": self.plan.model.name, "random_weights": self.plan.model.random_weights,
            "inputs": "images" if self.plan.data.files or self.plan.data.source else "noise",
            "input_shape": list(self.x.shape[1:]), "compute": asdict(compute),
            "noise_samples": self.plan.samples,
            "levels": {level: QUALITIES[level] for level in self.plan.levels},
            "environment": environment(compute), "measured": [asdict(one) for one in found],
        }  # fmt: skip

    def findings(self, found: list[Speed]) -> Findings:
        """As a table for each number of images."""
        about = environment(self.network.compute)
        threads = f"{about['threads']} thread{'s' * (about['threads'] != 1)}"
        machine = about.get("accelerator") or f"CPU ({about['processor']}), {threads}"
        return Findings(
            title=f"Speed of {self.plan.model.name} in {self.network.compute.dtype}",
            lead=f"On {machine}, inputs of shape {list(self.x.shape[1:])}: medians of repetitions "
            "in turn, with the slowest and the fastest.",
            tables=[
                Table(
                    title=f"{count} at once", head="method",
                    columns=["images a second", "range", "evaluations of each", "time in passes",
                             "memory, MiB", "speed relative to NoiseTunnel"],
                    rows=[(one.method, _entries(one)) for one in found if one.images == count],
                )
                for count in self.batch
            ],
            notes=[
                (
                    f"NoiseTunnel: of plain gradients, {self.plan.samples} noise samples. A pass "
                    "takes as long whatever its content, but how many evaluations a method needs "
                    "for a tolerance depends on the network's weights and the images: to measure "
                    "that, give images, and the weights that you use."
                ),
                (
                    "Memory: on a CPU how much the process grew at its peak, which is less where "
                    "freed memory was used again; on a GPU all tensors, weights included."
                ),
            ],
        )  # fmt: skip


def _entries(one: Speed) -> list[Entry]:
    texts = [
        f"{one.rate:.3g}", f"{one.slowest:.3g} to {one.fastest:.3g}", f"{one.evaluations:.0f}",
        "" if one.in_passes is None else f"{100 * one.in_passes:.0f} %",
        "" if one.memory is None else f"{one.memory:.0f}",
        f"{one.relative:.2f}",
    ]  # fmt: skip
    return [Entry(text=text) for text in texts]
