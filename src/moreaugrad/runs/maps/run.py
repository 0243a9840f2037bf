"""Maps of images by methods as a run: explain, compare, sweep and evaluate."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import Any, ClassVar

from torch import Tensor

from moreaugrad.data.choice import Chosen
from moreaugrad.data.source import CELLS
from moreaugrad.files.units import Record, record_lines, tensor_bytes
from moreaugrad.pictures import Style, heatmap, photo
from moreaugrad.report import page_files
from moreaugrad.report.folder import (
    METHODS,
    PAGE,
    PAGE_UNIT,
    SAMPLES,
    read_inputs,
    unit_stem,
    write_tables,
)
from moreaugrad.report.maps import explained_page
from moreaugrad.report.reading import MapsFolder
from moreaugrad.runs.directory import RunDirectory
from moreaugrad.runs.engine import Files, NoResult, Run
from moreaugrad.runs.estimate import Cost, Estimate, seconds_per_evaluation
from moreaugrad.runs.inputs import UNREADABLE, Inputs
from moreaugrad.runs.maps.attacks import AttackMaker, BudgetedAttack, attack_settings, check_suited
from moreaugrad.runs.maps.block import Block, Meter, evaluations, failure, no_map
from moreaugrad.runs.maps.methods import COMPARED, Method, check_settings, made, swept
from moreaugrad.runs.maps.metrics import WITH_TRUTH, make_metric, metric_settings, usual_metrics
from moreaugrad.runs.network import Network, fixed_threads
from moreaugrad.runs.plans.common import ComputePlan
from moreaugrad.runs.plans.evaluate import EvaluatePlan
from moreaugrad.runs.plans.explain import ComparisonPlan, ExplainPlan, StylePlan
from moreaugrad.runs.plans.maps import OF_LABEL
from moreaugrad.runs.plans.toml import to_table
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.progress import Failure, Unwatched, Watch
from moreaugrad.runs.records import json_text, line, problem, versions

LARGE = 2**17
"""Entries of an input of which four are computed together."""
MOST = 64


def block_size(first: Tensor) -> int:
    """Images that are computed together, by the size of one: a function of nothing else, so that a
    run that is resumed on another machine has the same units."""
    return max(1, min(MOST, 4 * LARGE // first[0].numel()))


class MapsRun(Run[ExplainPlan | EvaluatePlan]):
    """A unit is a block of images as the network sees them, or their maps by one method.

    command: "explain", "compare", "sweep", "demo" or "evaluate"; all but the last write a folder of
    files for each image, and the page.
    """

    patterns: ClassVar[Sequence[str]] = (f"{SAMPLES}/*", f"{METHODS}/*/*", "index")
    others: ClassVar[Sequence[str]] = ("times/*/*.json", "inputs/*/record.json", "records.*")

    def __init__(
        self,
        plan: ExplainPlan | EvaluatePlan,
        processes: Processes | None = None,
        watch: Watch | None = None,
        *,
        command: str = "explain",
        words: str = "",
        network: Network | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        """words: the command line, which the page shows. network, inputs: at hand, in place of
        those that the plan names. Errors: ValueError or TypeError for
        whatever cannot work; nothing is written."""
        self.command, self.words = command, words  # type: ignore[misc]
        self.processes, self.watch = processes or Processes(), watch or Unwatched()
        threads = plan.compute.threads or (1 if isinstance(plan, EvaluatePlan) else None)
        compute = replace(plan.compute, threads=threads)
        self.network = network or Network.load(plan.model, compute, self.processes)
        self.inputs = inputs or Inputs.open(plan.data, plan.seed, self.network)
        if not plan.methods and not (isinstance(plan, ExplainPlan) and plan.sweep):
            raise ValueError("methods: expected names, separated by commas, or all; got none")
        with fixed_threads(self.compute.threads):
            self.first = self.inputs.first(self.network)
            self.plan = self._prepared(plan)
        self.folders = self.inputs.folders() if self.explains else {}
        self.blocks = [
            self.inputs.chosen[start : start + self._block]
            for start in range(0, len(self.inputs.chosen), self._block)
        ]
        self._meter: Meter | None = None
        self._reported: set[tuple[str, str, str]] = set()
        self._unreadable: set[int] = set()

    def _prepared(self, plan: ExplainPlan | EvaluatePlan) -> ExplainPlan | EvaluatePlan:
        """The plan with every setting spelt out and tried."""
        network, common = self.network, plan.settings
        target = None if plan.target == OF_LABEL else network.target(plan.target)
        self.inputs.targets(self.inputs.chosen, plan.target, network)
        if plan.methods:
            check_settings(common, plan.methods)
        self.methods = made(plan.methods, common, plan.seed, network, target)
        changed: dict[str, Any] = {
            "methods": {method.label: method.settings for method in self.methods}
        }
        self.attacks: Mapping[str, Sequence[BudgetedAttack]] = {}
        metrics = plan.metrics
        if isinstance(plan, ExplainPlan):
            metrics = usual_metrics(metrics, truth=self.inputs.has_truth)
            changed |= self._explained(plan, target)
        else:
            maker = AttackMaker(plan, network, self.methods, self.inputs.chosen)
            self.attacks = {method.label: maker.on(method) for method in self.methods}
            check_suited(self.attacks)
            maker.try_surrogates(self.first)
            changed["attacks"] = {label: attack_settings(plan, label) for label in plan.attacks}
            changed |= {"norm": None, "units": None}
        given = {label: metric_settings(label, own) for label, own in metrics.items()}
        self.metrics = [make_metric(label, own) for label, own in given.items()]
        needing = [metric.label for metric in self.metrics if metric.kind in WITH_TRUTH]
        if needing and not self.inputs.has_truth:
            raise ValueError(
                f"{needing[0]}: needs ground truth maps, and these data have none; --data cells "
                "has some, CUB-GHA is another"
            )
        for network in {id(m.network): m.network for m in self.methods}.values():
            own = next(m for m in self.methods if m.network is network)
            with network.model.sized():
                own.explainer.bind(self.inputs.first(network), own.target)
        self._block = plan.block or block_size(self.first)
        return replace(
            plan, data=self.inputs.plan, target=plan.target if plan.target == OF_LABEL else target,
            model=self.network.resolved(plan.model), compute=self.network.compute, settings={},
            metrics=given, block=self._block, **changed,
        )  # fmt: skip

    def _explained(self, plan: ExplainPlan, target: int | None) -> dict[str, Any]:
        """The sweep and the second network."""
        changed: dict[str, Any] = {}
        if plan.sweep is not None:
            changed["sweep"], more = swept(
                plan.sweep, plan.settings, plan.seed, self.network, target, self.first
            )
            self.methods = [*self.methods, *more]
        if plan.compare is not None:
            changed["compare"] = self._compared(plan)
        Style(**asdict(plan.style))  # refuses what cannot be
        return changed

    def _compared(self, plan: ExplainPlan) -> ComparisonPlan:
        """The second network's methods. Errors: ValueError that says whose they are."""
        compare = plan.compare
        assert compare is not None
        try:
            network = Network.load(compare.model, self.network.compute, self.processes)
            target = network.target(plan.target if compare.target is None else compare.target)
            shapes = [n.model.preprocess.input_shape for n in (self.network, network)]
            if plan.data.source == CELLS and shapes[0] != shapes[1]:
                raise ValueError(
                    "expected a network of images of the same size, because the ground truth has "
                    f"it; got {shapes[0]} and {shapes[1]}"
                )
            methods = compare.methods or plan.methods
            more = made(methods, plan.settings, plan.seed, network, target, COMPARED)
        except (ValueError, TypeError) as error:
            raise ValueError(f"compare-with, {compare.model.name}: {error}") from error
        self.methods = [*self.methods, *more]
        return replace(
            compare, target=target, model=network.resolved(compare.model),
            methods={m.label.removeprefix(COMPARED): m.settings for m in more},
        )  # fmt: skip

    @property
    def explains(self) -> bool:
        """Whether there is a folder of files for each image."""
        return isinstance(self.plan, ExplainPlan)

    @property
    def style(self) -> StylePlan:
        return self.plan.style if isinstance(self.plan, ExplainPlan) else StylePlan()

    @property
    def exports(self) -> Sequence[str]:
        return self.plan.export if isinstance(self.plan, ExplainPlan) else ()

    @property
    def networks(self) -> list[Network]:
        """The network, and perhaps the one that it is compared with."""
        return list({id(n): n for n in [self.network, *(m.network for m in self.methods)]}.values())

    @property
    def compute(self) -> ComputePlan:
        return self.network.compute

    @property
    def stages(self) -> Sequence[Sequence[str]]:
        """The images, then block by block through the methods."""
        numbers = range(len(self.blocks))
        through = [
            unit_stem(n, m.label) for n in numbers for m in self.methods if self._block_of(m, n)
        ]
        return [[unit_stem(number) for number in numbers], through]

    def _block_of(self, method: Method, number: int) -> list[Chosen]:
        """The images of a block that a method explains: a sweep may be of the first ones alone."""
        block = self.blocks[number]
        sweep = self.plan.sweep if isinstance(self.plan, ExplainPlan) else None
        if method.value is None or sweep is None or sweep.images is None:
            return list(block)
        first = {one.index for one in self.inputs.chosen[: sweep.images]}
        return [one for one in block if one.index in first]

    def images_of(self, unit: str) -> tuple[Method, list[Chosen]]:
        """What a unit of maps is of."""
        path = PurePosixPath(unit)
        method = next(m for m in self.methods if m.label == path.parts[1])
        return method, self._block_of(method, int(path.name))

    def ids(self, rows: Sequence[Chosen]) -> list[int] | None:
        """What keys the noise of images: in an evaluation each has its own; an explanation is the
        same whatever other images are explained with it."""
        return None if self.explains else [one.index for one in rows]

    def targets(self, rows: Sequence[Chosen], method: Method) -> Tensor | int | None:
        if self.plan.target == OF_LABEL:
            return self.inputs.targets(rows, OF_LABEL, method.network)
        return method.target

    def do(self, unit: str, directory: RunDirectory) -> Files:
        if unit.startswith(f"{SAMPLES}/"):
            return self._seen(unit, self.blocks[int(PurePosixPath(unit).name)])
        method, images = self.images_of(unit)
        self._meter = self._meter or Meter(self, directory)
        block, began = Block(self, method, self._meter), time.perf_counter()
        for rows, x in self._groups(images, method.network, block):
            block.explain(rows, x)
        if self.explains:
            seconds = (time.perf_counter() - began) / max(1, len(images))
            name = f"times/{method.label}/{PurePosixPath(unit).name}.json"
            directory.put(name, json_text(seconds).encode())
        return block.files(unit)

    def _seen(self, unit: str, block: Sequence[Chosen]) -> Files:
        """A record of each image, and what the network takes in of those that are kept."""
        records: list[Record] = []
        tensors: dict[str, Tensor] = {}
        files: dict[str, bytes] = {}
        for one in block:
            record: Record = {"input": one.item.name, "index": one.index}
            records.append(record)
            try:
                seen = [self._predicted(one, network) for network in self.networks]
            except (*UNREADABLE, RuntimeError) as error:
                record["problem"] = (
                    problem(error) if isinstance(error, RuntimeError) else line(error)
                )
                continue
            if one.item.label:
                record["label"] = one.item.label
            if one.item.index is not None:
                record["class"] = one.item.index
            x, record["prediction"] = seen[0]
            record["shape"] = list(x.shape)
            if len(seen) > 1:
                record["compared"] = {"prediction": seen[1][1]}
            truth = self.inputs.truth(one, self.network)
            if self.keeps(one):
                tensors[str(one.index)] = x
                if truth is not None:
                    tensors[f"{one.index}/truth"] = truth
            if self.explains:
                record["folder"] = self.folders[one.index]
                about = {"input": one.item.name}
                pixels = self.network.model.preprocess.pixels(x).permute(2, 0, 1)
                views = {"input": photo(pixels), "truth": None if truth is None else heatmap(truth)}
                files |= {
                    f"{self.folders[one.index]}/{name}.png": view.png(about)
                    for name, view in views.items() if view is not None
                }  # fmt: skip
        kept = {f"{unit}.safetensors": tensor_bytes(tensors)} if tensors else {}
        return {**files, **kept, f"{unit}.jsonl": record_lines(records)}

    def _predicted(self, one: Chosen, network: Network) -> tuple[Tensor, list[Record]]:
        """What a network takes in, and its prediction; none where it cannot process the input,
        whose maps will say why."""
        x = self.inputs.input(one, network)
        task = self.methods[0].explainer.task
        try:
            return x, network.predict(network.batch([x]), task)[0]
        except (ValueError, RuntimeError) as error:
            if not self.explains:
                raise
            problem(error)
            return x, []

    def report(self, method: str, one: Chosen, attack: str, why: str) -> None:
        """Of an evaluation each kind of failure once: the records count them."""
        kind = (method, attack, why)
        if self.explains or kind not in self._reported:
            self._reported.add(kind)
            self.watch.failed(failure(method, one, attack, why, each=self.explains))

    def keeps(self, one: Chosen) -> bool:
        plan = self.plan
        limit = plan.page_images if isinstance(plan, ExplainPlan) else plan.maps
        return limit is None or one in self.inputs.chosen[:limit]

    def after(self, stage: Sequence[str], directory: RunDirectory) -> None:
        """Errors: NoResult for too many unreadable images, and where no map was made."""
        records = [record for unit in stage for record in directory.records(unit)]
        if stage == self.stages[0]:
            broken = [record for record in records if "problem" in record]
            self._unreadable = {record["index"] for record in broken}
            failures = [Failure(title=r["input"], message=r["problem"]) for r in broken]
            if self.processes.rank == 0:
                for failure in failures:
                    self.watch.failed(failure)
            allowed = self.plan.data.max_unreadable * len(records)
            most = len(records) - 1 if self.explains else max(1, allowed)
            if len(broken) > most or len(broken) == len(records):
                raise NoResult(
                    f"{len(broken)} of {len(records)} images cannot be read, the first is "
                    f"{failures[0]}; mend them, or allow more with --max-unreadable"
                    if len(records) > 1
                    else str(failures[0])
                )
        elif self.explains and all("problem" in record for record in records):
            first = Failure(
                title=records[0]["input"], method=records[0]["method"],
                message=records[0]["problem"],
            )  # fmt: skip
            more = f" (and {len(records) - 1} more)" if len(records) > 1 else ""
            raise NoResult(f"{first}{more}")

    def _groups(
        self, block: Sequence[Chosen], network: Network, found: Block
    ) -> Iterator[tuple[list[Chosen], Tensor]]:
        """Readable images of a block, those of one shape together."""
        shapes: dict[tuple[int, ...], list[tuple[Chosen, Tensor]]] = {}
        for one in block:
            try:
                x = self.inputs.input(one, network)
            except UNREADABLE as error:
                # It was readable when the network saw it, and is not any more.
                if one.index not in self._unreadable:
                    found.failed(one, line(error))
                continue
            shapes.setdefault(tuple(x.shape), []).append((one, x))
        for members in shapes.values():
            yield [one for one, _ in members], network.batch([x for _, x in members])

    def finish(self, directory: RunDirectory) -> None:
        """The tables, and for `explain` the page and a record for each image."""
        found = MapsFolder.read(directory.path)
        write_tables(directory, found.config)
        if isinstance(self.plan, ExplainPlan):
            for record in read_inputs(directory, found.config):
                name = f"{record['folder']}/record.json"
                directory.put(name, json_text({**record, "versions": versions()}).encode())
            page = explained_page(found, images=self.plan.page_images, command=self.words)
            directory.write(PAGE_UNIT, page_files(page, PAGE))

    def interrupted(self, directory: RunDirectory) -> None:
        """A page of what is finished."""
        if any(map(directory.finished, self.stages[1])) and self.explains:
            self.finish(directory)

    def failures(self, directory: RunDirectory) -> Iterable[Failure]:
        """Images that cannot be read (no method), and methods without a usable map of an image."""
        for stage in self.stages:
            for unit in filter(directory.finished, stage):
                for record in directory.records(unit):
                    why = no_map(record)
                    if why:
                        method = record.get("method", "")
                        yield Failure(title=record["input"], method=method, message=why)

    def results(self, directory: RunDirectory) -> Record:
        """Records of the images and of their maps."""
        return {"inputs": read_inputs(directory, to_table(self.plan))}

    def estimate(self) -> Estimate:
        """Of all processes together. Passes for a derivative of a map take longer than a
        gradient's, and metrics that ask the network take passes of their own."""
        costs = []
        with fixed_threads(self.compute.threads):
            each = {
                id(network): seconds_per_evaluation(
                    next(m for m in self.methods if m.network is network).explainer,
                    self.inputs.first(network), None,
                )
                for network in self.networks
            }  # fmt: skip
        for method in self.methods:
            images = sum(len(self._block_of(method, n)) for n in range(len(self.blocks)))
            for attack in [None, *self.attacks.get(method.label, ())]:
                most = evaluations(method, attack)
                key = method.label if attack is None else f"{method.label}, {attack.title}"
                seconds = images * most * each[id(method.network)]
                costs.append(Cost(key=key, maps=images, evaluations=most, seconds=seconds))
        total = sum(cost.maps * cost.evaluations for cost in costs)
        return Estimate(
            inputs=len(self.inputs.chosen), costs=tuple(costs),
            seconds_per_evaluation=sum(cost.seconds for cost in costs) / max(1, total),
        )  # fmt: skip
