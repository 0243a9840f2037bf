"""Maps of images by methods as a run: explain, compare, sweep and evaluate."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import ClassVar

from torch import Tensor

from moreaugrad.data.dataset import Chosen
from moreaugrad.files.units import Record, record_lines, tensor_bytes
from moreaugrad.pictures import heatmap, photo
from moreaugrad.reports import page_files
from moreaugrad.reports.folder import (
    METHODS,
    PAGE,
    PAGE_UNIT,
    SAMPLES,
    read_inputs,
    unit_stem,
    write_tables,
)
from moreaugrad.reports.maps import explained_page
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.runs.directory import RunDirectory
from moreaugrad.runs.engine import Files, NoResult, Run
from moreaugrad.runs.estimate import Cost, Estimate, seconds_per_evaluation
from moreaugrad.runs.inputs import UNREADABLE, Inputs
from moreaugrad.runs.maps.block import Block, Meter, evaluations, failure, no_map
from moreaugrad.runs.maps.methods import Method
from moreaugrad.runs.maps.setup import set_up
from moreaugrad.runs.network import Network, fixed_threads
from moreaugrad.runs.plans.common import ComputePlan
from moreaugrad.runs.plans.explain import EvaluatePlan, ExplainPlan
from moreaugrad.runs.plans.toml import to_table
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.progress import Failure, Unwatched, Watch
from moreaugrad.runs.records import json_text, line, problem, versions


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
        with fixed_threads(self.compute.threads):
            self.setup = set_up(plan, self.network, self.inputs, self.processes)
        self.plan = self.setup.plan
        self.folders = self.inputs.folders() if self.setup.explains else {}
        self._meter: Meter | None = None
        self._reported: set[tuple[str, str, str]] = set()
        self._unreadable: set[int] = set()

    @property
    def compute(self) -> ComputePlan:
        return self.network.compute

    @property
    def stages(self) -> Sequence[Sequence[str]]:
        """The images, then block by block through the methods."""
        blocks = list(enumerate(self.setup.blocks))
        through = [
            unit_stem(number, method.label)
            for number, block in blocks
            for method in self.setup.methods
            if self.setup.explained(method, block)
        ]
        return [[unit_stem(number) for number, _ in blocks], through]

    def _block(self, unit: str) -> Sequence[Chosen]:
        block: Sequence[Chosen] = self.setup.blocks[int(PurePosixPath(unit).name)]
        return block

    def _maps(self, unit: str) -> tuple[Method, list[Chosen]]:
        """What a unit of maps is of."""
        label = PurePosixPath(unit).parts[1]
        method = next(m for m in self.setup.methods if m.label == label)
        return method, self.setup.explained(method, self._block(unit))

    def do(self, unit: str, directory: RunDirectory) -> Files:
        if unit.startswith(f"{SAMPLES}/"):
            return self._seen(unit, self._block(unit))
        if self._meter is None:
            mine = self.processes.share(self.stages[1])
            left = [self._maps(one) for one in mine if not directory.finished(one)]
            self._meter = Meter(self.setup, self.watch, left)
        (method, images), began = self._maps(unit), time.perf_counter()
        block = Block(self.setup, method, self._meter, self.folders, self._report)
        for rows, x in self._groups(images, method.network, block):
            block.explain(rows, x)
        if self.setup.explains:
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
                seen = [self._predicted(one, network) for network in self.setup.networks]
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
            if self.setup.keeps(one):
                tensors[str(one.index)] = x
                if truth is not None:
                    tensors[f"{one.index}/truth"] = truth
            if self.setup.explains:
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
        task = self.setup.methods[0].explainer.task
        try:
            return x, network.predict(network.batch([x]), task)[0]
        except (ValueError, RuntimeError) as error:
            if not self.setup.explains:
                raise
            problem(error)
            return x, []

    def _report(self, method: str, one: Chosen, attack: str, why: str) -> None:
        """Of an evaluation each kind of failure once: the records count them."""
        kind = (method, attack, why)
        if self.setup.explains or kind not in self._reported:
            self._reported.add(kind)
            self.watch.failed(failure(method, one, attack, why, each=self.setup.explains))

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
            most = len(records) - 1 if self.setup.explains else max(1, allowed)
            if len(broken) > most or len(broken) == len(records):
                raise NoResult(
                    f"{len(broken)} of {len(records)} images cannot be read, the first is "
                    f"{failures[0]}; mend them, or allow more with --max-unreadable"
                    if len(records) > 1
                    else str(failures[0])
                )
        elif self.setup.explains and all("problem" in record for record in records):
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
        if any(map(directory.finished, self.stages[1])) and self.setup.explains:
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
                    next(m for m in self.setup.methods if m.network is network).explainer,
                    self.inputs.first(network), None,
                )
                for network in self.setup.networks
            }  # fmt: skip
        for method in self.setup.methods:
            images = sum(len(self.setup.explained(method, block)) for block in self.setup.blocks)
            for attack in [None, *self.setup.attacks.get(method.label, ())]:
                most = evaluations(method, attack)
                key = method.label if attack is None else f"{method.label}, {attack.title}"
                seconds = images * most * each[id(method.network)]
                costs.append(Cost(key=key, maps=images, evaluations=most, seconds=seconds))
        total = sum(cost.maps * cost.evaluations for cost in costs)
        return Estimate(
            inputs=len(self.inputs.chosen), costs=tuple(costs),
            seconds_per_evaluation=sum(cost.seconds for cost in costs) / max(1, total),
        )  # fmt: skip
