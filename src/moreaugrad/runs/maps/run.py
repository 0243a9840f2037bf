"""Maps of images by methods as a run: explain, compare, sweep and evaluate."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import PurePosixPath

from torch import Tensor

from moreaugrad.attacks.catalogue import CLEAN
from moreaugrad.data.dataset import Chosen
from moreaugrad.files.maps import SPARSE
from moreaugrad.files.units import Record, record_lines, tensor_bytes
from moreaugrad.reports import page_files
from moreaugrad.reports.folder import (
    METHODS,
    PAGE,
    PAGE_UNIT,
    PREVIEWS,
    SAMPLES,
    preview_stem,
    read_inputs,
    shown_units,
    unit_stem,
    write_tables,
)
from moreaugrad.reports.maps import explained_page
from moreaugrad.reports.reading import MapsFolder, stored_words, unusable
from moreaugrad.runs.cost import PILOTED, Cost, Estimate, method_costs, seconds_per_evaluation
from moreaugrad.runs.directory import RunDirectory, json_text, line, problem, versions
from moreaugrad.runs.engine import Failure, Files, NoResult, Observer, Run
from moreaugrad.runs.inputs import UNREADABLE, Inputs, check_readable
from moreaugrad.runs.maps.aims import not_aimed_at
from moreaugrad.runs.maps.block import Block, Meter, evaluations, no_map, title
from moreaugrad.runs.maps.interactions import WITHOUT, no_pairs
from moreaugrad.runs.maps.methods import Method, notes_on
from moreaugrad.runs.maps.previews import BUDGETS, first_maps, within_budget
from moreaugrad.runs.maps.setup import opened, set_up
from moreaugrad.runs.network import Network, computing
from moreaugrad.runs.plans.explain import ARRAYS, EvaluatePlan, ExplainPlan
from moreaugrad.runs.plans.toml import to_table
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.texts import Texts


class MapsRun(Run[ExplainPlan | EvaluatePlan]):
    """A unit is a block of images as the network sees them, or their maps by one method.

    command: "explain", "compare", "sweep", "demo" or "evaluate"; all but the last write a folder of
    files for each image, and the page.
    """

    patterns = (f"{SAMPLES}/*", f"{METHODS}/*/*", f"{PREVIEWS}/*/*", "index")
    others = ("times/*/*.json", BUDGETS, "inputs/*/record.json", "records.*")

    def __init__(
        self, plan: ExplainPlan | EvaluatePlan, processes: Processes | None = None,
        watch: Observer | None = None, *, command: str = "explain", words: str = "",
        network: Network | None = None, inputs: Inputs | None = None,
    ) -> None:  # fmt: skip
        """words: the command line, which the page shows. network, inputs: at hand, instead of those
        that the plan names."""
        self.command, self.words = command, words  # type: ignore[misc]
        self._at_hand = network, inputs
        super().__init__(plan, processes, watch)
        self._meter: Meter | None = None
        self._reported: set[Failure] = set()
        self._unreadable: set[int] = set()
        self._budgets: Mapping[str, int] = {}

    @property
    def shares(self) -> bool:  # type: ignore[override]
        """Not within a time limit, which is shared out by how fast the first maps are made."""
        return not isinstance(self.plan, ExplainPlan) or self.plan.time is None

    def settled(self, plan: ExplainPlan | EvaluatePlan) -> ExplainPlan | EvaluatePlan:
        network, inputs = self._at_hand
        if isinstance(plan, ExplainPlan):
            plan.check_options()
            if network is None and plan.kind == ARRAYS:
                plan = plan.with_arrays()
        threads = plan.compute.threads or (1 if isinstance(plan, EvaluatePlan) else None)
        compute = replace(plan.compute, threads=threads)
        self.network = network or Network.load(plan.model, compute, self.processes)
        if isinstance(plan, ExplainPlan):
            plan = plan.taken_by(self.network.model.array is not None)
        self.inputs = inputs or opened(plan, self.network)
        if isinstance(plan, ExplainPlan) and isinstance(self.inputs, Texts):
            plan = replace(plan, text=self.inputs.asked)
        with computing(self.compute):
            self.setup = set_up(plan, self.network, self.inputs, self.processes)
        found = self.setup.plan
        notes = [*self.inputs.notes, *notes_on(self.setup.methods, self.inputs)]
        if isinstance(found, EvaluatePlan):
            notes = [*notes, *not_aimed_at(found.attacks, found.metrics)]
        self.notes = notes
        return found

    @cached_property
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
        return self.setup.blocks[int(PurePosixPath(unit).name)]

    def maps_of(self, unit: str) -> tuple[Method, list[Chosen]]:
        """What a unit of maps is of."""
        label = PurePosixPath(unit).parts[1]
        method = next(m for m in self.setup.methods if m.label == label)
        return method, self.setup.explained(method, self._block(unit))

    def do(self, unit: str, directory: RunDirectory) -> Files:
        if unit.startswith(f"{SAMPLES}/"):
            return self._seen(unit)
        if self._meter is None:
            self.meter(map(self.maps_of, self.left(directory)))
        method, images = self.maps_of(unit)
        block, seconds = self.made(within_budget(method, self._budgets), images)
        self.timed(unit, directory, seconds)
        directory.remove([preview_stem(unit)])  # whose files these replace
        return block.files(unit)

    def elsewhere(self, unit: str) -> None:
        if self._meter is not None and not unit.startswith(f"{SAMPLES}/"):
            method, images = self.maps_of(unit)
            self._meter.elsewhere(method, len(images))

    def timed(self, unit: str, directory: RunDirectory, seconds: float) -> None:
        """Keeps how long a unit of final maps took, for the page."""
        method, images = self.maps_of(unit)
        if self.setup.explains:
            name = f"times/{method.label}/{PurePosixPath(unit).name}.json"
            directory.put(name, json_text(seconds / max(1, len(images))).encode())

    def left(self, directory: RunDirectory) -> list[str]:
        """This process's units of maps that are not finished."""
        mine = self.processes.share(self.stages[1])
        return [unit for unit in mine if not directory.finished(unit)]

    def meter(self, units: Iterable[tuple[Method, Sequence[Chosen]]]) -> None:
        """Begins to count the evaluations of these."""
        self._meter = Meter(self.setup, self.watch, list(units))

    def made(self, method: Method, images: Sequence[Chosen]) -> tuple[Block, float]:
        """Maps of a block, and the seconds that they took."""
        began = time.perf_counter()
        assert self._meter is not None
        block = Block(self.setup, method, self._meter, self._report)
        for rows, x in self._groups(images, method.network, block):
            block.explain(rows, x)
        return block, time.perf_counter() - began

    def _groups(
        self, images: Sequence[Chosen], network: Network, block: Block
    ) -> Iterator[tuple[list[Chosen], Tensor]]:
        """Readable inputs, those that are alike together."""
        alike: dict[Hashable, list[tuple[Chosen, Tensor]]] = {}
        for one in images:
            try:
                x = self.inputs.input(one, network)
            except UNREADABLE as error:
                # It was readable when the network saw it, and is not any more.
                if one.index not in self._unreadable:
                    block.failed(one, line(error))
                continue
            key = self.inputs.alike(one, x, network, block.method.explainer)
            alike.setdefault(key, []).append((one, x))
        for members in alike.values():
            yield [one for one, _ in members], network.batch([x for _, x in members])

    def _seen(self, unit: str) -> Files:
        """A record of each image, and what the network takes in of those that are kept."""
        records: list[Record] = []
        tensors: dict[str, Tensor] = {}
        files: dict[str, bytes] = {}
        for one in self._block(unit):
            record: Record = {"input": one.item.name, "index": one.index}
            records.append(record)
            try:
                seen = [self._predicted(one, network) for network in self.setup.networks]
            except (*UNREADABLE, RuntimeError) as error:
                read = not isinstance(error, RuntimeError)
                record["problem"] = line(error) if read else problem(error)
                continue
            if one.item.label:
                record["label"] = one.item.label
            if one.item.index is not None:
                record["class"] = one.item.index
            x, record["prediction"] = seen[0]
            record["shape"] = list(x.shape)
            if len(seen) > 1:
                record["compared"] = {"prediction": seen[1][1]}
            truth = self.inputs.ground_truth(one, self.network)
            if self.setup.keeps(one):
                tensors[str(one.index)] = x
                if truth is not None:
                    tensors[f"{one.index}/truth"] = truth
            if self.setup.explains:
                folder = record["folder"] = self.setup.folders[one.index]
                content, views = self.inputs.shown(one, x, self.network)
                record |= content
                files |= {f"{folder}/{name}": data for name, data in views.items()}
        kept = {f"{unit}.safetensors": tensor_bytes(tensors)} if tensors else {}
        return {**files, **kept, f"{unit}.jsonl": record_lines(records)}

    def _predicted(self, one: Chosen, network: Network) -> tuple[Tensor, list[Record]]:
        """What a network takes in, and its prediction; none where it cannot process the input,
        whose maps will say why."""
        x = self.inputs.input(one, network)
        try:
            task = self.setup.methods[0].explainer.task
            return x, self.inputs.predictions(one, x, network, task)
        except (ValueError, RuntimeError) as error:
            if not self.setup.explains:
                raise
            problem(error)
            return x, []

    def _report(self, method: str, one: Chosen, attack: str, why: str, kind: str) -> None:
        """Of an evaluation each kind of failure once: the records count them."""
        failure = Failure(title=one.item.name, method=method, message=why, kind=kind)
        if not self.setup.explains:
            what = method if attack == CLEAN else f"{method}, {attack}"
            failure = Failure(title=what, message=f"{what}: {why}")
        if failure not in self._reported:
            self._reported.add(failure)
            self.watch.failed(failure)

    def after(self, stage: Sequence[str], directory: RunDirectory) -> None:
        """Errors: NoResult for too many unreadable images, and where no map was made."""
        records = [record for unit in stage for record in directory.records(unit)]
        broken = [record for record in records if "problem" in record]
        failures = list(map(Failure.of, broken))
        if stage == self.stages[0]:
            self._unreadable = {record["index"] for record in broken}
            if self.processes.rank == 0:
                for failure in failures:
                    self.watch.failed(failure)
            allowed = 1 if self.setup.explains else self.plan.data.max_unreadable
            check_readable(failures, len(records), allowed)
            if isinstance(self.plan, ExplainPlan):
                # Others wait: previews are files that the final maps replace.
                directory.once("previews", lambda: self._preview(directory))
        elif self.setup.explains and len(broken) == len(records):
            more = f" (and {len(records) - 1} more)" if len(records) > 1 else ""
            raise NoResult(f"{failures[0]}{more}")

    def _preview(self, directory: RunDirectory) -> None:
        assert isinstance(self.plan, ExplainPlan)
        if self.processes.from_first(self.watch.looking) or self.plan.time:
            self._budgets = first_maps(self, directory, self.plan.time)
            self._meter = None

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
        if any(shown_units(directory, self.stages[1])) and self.setup.explains:
            self.finish(directory)

    def failures(self, directory: RunDirectory) -> Iterable[Failure]:
        """Images that cannot be read (no method), and methods without a usable map of an image, or
        without the interactions of one."""
        for record in self.records(directory):
            if why := no_map(record):
                yield Failure.of(record, why)
            elif why := no_pairs(record):
                yield replace(Failure.of(record, why), kind=WITHOUT)

    def remarks(self, directory: RunDirectory) -> Iterable[str]:
        """How maps are stored, where they are not stored exactly, and which are in an evaluation's
        means though they failed."""
        form, records = self.plan.maps_as, self.records(directory)
        found = stored_words(form, records) if form else ""
        return [*filter(None, [found]), *([] if self.setup.explains else unusable(records))]

    def records(self, directory: RunDirectory) -> list[Record]:
        """Of all images and maps that are finished."""
        units = [unit for stage in self.stages for unit in stage]
        return [r for unit in filter(directory.finished, units) for r in directory.records(unit)]

    def results(self, directory: RunDirectory) -> Record:
        """Records of the images and of their maps."""
        return {"inputs": read_inputs(directory, to_table(self.plan))}

    def estimate(self) -> Estimate:
        """Of all processes together. Passes for a derivative of a map take longer than a
        gradient's; a note names the metrics whose passes are not counted."""
        asking = [m.label for m in self.setup.metrics if m.kind in ("model", "explainer")]
        if asking:
            self.notes = [
                *self.notes, f"passes of the network for {', '.join(asking)} are not counted"
            ]  # fmt: skip
        setup, costs, timed = self.setup, list[Cost](), dict[int, tuple[list[Tensor], float]]()
        with computing(self.compute):
            for method in setup.methods:
                explainer, network = method.explainer, method.network
                if id(network) not in timed:
                    few = self.inputs.few(network, PILOTED)
                    timed[id(network)] = few, seconds_per_evaluation(explainer, few[0], None)
                images = sum(len(setup.explained(method, block)) for block in setup.blocks)
                rows = [
                    (title(method, attack), images, evaluations(method, attack))
                    for attack in [None, *setup.attacks.get(method.label, ())]
                ]
                costs += method_costs(explainer, method.target, *timed[id(network)], rows)
            kept = setup.kept_bytes(next(iter(timed.values()))[0][0])
        return Estimate.of(
            len(self.inputs.chosen), costs, self.network.device, kept,
            at_most=self.plan.maps_as == SPARSE,
        )  # fmt: skip
