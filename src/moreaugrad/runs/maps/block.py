"""A block of images through one method: its records, maps and files."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from safetensors.torch import save
from torch import Tensor

from moreaugrad.attacks.catalogue import CLEAN
from moreaugrad.data.dataset import Chosen
from moreaugrad.explainers.calling import Progress
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.explainers.rows import map_record
from moreaugrad.files.maps import packed
from moreaugrad.files.units import Record, record_lines, tensor_bytes
from moreaugrad.pictures import Style
from moreaugrad.reports.folder import tensor_name
from moreaugrad.runs.directory import problem
from moreaugrad.runs.engine import LEFT_OUT, Files, Observer
from moreaugrad.runs.maps import interactions
from moreaugrad.runs.maps.attacks import BudgetedAttack
from moreaugrad.runs.maps.exports import EXPORTERS
from moreaugrad.runs.maps.methods import Method, plain_settings
from moreaugrad.runs.maps.metrics import WITH_TRUTH, Measures, attack_record
from moreaugrad.runs.maps.setup import Setup
from moreaugrad.runs.plans.explain import ExplainPlan
from moreaugrad.solvers.solution import Status

Report = Callable[[str, Chosen, str, str, str], None]
"""Of a method's map of an image under an attack: why it failed, and the kind of failure."""


def evaluations(method: Method, attack: BudgetedAttack | None = None) -> int:
    """What one image takes at most: its clean map with the interactions, or an attack with its
    map."""
    own = method.explainer.budget()
    if attack is None:
        return own + interactions.evaluations(method)
    return 0 if attack.attack is None else attack.attack.budget() + own


def title(method: Method, attack: BudgetedAttack | None = None) -> str:
    """Of a method's maps, or of those under an attack."""
    return method.label if attack is None else f"{method.label}, {attack.title}"


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
    """How far a process is, in gradient evaluations. A map, or an attack, is expected to take the
    mean of those before it; the first map of a method what is usual, and the first attack on it the
    same part of its budget as on the method before, or all of it."""

    def __init__(
        self, setup: Setup, watch: Observer, units: Sequence[tuple[Method, Sequence[Chosen]]]
    ) -> None:
        """units: what is to be done."""
        self._watch, self._spent = watch, 0.0
        self._expected: dict[str, float] = {}
        self._attacks: dict[str, str] = {}
        self._left, self._taken = Counter[str](), dict[str, list[int]]()
        for method, images in units:
            for attack in (None, *setup.attacks.get(method.label, ())):
                self._left[title(method, attack)] += len(images)
                self._expected[title(method, attack)] = evaluations(method, attack)
                if attack is not None:
                    self._attacks[title(method, attack)] = attack.title
            self._expected[title(method)] = method.explainer.expected()
            self._left[interactions.title(method)] += len(images)
            self._expected[interactions.title(method)] = interactions.evaluations(method)
        self._most = dict(self._expected)

    def progress(self, what: str) -> Progress:
        """what: the title of maps, or of their interactions."""
        return lambda done, _: self._report(what, done * self._expected[what])

    def done(self, what: str, images: int, taken: Sequence[int]) -> None:
        """So many images are done; those that did not fail took these evaluations."""
        known = self._taken.setdefault(what, [])
        known += taken
        if known:
            self._expected[what] = sum(known) / len(known)
            part = self._expected[what] / max(1.0, self._most[what])
            for other, attack in self._attacks.items():
                if attack == self._attacks.get(what) and other not in self._taken:
                    self._expected[other] = part * self._most[other]
        self._left[what] -= images
        self._spent += sum(taken)
        self._report(what)

    def elsewhere(self, method: Method, images: int) -> None:
        """Another process has made these maps."""
        for what in self._left:
            if what == method.label or what.startswith(f"{method.label}, "):
                self._left[what] -= images

    def _report(self, what: str, more: float = 0.0) -> None:
        """more: evaluations of what is being done."""
        left = sum(count * self._expected[name] for name, count in self._left.items())
        total = max(1.0, self._spent + left)
        self._watch.pace(min(self._spent + more, total), total, what)


