"""Does the units of a plan that are not finished; each is written whole."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from moreaugrad.data.choice import Chosen
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.files.names import number_name
from moreaugrad.runs.evaluate.environment import deterministic, environment
from moreaugrad.runs.evaluate.measure import Measures, attack_told, map_told, problem
from moreaugrad.runs.evaluate.meter import Meter
from moreaugrad.runs.evaluate.plan import CLEAN, plan_toml
from moreaugrad.runs.evaluate.prepare import PreparedEvaluate
from moreaugrad.runs.evaluate.store import RunFolder, Unit
from moreaugrad.runs.evaluate.threats import Threat
from moreaugrad.runs.explaining import line
from moreaugrad.runs.network import fixed_threads
from moreaugrad.runs.pace import Unwatched, Watch
from moreaugrad.runs.records import Record
from moreaugrad.runs.results import Failure
from moreaugrad.solvers.solution import Status


@dataclass(kw_only=True, eq=False)
class EvaluateOutcome:
    """How far a run has come. units, finished: of all processes. failures: images that cannot be
    read (no method), and methods without a map of an image, or with one that is not finite."""

    folder: Path
    units: int
    finished: int = 0
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def run_evaluate(
    prepared: PreparedEvaluate, out: Path, *, overwrite: bool = False, watch: Watch | None = None
) -> EvaluateOutcome:
    """Writes a run directory, or goes on with the one that is there.

    Pictures that cannot be read are told and left out, and so is a method or an attack where it
    does not suit. An interruption (Ctrl-C) keeps the finished units.
    Errors: ValueError for an unsuitable folder and for too many unreadable pictures; OSError
    where the disk is full or another process has died, MemoryError where memory runs out.
    """
    compute = prepared.network.compute
    with fixed_threads(compute.threads), deterministic(compute.device):
        return _Run(prepared, out, watch or Unwatched()).run(overwrite)


def units(prepared: PreparedEvaluate) -> list[Unit]:
    """All units: the pictures, then block by block through the methods."""
    blocks = prepared.blocks
    through = [Unit(block, method) for block in blocks for method in prepared.explainers]
    return [*map(Unit, blocks), *through]


class _Run:
    def __init__(self, prepared: PreparedEvaluate, out: Path, watch: Watch) -> None:
        self.prepared, self.watch, self.team = prepared, watch, prepared.team
        self.folder = RunFolder(out)
        self.units = units(prepared)
        self.outcome = EvaluateOutcome(folder=out, units=len(self.units))
        self.told: set[tuple[str, str, str]] = set()
        self.unreadable: set[int] = set()

    def run(self, overwrite: bool) -> EvaluateOutcome:
        began = time.perf_counter()
        config = plan_toml(self.prepared.plan, self.folder.path)
        now = environment(self.prepared.network.compute)
        with self.folder.opened(config, now, overwrite=overwrite, team=self.team):
            self._evaluate()
        self.outcome.seconds = time.perf_counter() - began
        return self.outcome

    def _evaluate(self) -> None:
        if len(self.folder.environments()) > 1:
            self.outcome.notes.append(
                "this run was begun with other versions or on another machine: its units may "
                "differ by rounding (environment.json tells of all)"
            )
        try:
            self._pictures([unit for unit in self.units if not unit.method])
            through = [unit for unit in self.units if unit.method]
            self._methods(through)
            self.outcome.failures += self._lost(through)
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        self.outcome.finished = sum(map(self.folder.done, self.units))

    def _left(self, found: Sequence[Unit]) -> list[Unit]:
        """The units of this process that are not finished.

        Shares are those of all units, so that each has one process whatever is finished.
        """
        return [unit for unit in self.team.share(found) if not self.folder.done(unit)]

    def _pictures(self, found: Sequence[Unit]) -> None:
        """What the network says of each picture. Errors: ValueError for too many unreadable."""
        for unit in self._left(found):
            records, tensors = self._seen(self.prepared.block(unit.block))
            self.folder.save(unit, records, tensors)
        self.team.wait()
        told = [record for unit in found for record in self.folder.read(unit)]
        broken = [record for record in told if "problem" in record]
        self.unreadable = {record["index"] for record in broken}
        for record in broken:
            failure = Failure(title=record["sample"], message=record["problem"])
            self.outcome.failures.append(failure)
            if self.team.rank == 0:
                self.watch.failed(failure)
        allowed = self.prepared.plan.unreadable * len(told)
        if len(broken) > max(1, allowed) or len(broken) == len(told):
            raise ValueError(
                f"{len(broken)} of {len(told)} pictures cannot be read, the first is "
                f"{self.outcome.failures[0]}; mend them, or allow more with --unreadable"
            )

    def _seen(self, block: Sequence[Chosen]) -> tuple[list[Record], dict[str, Tensor]]:
        """A record of each picture, and what the network takes in of those that are kept."""
        records: list[Record] = []
        tensors: dict[str, Tensor] = {}
        network = self.prepared.network
        for one in block:
            record: Record = {"sample": one.item.name, "index": one.index}
            records.append(record)
            try:
                x = network.batch([self.prepared.input(one)])
                likeliest = network.predict(x, self.prepared.task)[0]
            except (ValueError, OSError) as error:
                record["problem"] = line(error)
                continue
            if one.item.label:
                record["label"] = one.item.label
            if one.item.index is not None:
                record["class"] = one.item.index
            record["shape"] = list(x.shape[1:])
            record["prediction"] = [
                {"class": index, "label": network.label(index), "probability": probability}
                for index, probability in likeliest
            ]
            if self._kept(one):
                tensors[str(one.index)] = x[0]
        return records, tensors

    def _kept(self, one: Chosen) -> bool:
        limit = self.prepared.plan.maps
        return limit is None or one in self.prepared.chosen[:limit]

    def _methods(self, found: Sequence[Unit]) -> None:
        left = self._left(found)
        meter = Meter(self.prepared, left, self.watch)
        for unit in left:
            block = _Block(self, unit.method, meter)
            for rows, x in self._groups(unit.block, block):
                block.explain(rows, x)
            order = {one.index: place for place, one in enumerate(self.prepared.block(unit.block))}
            # By sample, as they were chosen; within one the clean map comes first.
            block.records.sort(key=lambda record: order[record["index"]])
            self.folder.save(unit, block.records, block.tensors)
        self.team.wait()

    def _lost(self, through: Sequence[Unit]) -> Iterator[Failure]:
        """The images that a method has no usable map of, in this start or one before it."""
        for unit in through:
            for record in self.folder.read(unit):
                why = no_map(record)
                if why:
                    yield Failure(title=record["sample"], method=unit.method, message=why)

    def _groups(self, number: int, block: _Block) -> Iterator[tuple[list[Chosen], Tensor]]:
        """Readable pictures of a block, those of one shape together."""
        shapes: dict[tuple[int, ...], list[tuple[Chosen, Tensor]]] = {}
        for one in self.prepared.block(number):
            try:
                x = self.prepared.input(one)
            except (ValueError, OSError) as error:
                # It was readable when the network saw it, and is not any more.
                if one.index not in self.unreadable:
                    block.record(one, CLEAN, None, {"problem": line(error)})
                continue
            shapes.setdefault(tuple(x.shape), []).append((one, x))
        for members in shapes.values():
            yield [one for one, _ in members], self.prepared.network.batch([x for _, x in members])


class _Block:
    """A block's records and maps by one method."""

    def __init__(self, run: _Run, method: str, meter: Meter) -> None:
        self.run, self.method, self.meter = run, method, meter
        self.records: list[Record] = []
        self.tensors: dict[str, Tensor] = {}

    def explain(self, rows: Sequence[Chosen], x: Tensor) -> None:
        """Clean maps, then every attack; what fails in a batch is tried one by one."""
        prepared, ids = self.run.prepared, [one.index for one in rows]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                clean = prepared.explainers[self.method].explain(
                    x, prepared.targets(rows), ids=ids, progress=self.meter.progress(self.method)
                )
        except Exception as error:
            why = problem(error)
            if len(rows) > 1:
                for place, one in enumerate(rows):
                    self.explain([one], x[place : place + 1])
                return
            self.record(rows[0], CLEAN, None, {"problem": why})
            self.meter.done(self.method, 1)
            return
        measures = Measures(prepared, self.method, x, rows)
        for row, (one, told) in enumerate(zip(rows, measures.of_clean(clean), strict=True)):
            target = int(clean.target[row])
            self.record(
                one, CLEAN, None,
                {"target": {"class": target, "label": prepared.network.label(target)},
                 "map": map_told(clean, row), **told},
            )  # fmt: skip
            self._keep(one, CLEAN, None, "map", clean, row)
        self.meter.done(self.method, len(rows))
        for threat in prepared.threats[self.method]:
            self._attack(threat, rows, x, clean)

    def _attack(
        self, threat: Threat, rows: Sequence[Chosen], x: Tensor, clean: Explanation
    ) -> None:
        if threat.attack is None:
            for one in rows:
                self.record(one, threat.label, threat.epsilon, {"problem": threat.reason})
            return
        ids = [one.index for one in rows]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = threat.on(rows).attack(
                    x, clean.target, ids=ids, clean=clean,
                    progress=self.meter.progress(self.method, threat),
                )  # fmt: skip
        except Exception as error:
            why = problem(error)
            if len(rows) > 1:
                for place, one in enumerate(rows):
                    self._attack(threat, [one], x[place : place + 1], clean[place])
                return
            self.record(rows[0], threat.label, threat.epsilon, {"problem": why})
            self.meter.done(self.method, 1, threat)
            return
        prepared = self.run.prepared
        told = Measures(prepared, self.method, x, rows).of_attacked(clean, found.attacked)
        for row, one in enumerate(rows):
            said = {"attacked": attack_told(found, row), "map": map_told(found.attacked, row)}
            self.record(one, threat.label, threat.epsilon, said | told[row])
            self._keep(one, threat.label, threat.epsilon, "map", found.attacked, row)
            if self.run._kept(one):
                inputs = found.inputs
                assert isinstance(inputs, Tensor)
                self.tensors[tensor_name(one.index, threat.label, threat.epsilon, "input")] = (
                    inputs[row]
                )
        self.meter.done(self.method, len(rows), threat)

    def record(self, one: Chosen, attack: str, epsilon: float | None, told: Record) -> None:
        if "problem" in told:
            self._tell(attack, told["problem"])
        head = {"sample": one.item.name, "index": one.index, "method": self.method}
        self.records.append({**head, "attack": attack, "epsilon": epsilon, **told})

    def _tell(self, attack: str, why: str) -> None:
        """Each kind of failure once: the records count them."""
        kind = (self.method, attack, why)
        if kind not in self.run.told:
            self.run.told.add(kind)
            title = self.method if attack == CLEAN else f"{self.method}, {attack}"
            self.run.watch.failed(Failure(title=title, message=f"{title}: {why}"))

    def _keep(
        self, one: Chosen, attack: str, epsilon: float | None, what: str,
        explanation: Explanation, row: int,
    ) -> None:  # fmt: skip
        if self.run._kept(one):
            self.tensors[tensor_name(one.index, attack, epsilon, what)] = explanation.parts[0][row]


def no_map(record: Record) -> str:
    """Why a clean record is of no usable map; empty for one that is, and for attacks."""
    if record["attack"] != CLEAN:
        return ""
    if "problem" in record:
        return str(record["problem"])
    return "the map is not finite" if record["map"]["status"] == Status.NON_FINITE.value else ""


def tensor_name(index: int, attack: str, epsilon: float | None, what: str) -> str:
    """In a unit's `.safetensors`, for example `17/clean/map` and `17/top-k/0.5/input`."""
    budget = [] if epsilon is None else [number_name(epsilon)]
    return "/".join([str(index), attack, *budget, what])
