"""The command `recommend`: an evaluation of candidates, and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from moreaugrad.attacks.catalogue import CLEAN
from moreaugrad.files.atomic import LOCK, SHARED
from moreaugrad.files.units import Record
from moreaugrad.metrics import METRICS
from moreaugrad.reports.folder import CONFIG, ENVIRONMENT, PAGE_UNIT, SAMPLES
from moreaugrad.reports.folder import METHODS as MAPS
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.reports.recommendation import Candidate, Measurements, recommendation
from moreaugrad.reports.recommended import RECOMMENDATION, TABLE, recommended_files
from moreaugrad.runs.cost import Estimate
from moreaugrad.runs.directory import RunDirectory, json_text, line
from moreaugrad.runs.engine import Failure, Files, Observer, Outcome, Run, execute
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.maps.run import MapsRun
from moreaugrad.runs.network import Network, computing
from moreaugrad.runs.plans.common import ComputePlan, ModelPlan
from moreaugrad.runs.plans.explain import EvaluatePlan
from moreaugrad.runs.plans.maps import INPUTS, OF_LABEL, takes
from moreaugrad.runs.plans.option import given_options
from moreaugrad.runs.plans.recommend import RecommendPlan
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.recipes import command, python_call
from moreaugrad.runs.recommend.fit import (
    KEPT,
    Size,
    Timing,
    evaluation_plan,
    fewer,
    fitting,
    left_out,
    sizes,
)

PLAN, TIMES = "plan", "times/evaluation.json"
EVALUATION, NETWORKS = "evaluation", "networks"


class RecommendRun(Run[RecommendPlan]):
    """Its unit is the choice of what is measured, `plan.json`, because a time is measured for it.
    `evaluation` and, for each checkpoint, `networks/NUMBER` are folders of runs of `evaluate`."""

    command = "recommend"
    patterns = (PLAN, PAGE_UNIT)
    others = (
        RECOMMENDATION, TABLE, "times/*.json",
        *(
            f"{folder}/{name}"
            for folder in (EVALUATION, f"{NETWORKS}/*")
            for name in (
                f"{SAMPLES}/*", f"{MAPS}/*/*", "records.*", CONFIG, ENVIRONMENT, LOCK,
                f"{SHARED}/*",
            )
        ),
    )  # fmt: skip
    units = MappingProxyType({PLAN: None})

    def __init__(
        self, plan: RecommendPlan, processes: Processes | None = None,
        watch: Observer | None = None, *, words: str = "", network: Network | None = None,
        inputs: Inputs | None = None, command: str = "recommend",
    ) -> None:  # fmt: skip
        """As of `MapsRun`."""
        self.words, self._at_hand = words, (network, inputs)
        self._failures: list[Failure] = []
        self._runs: dict[str, MapsRun] = {}
        self._lost: list[Failure] = []
        super().__init__(plan, processes, watch)

    def settled(self, plan: RecommendPlan) -> RecommendPlan:
        network, inputs = self._at_hand
        self._named = _network_options(plan)
        if plan.checkpoints and network is not None:
            raise ValueError("checkpoints: expected a network by its name, got one in memory")
        self.network = network or Network.load(plan.model, plan.compute, self.processes)
        self.inputs = inputs or Inputs.open(plan.data, plan.seed, self.network)
        data = self.inputs.plan
        if data.files:  # those that were chosen, all of which a configuration measures again
            data = replace(data, images=len(data.files))
        chosen: dict[str, Any] = {"data": data, "compute": self.network.compute}
        plan = replace(plan, model=self.network.resolved(plan.model), **chosen)
        whole = next(sizes(plan, len(self.inputs.chosen)))
        every = self._evaluation(plan, whole)  # refuses what cannot be run
        self.setup = every.setup
        # Weights that do not fit are refused before anything is computed.
        models = [replace(plan.model, weights=file, digest="") for file in plan.checkpoints]
        self._networks = [
            (model, Network.load(model, plan.compute, self.processes)) for model in models
        ]
        return replace(plan, target=every.plan.target)

    def _evaluation(self, plan: RecommendPlan, size: Size) -> MapsRun:
        inputs = fewer(self.inputs, size.images, plan.seed, self.network)
        chosen = evaluation_plan(plan, self.network, inputs, size)
        return MapsRun(
            chosen, self.processes, self.watch, command="evaluate", network=self.network,
            inputs=inputs,
        )  # fmt: skip

    def _timing(self) -> Timing:
        with computing(self.compute):
            return Timing.of(self.setup, self.inputs.first(self.network))

    def do(self, unit: str, directory: RunDirectory) -> Files:
        timing = self._timing()
        size, _ = fitting(self.plan, self.setup, timing)
        directory.put(TIMES, json_text(timing.each).encode())
        return {f"{PLAN}.json": json_text(vars(size) | {"labels": list(size.labels)}).encode()}

    def _size(self, directory: RunDirectory) -> Size:
        found = directory.json(PLAN)
        return Size(**(found | {"labels": tuple(found["labels"])}))

    def after(self, stage: Sequence[str], directory: RunDirectory) -> None:
        size = self._size(directory)
        if lost := left_out(self.plan, len(self.inputs.chosen), size):
            self.watch.news(f"note: for want of time it leaves out {'; '.join(lost)}")
        self._execute(EVALUATION, self._evaluation(self.plan, size), directory)
        for number, (model, network) in enumerate(self._networks):
            name = f"{NETWORKS}/{number}"
            try:
                self._execute(name, self._other(model, network, size, directory), directory)
            except ValueError as error:  # the evaluation is worth a page without this network
                self._runs.pop(name, None)
                title = f"checkpoint {model.weights}"
                failure = Failure(title=title, message=line(error), kind="not measured")
                self._lost.append(failure)
                self.watch.failed(failure)

    def _execute(self, name: str, run: MapsRun, directory: RunDirectory) -> None:
        self._runs[name] = run
        # Its folder belongs to this run, whose weights or sizes may have changed.
        outcome: Outcome = execute(run, directory.path / name, overwrite=True)
        self._failures += outcome.failures
        if outcome.interrupted:
            raise KeyboardInterrupt

    def _other(
        self, model: ModelPlan, network: Network, size: Size, directory: RunDirectory
    ) -> MapsRun:
        """Maps of another network, of the same images and for the classes that this one's are."""
        plan, inputs = self._runs[EVALUATION].plan, self._runs[EVALUATION].inputs
        assert isinstance(plan, EvaluatePlan)
        classes = {
            record["index"]: record["target"]["class"]
            for record in MapsFolder.read(directory.path / EVALUATION).records
            if record["attack"] == CLEAN and "target" in record
        }
        chosen = [
            replace(one, item=replace(one.item, index=classes[one.index]))
            for one in inputs.chosen if one.index in classes
        ]  # fmt: skip
        same = replace(inputs, chosen=chosen)
        plain = replace(
            plan, target=OF_LABEL, attacks={}, epsilons=(), metrics={}, model=model,
            methods={label: plan.methods[label] for label in size.labels},
        )  # fmt: skip
        return MapsRun(
            plain, self.processes, self.watch, command="evaluate", network=network, inputs=same
        )

    def count(self, directory: RunDirectory) -> tuple[int, int]:
        own, every = super().count(directory)
        for name, run in self._runs.items():
            inner = RunDirectory(directory.path / name, run.command, type(run.plan))
            done, units = run.count(inner)
            own, every = own + done, every + units
        return own, every

    def failures(self, directory: RunDirectory) -> Iterable[Failure]:
        found = [*self._failures, *self._lost]
        record = self.results(directory).get("recommendation")
        if record is not None and not record["purposes"]:
            why = "expected a candidate with a value by some criterion, found none: see table.md"
            found.append(Failure(title="recommendation", message=why, kind="failed"))
        return found

    def remarks(self, directory: RunDirectory) -> Iterable[str]:
        found: Iterable[str] = self.results(directory).get("recommendation", {}).get("unusable", ())
        return found

    def finish(self, directory: RunDirectory) -> None:
        run = MapsFolder.read(directory.path / EVALUATION)
        each = json.loads((directory.path / TIMES).read_bytes())
        size = self._size(directory)
        others = [MapsFolder.read(directory.path / n) for n in self._runs if n != EVALUATION]
        record = recommendation(
            Measurements(
                run=run, epsilon=run.config["epsilons"][0], metric=KEPT,
                candidates=list(self._candidates(size)), seconds=each,
                stability=stability(run, others, self.plan.top) if others else {},
                confidence=self.plan.confidence, top=self.plan.top,
            )
        )  # fmt: skip
        record |= {
            "command": self.words, "model": self.network.model.name,
            "left_out": left_out(self.plan, len(self.inputs.chosen), size),
            "source": self._source(), "checkpoints": len(others), "rms": self.plan.rms,
            "steps": size.steps, "exact": size.exact, "time": self.plan.time,
        }  # fmt: skip
        record["failures"] += map(str, self._lost)
        directory.put(RECOMMENDATION, json_text(record).encode())
        page, table = recommended_files(directory.path)
        directory.put(TABLE, table)
        directory.write(PAGE_UNIT, page)

    def _source(self) -> str:
        """How a configuration names the inputs: "data", a data set; "files", the chosen ones; or
        "memory", where it does not name them or the network."""
        if any(self._at_hand):
            return "memory"
        return "files" if self.plan.data.files else "data"

    def _candidates(self, size: Size) -> Iterator[Candidate]:
        """With how a user computes them."""
        given, options = self.plan.candidates(), dict(self._named)
        target = self.plan.target if self.plan.target not in (None, OF_LABEL) else None
        if target is not None:
            options["--target"] = str(target)
            target = self.network.target(target)
        if self.plan.seed:
            options["--seed"] = str(self.plan.seed)
        measured = {method.label: method.settings for method in self.setup.methods}
        for label in size.labels:
            own = dict(given[label])
            name = own.pop("method")
            common = {k: v for k, v in self.plan.settings.items() if takes(name, k, v)}
            own = {**common, **own}
            typed = "" if self._at_hand[0] else command(["IMAGE"], options, name, own)
            if "std" in measured[label]:  # the command takes it from the preprocessing
                own["std"] = measured[label]["std"]
            if measured[label].get("baselines") == INPUTS:
                own["baselines"] = INPUTS
            if self.plan.seed and "seed" in measured[label]:
                own["seed"] = self.plan.seed
            yield Candidate(
                label=label, method=name, settings=own, command=typed,
                python=python_call(name, own, target),
            )  # fmt: skip

    def results(self, directory: RunDirectory) -> Record:
        """The recommendation, of a finished run."""
        file = directory.path / RECOMMENDATION
        return {"recommendation": json.loads(file.read_bytes())} if file.is_file() else {}

    def estimate(self) -> Estimate:
        """Of what fits into the time."""
        size, found = fitting(self.plan, self.setup, self._timing())
        lost = left_out(self.plan, len(self.inputs.chosen), size)
        self.notes = [f"for want of time it leaves out {'; '.join(lost)}"] if lost else []
        return Estimate.of(size.images, found, self.network.device)


def stability(
    run: MapsFolder, others: Sequence[MapsFolder], top: float
) -> Mapping[str, Mapping[int, float]]:
    """By method and image, the mean overlap of the largest entries of a network's map with those
    of the other networks'."""
    overlap = METRICS.build("top-k", ratio=top, nonzero=False)
    found: dict[str, dict[int, list[float]]] = {}
    maps = {
        (record["method"], record["index"]): values
        for record in run.records
        if record["attack"] == CLEAN and (values := run.map(record)) is not None
    }
    for other in others:
        for record in other.records:
            key, values = (record["method"], record["index"]), other.map(record)
            if key in maps and values is not None:
                same = float(overlap(maps[key][None], values[None])[0])
                found.setdefault(key[0], {}).setdefault(key[1], []).append(same)
    return {
        method: {index: sum(same) / len(same) for index, same in images.items()}
        for method, images in found.items()
    }


def _network_options(plan: RecommendPlan) -> dict[str, str | bool]:
    """The network as the user named it, with its weights, preprocessing and precision."""
    precise = ComputePlan(dtype=plan.compute.dtype)
    return {**given_options(plan.model), **given_options(precise)}