class Block:
    """What a unit is made of. report: is called with failures."""

    def __init__(self, setup: Setup, method: Method, meter: Meter, report: Report) -> None:
        self.setup, self.method, self.meter, self.report = setup, method, meter, report
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
                clean = setup.inputs.explain(
                    rows, x, method.network, method.explainer, setup.targets(rows, method),
                    ids=setup.ids(rows), progress=self.meter.progress(title(method)),
                )  # fmt: skip
        except Exception as error:
            why = problem(error)
            if len(rows) > 1:
                for place, one in enumerate(rows):
                    self.explain([one], x[place : place + 1])
                return
            self.failed(rows[0], why)
            for what in (title(method), interactions.title(method)):
                self.meter.done(what, 1, ())
            return
        self.meter.done(title(method), len(rows), clean.evaluations.tolist())
        pairs = self._interactions(clean)
        notes = list(dict.fromkeys(str(item.message) for item in caught))
        for row, found in enumerate(self._measures(rows, x).of_clean(clean)):
            one = rows[row]
            kept, stored = self._kept(one, clean, row)
            record = {
                **setup.inputs.described(one, clean[row], method.explainer, method.network),
                "map": map_record(clean, row),
                **({"warnings": notes} if notes and setup.explains else {}),
                **pairs[row],
                **found,
                **stored,
            }
            self._record(one, record)
            if setup.explains:
                self._export(one, clean[row], record, x[row], kept)
            else:
                self.tensors |= kept
        for attack in setup.attacks.get(method.label, ()):
            self._attack(attack, rows, x, clean)

    def _interactions(self, clean: Explanation) -> list[Record]:
        """What the record of each map says of them; nothing where they are not asked for."""
        if not self.method.interactions:
            return [{}] * len(clean)
        what = interactions.title(self.method)
        found = interactions.computed(self.method, clean, self.meter.progress(what))
        taken = [one["evaluations"] for one in found if "evaluations" in one]
        self.meter.done(what, len(clean), taken)
        return [{"interactions": one} for one in found]

    def _attack(
        self, attack: BudgetedAttack, rows: Sequence[Chosen], x: Tensor, clean: Explanation
    ) -> None:
        if attack.attack is None:
            for one in rows:
                self._record(one, {"problem": attack.reason}, attack)
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = attack.on(rows).attack(
                    x, clean.target, ids=self.setup.ids(rows), clean=clean,
                    progress=self.meter.progress(title(self.method, attack)),
                )  # fmt: skip
        except Exception as error:
            why = problem(error)
            if len(rows) > 1:
                for place, one in enumerate(rows):
                    self._attack(attack, [one], x[place : place + 1], clean[place])
                return
            self._record(rows[0], {"problem": why}, attack)
            self.meter.done(title(self.method, attack), 1, ())
            return
        for row, measured in enumerate(self._measures(rows, x).of_attacked(clean, found.attacked)):
            record = {"attacked": attack_record(found, row), "map": map_record(found.attacked, row)}
            kept, stored = self._kept(rows[row], found.attacked, row, attack)
            self._record(rows[row], record | measured | stored, attack)
            self.tensors |= kept
            if self.setup.keeps(rows[row]):
                assert isinstance(found.inputs, Tensor)
                name = tensor_name(rows[row].index, attack.label, attack.epsilon, "input")
                self.tensors[name] = found.inputs[row]
        taken = (found.evaluations + found.attacked.evaluations).tolist()
        self.meter.done(title(self.method, attack), len(rows), taken)

    def _measures(self, rows: Sequence[Chosen], x: Tensor) -> Measures:
        setup, network = self.setup, self.method.network
        asked = any(metric.kind in WITH_TRUTH for metric in setup.metrics)
        return Measures(
            metrics=setup.metrics, explainer=self.method.explainer, space=network.space, x=x,
            ids=setup.ids(rows),
            truths=[setup.inputs.ground_truth(one, network) if asked else None for one in rows],
        )  # fmt: skip

    def failed(self, one: Chosen, why: str) -> None:
        """An image without a map."""
        self._record(one, {"problem": why})

    def _record(self, one: Chosen, found: Record, attack: BudgetedAttack | None = None) -> None:
        name, epsilon = (CLEAN, None) if attack is None else (attack.label, attack.epsilon)
        why = found.get("problem") or no_map({"attack": name, **found})
        if why:
            self.report(self.method.label, one, name, why, LEFT_OUT)
        elif lacking := interactions.no_pairs(found):
            self.report(self.method.label, one, name, lacking, interactions.WITHOUT)
        head = {"input": one.item.name, "index": one.index, "method": self.method.label}
        self.records.append({**head, "attack": name, "epsilon": epsilon, **found})

    def _kept(
        self, one: Chosen, found: Explanation, row: int, attack: BudgetedAttack | None = None
    ) -> tuple[dict[str, Tensor], Record]:
        """A map by its name in a file, and how it is stored there; empty for one that is not."""
        setup, name = self.setup, "map"
        if not setup.explains:
            if not setup.keeps(one):
                return {}, {}
            label, epsilon = (CLEAN, None) if attack is None else (attack.label, attack.epsilon)
            name = tensor_name(one.index, label, epsilon, name)
        return packed(name, found.parts[0][row], setup.plan.maps_as)

    def _export(
        self, one: Chosen, found: Explanation, record: Record, x: Tensor, kept: dict[str, Tensor]
    ) -> None:
        """The map in the folder of its image: as it is kept with its z-scores, in further formats,
        and as images."""
        plan, network, method = self.setup.plan, self.method.network, self.method
        assert isinstance(plan, ExplainPlan)
        values, tensors = found.parts[0][0].cpu().contiguous(), dict(kept)
        style = Style(**vars(plan.style))
        if isinstance(found.z_scores, Tensor):
            tensors["z_scores"] = found.z_scores[0].half().cpu().contiguous()
        shown: dict[str, Any] = {
            "input": one.item.name, "model": network.model.name, "method": method.name,
            "settings": plain_settings(method.explainer), "target": record["target"],
        }  # fmt: skip
        views = self.setup.inputs.drawn(one, x, found, method.explainer, network, style, shown)
        if "interactions" in record:
            from moreaugrad.pictures.pairs import pair_views

            pairs = pair_views(record, network.model.preprocess.pixels(x), style)
            views |= {f"{name}.png": view.png(shown) for name, view in pairs.items()}
        geometry = self.setup.inputs.geometry(one, network)
        own = ("spacing", "map", "metrics", "stored")
        about = {**shown, **{name: record[name] for name in own if name in record}}
        # One entry of metadata: the order of several is not fixed, and the bytes have to be.
        words = {"moreaugrad": json.dumps(about, sort_keys=True, ensure_ascii=False)}
        stem = f"{self.setup.folders[one.index]}/{method.label}"
        self.exported |= {
            f"{stem}.safetensors": save(tensors, metadata=words),
            **{f"{stem}.{name}": EXPORTERS[name](values, geometry) for name in plan.export},
            **{f"{stem}.{end}": data for end, data in views.items()},
        }
