"""A block of images through one method: records, maps and files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from moreaugrad.data.dataset import Chosen
from moreaugrad.explainers.calling import Progress
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.files.units import Record, record_lines, tensor_bytes
from moreaugrad.pictures import Style, draw
from moreaugrad.reports.folder import tensor_name
from moreaugrad.runs.engine import Files
from moreaugrad.runs.maps.attacks import BudgetedAttack
from moreaugrad.runs.maps.export import map_files
from moreaugrad.runs.maps.methods import Method
from moreaugrad.runs.maps.metrics import WITH_TRUTH, Measures, attack_record
from moreaugrad.runs.maps.setup import Setup
from moreaugrad.runs.plans.maps import CLEAN
from moreaugrad.runs.progress import Failure, Watch
from moreaugrad.runs.records import map_record, problem
from moreaugrad.solvers.solution import Status

Report = Callable[[str, Chosen, str, str], None]
"""Of a method's map of an image under an attack: why it failed."""


def evaluations(method: Method, attack: BudgetedAttack | None = None) -> int:
    """What one image takes at most: its clean map, or an attack with its map."""
    own = method.explainer.budget()
    if attack is None:
        return own
    return 0 if attack.attack is None else attack.attack.budget() + own


def no_map(record: Record) -> str:
    """Why a record of an image or of a clean map is of nothing usable; empty for others."""
    if record.get("attack", CLEAN) != CLEAN:
        return ""
    if "problem" in record:
        return str(record["problem"])
    found = record.get("map", {})
    if found.get("status") == Status.NON_FINITE.value:
        return f"the map is not finite: {found['message']}; {found['remedy']}"
    return ""


class Meter:
    """How far a process is, in gradient evaluations. A map is expected to take the mean of those
    before it, an attack all that it may."""

    def __init__(
        self, setup: Setup, watch: Watch, units: Sequence[tuple[Method, Sequence[Chosen]]]
    ) -> None:
        """units: what is to be done."""
        self._watch, self._spent = watch, 0.0
        self._expected = {m.label: float(evaluations(m)) for m in setup.methods}
        self._taken: dict[str, list[int]] = {}
        self._left = dict.fromkeys(self._expected, 0)
        self._attacks = 0.0
        for method, images in units:
            self._left[method.label] += len(images)
            attacks = setup.attacks.get(method.label, ())
            self._attacks += len(images) * sum(evaluations(method, a) for a in attacks)

    def progress(self, method: Method, attack: BudgetedAttack | None = None) -> Progress:
        each = self._expected[method.label] if attack is None else evaluations(method, attack)
        title = method.name if attack is None else f"{method.label}, {attack.title}"

        def report(done: float, _: int) -> None:
            self._tell(self._spent + done * each, title)

        return report

    def mapped(self, method: Method, images: int, taken: Sequence[int]) -> None:
        """Maps of so many images are done; those that did not fail took these evaluations."""
        label = method.label
        self._left[label] -= images
        self._spent += sum(taken)
        known = self._taken.setdefault(label, [])
        known += taken
        if known:
            self._expected[label] = sum(known) / len(known)
        self._tell(self._spent, method.name)

    def attacked(self, method: Method, images: int, attack: BudgetedAttack) -> None:
        cost = images * evaluations(method, attack)
        self._attacks, self._spent = self._attacks - cost, self._spent + cost
        self._tell(self._spent, f"{method.label}, {attack.title}")

    def _tell(self, spent: float, title: str) -> None:
        left = sum(count * self._expected[label] for label, count in self._left.items())
        total = max(1.0, self._spent + left + self._attacks)
        self._watch.pace(min(spent, total), total, title)


