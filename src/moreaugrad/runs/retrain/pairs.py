"""Networks trained in several ways, and how like their maps of the same pictures are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, permutations
from pathlib import Path
from typing import ClassVar

import tomli_w
import torch
from torch import Tensor

from moreaugrad.data.augment import keyed
from moreaugrad.explainers.base import Explainer
from moreaugrad.files.names import number_name, percent_name
from moreaugrad.metrics import aggregate, build
from moreaugrad.runs.evaluate.intervals import Intervals
from moreaugrad.runs.job import ComputePlan
from moreaugrad.runs.pace import Watch
from moreaugrad.runs.records import Record
from moreaugrad.runs.retrain.examples import EXCHANGE, drawn, exchange, shuffled
from moreaugrad.runs.retrain.plan import LabelsPlan, StabilityPlan
from moreaugrad.runs.retrain.ranking import explainer_of
from moreaugrad.runs.retrain.tables import pairs_table
from moreaugrad.runs.retrain.trainings import (
    Changed,
    Trainings,
    accuracy,
    held_out,
    settled,
    table_named,
    train_table,
)
from moreaugrad.runs.study import Done, Study, StudyFolder
from moreaugrad.runs.team import Team
from moreaugrad.runs.train import Means, PreparedTrain

CHOSEN = 2
"""The draw of the pictures whose maps are compared."""
OTHER_SEED, PERMUTED = "another seed", "permuted labels"


@dataclass(frozen=True)
class Arm:
    """A way to train a network. exchanged: the share of its pictures; permuted: its labels are."""

    seed: int
    exchanged: float = 0.0
    permuted: bool = False

    @property
    def name(self) -> str:
        what = "permuted" if self.permuted else f"exchanged{number_name(self.exchanged)}"
        return f"{what}-seed{self.seed}"


@dataclass(frozen=True)
class Pair:
    """Two trainings whose maps are compared; those of a group are told together."""

    group: str
    first: Arm
    second: Arm


class PairStudy(Study):
    """The same test pictures explained by every network, for their labels."""

    named: ClassVar[Mapping[str, str]] = table_named("training")

    def __init__(
        self,
        plan: StabilityPlan | LabelsPlan,
        means: Means,
        watch: Watch,
        team: Team | None = None,
    ) -> None:
        self.plan = plan
        training = settled(plan.training)
        data = training.data
        # One split for all seeds, whose networks then learn from the same pictures but for what is
        # exchanged on purpose.
        split = training.seed if data.split_seed is None else data.split_seed
        self.training = replace(training, data=replace(data, split_seed=split))
        self.trainings = Trainings(self.training, means, watch, team or Team())
        arms = {arm for pair in self.pairs for arm in (pair.first, pair.second)}
        order = sorted(arms, key=lambda arm: (arm.permuted, arm.exchanged, arm.seed))
        self.arms = {arm.name: arm for arm in order}

    @property
    @abstractmethod
    def pairs(self) -> Sequence[Pair]:
        """In the order of the table."""

    @abstractmethod
    def change(self, arm: Arm, begun: PreparedTrain) -> Changed:
        """What this network learns from; the test pictures are the same for all."""

    @property
    def units(self) -> Sequence[str]:
        return list(self.arms)

    @property
    def compute(self) -> ComputePlan:
        return ComputePlan(device=self.training.device, threads=self.training.threads)

    def config(self, folder: Path) -> str:
        table = asdict(replace(self.plan, training=self.training))
        return tomli_w.dumps(
            {"study": self.name, **table, "training": train_table(self.training, folder)}
        )

    def begin(self, folder: StudyFolder, watch: Watch) -> None:
        """Unsuitable settings are told before anything is trained."""
        self._explainers(self.trainings.start(self.plan.seeds[0]))

    def do(self, unit: str, folder: StudyFolder, watch: Watch) -> Done | None:
        arm = self.arms[unit]
        prepared = self.trainings.train(
            arm.seed, lambda begun: self.change(arm, begun), unit, folder.training(unit)
        )
        if prepared is None:
            return None
        assert prepared.test is not None
        test = prepared.test.examples
        order = keyed(0, CHOSEN, EXCHANGE).permutation(len(test))[: self.plan.images]
        record = {
            **asdict(arm),
            "training_accuracy": accuracy(prepared, held_out(prepared, prepared.loader.examples)),
            "accuracy": accuracy(prepared, prepared.test),
            "count": len(test),
            "compared": len(order),
        }
        explainers = self._explainers(prepared)
        maps: dict[str, list[Tensor]] = {label: [] for label in explainers}
        loader = held_out(prepared, test.subset(sorted(order.tolist())))
        for number, batch in enumerate(loader.epoch(0)):
            piece = prepared.piece(number, batch)
            for label, explainer in explainers.items():
                found = explainer.attribute(piece.x, piece.y, ids=piece.ids)
                assert isinstance(found, Tensor)
                maps[label].append(found.cpu())
        kept = {label: torch.cat(parts) for label, parts in maps.items()}
        return Done(record=record, maps=kept)

    def _explainers(self, prepared: PreparedTrain) -> dict[str, Explainer]:
        return {
            label: explainer_of(label, settings, prepared)
            for label, settings in self.plan.methods.items()
        }

    def results(self, folder: StudyFolder) -> Record:
        values: dict[tuple[str, str, str], list[Tensor]] = {}
        for pair in self.pairs:
            first, second = folder.maps(pair.first.name), folder.maps(pair.second.name)
            for method in self.plan.methods:
                for metric in self.plan.metrics:
                    found = build(metric)(first[method], second[method])
                    values.setdefault((pair.group, method, metric), []).append(found)
        rows = []
        for (group, method, metric), parts in values.items():
            told = aggregate(torch.cat(parts))
            # Pairs share their pictures: an interval is over the pictures' means over pairs.
            by_picture = torch.stack(parts).nanmean(0)
            low, high = Intervals().of_mean(by_picture[~by_picture.isnan()].tolist())
            figures = {"mean": told.mean, "low": low, "high": high}
            rows.append(
                {"group": group, "method": method, "metric": metric, "pairs": len(parts)}
                | {name: None if value != value else value for name, value in figures.items()}
                | {"defined": told.defined, "undefined": told.undefined}
            )
        return {"networks": [folder.record(unit) for unit in self.units], "likeness": rows}

    def table(self, results: Record) -> str:
        return pairs_table(self.name, self.plan.metrics, results)


class StabilityStudy(PairStudy):
    """Maps of networks that differ by their seeds and by some of their training pictures."""

    name = "stability"
    plan: StabilityPlan

    @property
    def pairs(self) -> Sequence[Pair]:
        return [
            Pair(f"{percent_name(share)}% exchanged", Arm(a, share), Arm(b, share))
            for share in self.plan.exchanged
            for a, b in combinations(self.plan.seeds, 2)
        ]

    def change(self, arm: Arm, begun: PreparedTrain) -> Changed:
        assert begun.test is not None
        training, reserve = begun.loader.examples, begun.test.examples
        counts = {share: round(share * len(training)) for share in self.plan.exchanged}
        used = {
            place
            for share, count in counts.items()
            for seed in self.plan.seeds
            for place in drawn(len(reserve), count, seed, 1)
        }
        unused = [place for place in range(len(reserve)) if place not in used]
        if max(counts.values()) >= len(reserve) or not unused:
            raise ValueError(
                f"exchanged: expected shares that leave some of the {len(reserve)} test pictures "
                f"unused by all {len(self.plan.seeds)} seeds, got "
                f"{', '.join(map(number_name, self.plan.exchanged))}"
            )
        return Changed(
            training=exchange(training, reserve, counts[arm.exchanged], arm.seed),
            test=reserve.subset(unused),
        )


class LabelsStudy(PairStudy):
    """Maps of networks that have learnt the labels, and of some that have learnt permuted ones."""

    name = "labels"
    plan: LabelsPlan

    @property
    def pairs(self) -> Sequence[Pair]:
        seeds = self.plan.seeds
        return [
            *(Pair(PERMUTED, Arm(a), Arm(b, permuted=True)) for a, b in permutations(seeds, 2)),
            *(Pair(OTHER_SEED, Arm(a), Arm(b)) for a, b in combinations(seeds, 2)),
        ]

    def change(self, arm: Arm, begun: PreparedTrain) -> Changed:
        training = begun.loader.examples
        return Changed(training=shuffled(training, arm.seed) if arm.permuted else training)
