"""Networks trained in several ways, and how similar their maps of the same images are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, permutations, product
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from moreaugrad.data.augment import Pixels, keyed
from moreaugrad.data.examples import Examples
from moreaugrad.files.foreign import number_name, percent_name
from moreaugrad.files.units import Record, tensor_bytes
from moreaugrad.metrics import METRICS, aggregate
from moreaugrad.reports.content import Entry, Table
from moreaugrad.reports.statistics import Intervals
from moreaugrad.reports.studies import Findings
from moreaugrad.runs.directory import RunDirectory, number
from moreaugrad.runs.plans.retrain import LabelsPlan, PairPlan, StabilityPlan
from moreaugrad.runs.retrain.diffroar import percent
from moreaugrad.runs.retrain.run import (
    RECORDS,
    RetrainRun,
    accuracy,
    explainers,
    settled_training,
    tested,
)
from moreaugrad.runs.train.prepare import PreparedTrain
from moreaugrad.score.noise import KEYS

R = TypeVar("R", bound=PairPlan)

SHUFFLE, EXCHANGE = KEYS + 2, KEYS + 3
"""Keys of what is drawn here; those of the order of images and of their split lie below."""
CHOSEN = 2
"""The draw of the images whose maps are compared."""
OTHER_SEED, PERMUTED = "another seed", "permuted labels"
LEARNT = 0.95
"""Accuracy on its own training images from which on a network knows permuted labels by heart."""


@dataclass(frozen=True)
class Arm:
    """A way to train a network. exchanged: the fraction of its images; permuted: its labels are."""

    seed: int
    exchanged: float = 0.0
    permuted: bool = False

    @property
    def name(self) -> str:
        what = "permuted" if self.permuted else f"exchanged{number_name(self.exchanged)}"
        return f"{what}-seed{self.seed}"

    @property
    def unit(self) -> str:
        return f"{RECORDS}/{self.name}"

    @property
    def title(self) -> str:
        what = "permuted labels, " if self.permuted else ""
        exchanged = f"{percent_name(self.exchanged)}% exchanged, " if self.exchanged else ""
        return f"{what}{exchanged}seed {self.seed}"


Pairs = Sequence[tuple[str, Arm, Arm]]
"""Two trainings whose maps are compared; those of a group, the text, are reported together."""


class PairRun(RetrainRun[R]):
    """The same test images explained by every network, for their labels."""

    title: ClassVar[str]
    _results: Record | None = None
    """Of the finished study: similarities of many maps take a while."""

    def settled(self, plan: R) -> R:
        training = settled_training(plan, plan.training)
        data = training.data
        # One split for all seeds, whose networks then learn from the same images but for what is
        # exchanged on purpose.
        split = training.seed if data.split_seed is None else data.split_seed
        training = replace(training, data=replace(data, split_seed=split))
        self.pairs = self.paired(plan)
        arms = {arm for _, *pair in self.pairs for arm in pair}
        order = sorted(arms, key=lambda arm: (arm.permuted, arm.exchanged, arm.seed))
        self.units = {arm.unit: arm for arm in order}
        return replace(plan, training=training, epochs=None, device=None)

    @abstractmethod
    def paired(self, plan: R) -> Pairs:
        """In the order of the table."""

    def begin(self, directory: RunDirectory) -> None:
        """Unsuitable settings and methods are refused before anything is trained."""
        prepared = self.start(self.plan.seeds[0])
        methods = explainers(self.plan, prepared)
        (one,) = prepared.pieces(prepared.evaluated(tested(prepared).subset([0])))
        for explainer in methods.values():  # some look at the network only when they explain
            explainer.explain(one.x, one.y, ids=one.ids)

    def measured(self, prepared: PreparedTrain) -> tuple[Record, Mapping[str, bytes]]:
        """Its maps of the images that are compared."""
        test = tested(prepared)
        order = keyed(0, CHOSEN, EXCHANGE).permutation(len(test))[: self.plan.images]
        maps: dict[str, list[Tensor]] = {}
        methods = explainers(self.plan, prepared)
        for piece in prepared.pieces(prepared.evaluated(test.subset(sorted(order.tolist())))):
            for label, explainer in methods.items():
                found = explainer.attribute(piece.x, piece.y, ids=piece.ids)
                assert isinstance(found, Tensor)
                maps.setdefault(label, []).append(found.cpu())
        whole = tensor_bytes({label: torch.cat(parts) for label, parts in maps.items()})
        learnt = accuracy(prepared, prepared.training)
        return {"training_accuracy": learnt, "compared": len(order)}, {".safetensors": whole}

    def results(self, directory: RunDirectory) -> Record:
        """networks, and the mean similarity of their maps; of a finished study."""
        if not all(map(directory.finished, self.units)):
            return {}
        if self._results is not None:
            return self._results
        maps = {arm: directory.tensors(unit) for unit, arm in self.units.items()}
        values: dict[tuple[str, str, str], list[Tensor]] = {}
        for group, *pair in self.pairs:
            first, second = (maps[arm] for arm in pair)
            for method, metric in product(self.plan.methods, self.plan.metrics):
                found = METRICS.build(metric)(first[method], second[method])
                values.setdefault((group, method, metric), []).append(found)
        rows = [
            {"group": group, "method": method, "metric": metric, **_summary(parts)}
            for (group, method, metric), parts in values.items()
        ]
        self._results = {"networks": list(map(directory.json, self.units)), "similarity": rows}
        return self._results

    def findings(self, results: Record) -> Findings:
        networks = results["networks"]
        rows: dict[str, list[Entry]] = {}
        for row in results["similarity"]:
            label = f"{row['method']}, {row['group']}"
            rows.setdefault(label, [Entry(text=str(row["pairs"]))]).append(_similarity(row))
        weak = [n for n in networks if n["permuted"] and n["training_accuracy"] < LEARNT]
        note = (
            f"{len(weak)} of the networks on permuted labels know fewer than {percent(LEARNT)} % "
            "of them: train for more epochs before reading anything into these rows."
        )
        accuracies = [
            (arm.title, [Entry(text=percent(n[k])) for k in ("training_accuracy", "accuracy")])
            for arm, n in zip(self.units.values(), networks, strict=True)
        ]
        return Findings(
            title=self.title, notes=[note] if weak else [],
            lead="Mean similarity of two networks' maps of the same "
            f"{networks[0]['compared']} test images, which neither has learnt from, each for its "
            "label; with the 95 % interval (Student's t) over images, and how many maps have no "
            "value.",
            tables=[
                Table(
                    title="", head="between", rows=list(rows.items()),
                    columns=["pairs", *self.plan.metrics],
                ),
                Table(
                    title="", head="network", rows=accuracies,
                    columns=["on its training images, %",
                             f"on {networks[0]['count']} test images, %"],
                ),
            ],
        )  # fmt: skip


class StabilityRun(PairRun[StabilityPlan]):
    """Maps of networks that differ by their seeds and by some of their training images."""

    command = "retrain stability"
    title = "Stability of maps across trainings"

    def paired(self, plan: StabilityPlan) -> Pairs:
        return [
            (f"{percent_name(part)}% exchanged", Arm(a, part), Arm(b, part))
            for part in plan.exchanged
            for a, b in combinations(plan.seeds, 2)
        ]

    def change(self, wanted: Arm, begun: PreparedTrain, directory: RunDirectory) -> PreparedTrain:
        training, reserve = begun.training, tested(begun)
        counts = {part: round(part * len(training)) for part in self.plan.exchanged}
        used = {
            place
            for count, seed in product(counts.values(), self.plan.seeds)
            for place in drawn(len(reserve), count, seed, 1)
        }
        unused = [place for place in range(len(reserve)) if place not in used]
        if max(counts.values()) >= len(reserve) or not unused:
            raise ValueError(
                f"exchanged: expected fractions that leave some of the {len(reserve)} test images "
                f"unused by all {len(self.plan.seeds)} seeds, got "
                f"{', '.join(map(number_name, self.plan.exchanged))}"
            )
        exchanged = exchange(training, reserve, counts[wanted.exchanged], wanted.seed)
        return replace(begun, training=exchanged, test=reserve.subset(unused))


class LabelsRun(PairRun[LabelsPlan]):
    """Maps of networks that have learnt the labels, and of some that have learnt permuted ones."""

    command = "retrain labels"
    title = "Maps of networks trained on permuted labels"

    def paired(self, plan: LabelsPlan) -> Pairs:
        return [
            *((PERMUTED, Arm(a), Arm(b, permuted=True)) for a, b in permutations(plan.seeds, 2)),
            *((OTHER_SEED, Arm(a), Arm(b)) for a, b in combinations(plan.seeds, 2)),
        ]

    def change(self, wanted: Arm, begun: PreparedTrain, directory: RunDirectory) -> PreparedTrain:
        if not wanted.permuted:
            return begun
        return replace(begun, training=shuffled(begun.training, wanted.seed))


def _summary(parts: Sequence[Tensor]) -> Record:
    """Of similarities of each pair, `[images]`: the mean over images of their means over pairs, and
    its interval over images, which pairs share."""
    found = aggregate(torch.cat(list(parts)))
    by_image = torch.stack(list(parts)).nanmean(0)
    low, high = Intervals().of_mean(by_image[~by_image.isnan()].tolist())
    return {
        "pairs": len(parts), "mean": number(float(by_image.nanmean())), "low": number(low),
        "high": number(high), "defined": found.defined, "undefined": found.undefined,
    }  # fmt: skip


def _similarity(row: Record) -> Entry:
    if row["mean"] is None:
        return Entry(note=f"none of {row['undefined']}")
    return Entry(
        text=f"{row['mean']:.3f}",
        interval="" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}",
        note=f"{row['undefined']} without" if row["undefined"] else "",
    )


def shuffled(examples: Examples, seed: int) -> Examples:
    """Labels in an order drawn by the seed: as many of each class, of the wrong images."""
    order = keyed(seed, 0, SHUFFLE).permutation(len(examples))
    return replace(examples, labels=examples.labels[order])


def exchange(examples: Examples, reserve: Examples, count: int, seed: int) -> Examples:
    """`count` examples removed and as many of `reserve` instead, both drawn by the seed. Ids of
    these follow those of the others."""
    if not count:
        return examples
    gone = set(drawn(len(examples), count, seed, 0))
    first = examples.subset(place for place in range(len(examples)) if place not in gone)
    second = reserve.subset(drawn(len(reserve), count, seed, 1))
    two = (first, second, int(first.ids.max()) + 1)
    return replace(
        first, labels=torch.cat([first.labels, second.labels]),
        ids=torch.cat([first.ids, second.ids + two[2]]), read=partial(_read_of_two, *two),
        title=partial(_of_two, "title", *two),
        has_attention=first.has_attention and second.has_attention,
    )  # fmt: skip


def _of_two(what: str, first: Examples, second: Examples, beyond: int, key: int) -> Any:
    """What a function of the set with this id gives; ids of the second begin at `beyond`."""
    part, own = (first, key) if key < beyond else (second, key - beyond)
    return getattr(part, what)(own)


def _read_of_two(first: Examples, second: Examples, beyond: int, key: int) -> Pixels:
    image, attention = _of_two("read", first, second, beyond, key)
    return image, attention if first.has_attention and second.has_attention else None


def drawn(total: int, count: int, seed: int, number: int) -> Sequence[int]:
    """`count` of `total` places, in order; draw 0 leaves a set and draw 1 comes into it."""
    places = keyed(seed, number, EXCHANGE).permutation(total)[:count]
    found: list[int] = np.sort(places).tolist()
    return found