class Block:
    """What a unit is made of.

    folders: of the images, by their indices. report: is called with failures.
    """

    def __init__(
        self, setup: Setup, method: Method, meter: Meter, folders: Mapping[int, str], report: Report
    ) -> None:
        self.setup, self.method, self.meter = setup, method, meter
        self.folders, self.report = folders, report
        self.records: list[Record] = []
        self.tensors: dict[str, Tensor] = {}
        self.exported: dict[str, bytes] = {}

    def files(self, unit: str) -> Files:
        order = {one.index: place for place, one in enumerate(self.setup.inputs.chosen)}
        # By image, as they were chosen; within one the clean map comes first.
        self.records.sort(key=lambda record: order[record["index"]])
        kept = {f"{unit}.safetensors": tensor_bytes(self.tensors)} if self.tensors else {}
        return {**self.exported, **kept, f"{unit}.jsonl": record_lines(self.records)}

    def explain(self, rows: Sequence[Chosen], x: Tensor) -> None:
        """Clean maps, then every attack; what fails in a batch is tried one by one."""
        setup, method = self.setup, self.method
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                clean = method.explainer.explain(
                    x,
                    setup.targets(rows, method),
                    ids=setup.ids(rows),
                    progress=self.meter.progress(method),
                )  # fmt: skip
        except Exception as error:
            why = problem(error)
            if len(rows) > 1:
                for place, one in enumerate(rows):
                    self.explain([one], x[place : place + 1])
                return
            self.record(rows[0], CLEAN, None, {"problem": why})
            self.meter.mapped(method, 1, ())
            return
        notes = list(dict.fromkeys(str(item.message) for item in caught))
        measures = self._measures(rows, x)
        for row, (one, found) in enumerate(zip(rows, measures.of_clean(clean), strict=True)):
            target = int(clean.target[row])
            record = {
                "target": {"class": target, "label": method.network.label(target)},
                "map": map_record(clean, row),
                **({"warnings": notes} if notes and setup.explains else {}),
                **found,
            }
            self.record(one, CLEAN, None, record)
            self._keep(one, CLEAN, None, clean, row)
            if setup.explains:
                self._export(one, clean.parts[0][row].cpu(), record, x[row])
        self.meter.mapped(method, len(rows), clean.evaluations.tolist())
        for attack in setup.attacks.get(method.label, ()):
            self._attack(attack, rows, x, clean)

    def _attack(
        self, attack: BudgetedAttack, rows: Sequence[Chosen], x: Tensor, clean: Explanation
    ) -> None:
        label, epsilon = attack.label, attack.epsilon
        if attack.attack is None:
            for one in rows:
                self.record(one, label, epsilon, {"problem": attack.reason})
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = attack.on(rows).attack(
                    x, clean.target, ids=self.setup.ids(rows), clean=clean,
                    progress=self.meter.progress(self.method, attack),
                )  # fmt: skip
        except Exception as error:
            why = problem(error)
            if len(rows) > 1:
                for place, one in enumerate(rows):
                    self._attack(attack, [one], x[place : place + 1], clean[place])
                return
            self.record(rows[0], label, epsilon, {"problem": why})
            self.meter.attacked(self.method, 1, attack)
            return
        measured = self._measures(rows, x).of_attacked(clean, found.attacked)
        for row, one in enumerate(rows):
            record = {"attacked": attack_record(found, row), "map": map_record(found.attacked, row)}
            self.record(one, label, epsilon, record | measured[row])
            self._keep(one, label, epsilon, found.attacked, row)
            if self.setup.keeps(one):
                inputs = found.inputs
                assert isinstance(inputs, Tensor)
                self.tensors[tensor_name(one.index, label, epsilon, "input")] = inputs[row]
        self.meter.attacked(self.method, len(rows), attack)

    def _measures(self, rows: Sequence[Chosen], x: Tensor) -> Measures:
        setup, network = self.setup, self.method.network
        asked = any(metric.kind in WITH_TRUTH for metric in setup.metrics)
        return Measures(
            metrics=setup.metrics, explainer=self.method.explainer, space=network.space, x=x,
            ids=setup.ids(rows),
            truths=[setup.inputs.truth(one, network) if asked else None for one in rows],
        )  # fmt: skip

    def record(self, one: Chosen, attack: str, epsilon: float | None, found: Record) -> None:
        if "problem" in found or (attack == CLEAN and no_map({"attack": attack, **found})):
            why = no_map({"attack": CLEAN, **found}) or found["problem"]
            self.report(self.method.label, one, attack, why)
        head = {"input": one.item.name, "index": one.index, "method": self.method.label}
        self.records.append({**head, "attack": attack, "epsilon": epsilon, **found})

    def _keep(
        self, one: Chosen, attack: str, epsilon: float | None, found: Explanation, row: int
    ) -> None:
        if self.setup.keeps(one) and not self.setup.explains:
            self.tensors[tensor_name(one.index, attack, epsilon, "map")] = found.parts[0][row]

    def _export(self, one: Chosen, values: Tensor, record: Record, x: Tensor) -> None:
        """The map in the folder of its image, with its views."""
        setup, network = self.setup, self.method.network
        pixels = network.model.preprocess.pixels(x)
        under = pixels if values.shape[-2:] == pixels.shape[:2] else None
        drawable = bool(values.isfinite().all()) and values.ndim <= 3
        views = draw(values, under, Style(**vars(setup.style))) if drawable else {}
        about: dict[str, Any] = {
            "input": one.item.name, "model": network.model.name, "method": self.method.name,
            "settings": self.method.explainer.settings(), "target": record["target"],
            "map": record["map"], "metrics": record["metrics"],
        }  # fmt: skip
        stem = f"{self.folders[one.index]}/{self.method.label}"
        self.exported |= map_files(stem, values, about, views, setup.exports)

    def failed(self, one: Chosen, why: str) -> None:
        """An image that was readable when the network saw it, and is not any more."""
        self.record(one, CLEAN, None, {"problem": why})


def failure(method: str, one: Chosen, attack: str, why: str, *, each: bool) -> Failure:
    """each: of every image; otherwise of the method, for an evaluation of many."""
    if each:
        return Failure(title=one.item.name, method=method, message=why)
    title = method if attack == CLEAN else f"{method}, {attack}"
    return Failure(title=title, message=f"{title}: {why}")
