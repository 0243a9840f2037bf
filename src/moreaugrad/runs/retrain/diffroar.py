"""DiffROAR: networks trained on what an explanation ranks first, and on what it ranks last."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import tomli_w
import torch

from moreaugrad.data.augment import Augment
from moreaugrad.data.examples import Examples
from moreaugrad.files.names import number_name
from moreaugrad.metrics import diffroar
from moreaugrad.metrics.roar import BOTTOM, ENDS, TOP
from moreaugrad.models.weights import load_weights
from moreaugrad.runs.config import relative
from moreaugrad.runs.job import ComputePlan
from moreaugrad.runs.pace import Watch
from moreaugrad.runs.records import Record
from moreaugrad.runs.retrain.examples import Masked
from moreaugrad.runs.retrain.plan import ALL, FILL, DiffRoarPlan
from moreaugrad.runs.retrain.ranking import (
    TEST,
    TRAIN,
    Ranking,
    load_ranks,
    rank_file,
    ranked,
    whole,
)
from moreaugrad.runs.retrain.tables import diffroar_table
from moreaugrad.runs.retrain.trainings import (
    Changed,
    Trainings,
    accuracy,
    settled,
    table_named,
    train_table,
)
from moreaugrad.runs.study import RANKS, Done, Study, StudyFolder
from moreaugrad.runs.team import Team
from moreaugrad.runs.train import Means, PreparedTrain, prepare_train, read_plan

EXPLAINED = "explained"


@dataclass(frozen=True)
class _Unit:
    """A training: on whole pictures (`order` is ALL), or on a share of them."""

    order: str
    end: str
    level: float
    seed: int

    @property
    def name(self) -> str:
        if self.order == ALL:
            return f"{ALL}-seed{self.seed}"
        return f"{self.order}-{self.end}-{number_name(self.level)}-seed{self.seed}"


class DiffRoarStudy(Study):
    name = "diffroar"
    named: ClassVar[Mapping[str, str]] = {
        "explained.weights": "explained.digest",
        **table_named("explained"),
        **table_named("training"),
    }

    def __init__(
        self, plan: DiffRoarPlan, means: Means, watch: Watch, team: Team | None = None
    ) -> None:
        self.plan, self.means = plan, means
        self.weights = plan.explained / "best.safetensors"
        if not self.weights.is_file():
            raise ValueError(
                f"{plan.explained}: expected the folder of a finished training, but it holds no "
                "best.safetensors"
            )
        trust = plan.training.model.trust
        explained = read_plan(plan.explained / "config.toml", trust=trust)
        explained.model.check_trust()
        test = explained.data.test or plan.training.data.test
        explained = replace(explained, data=replace(explained.data, test=test))
        self.explained = settled(replace(explained, device=plan.training.device, shards=None))
        # A picture is one set of entries: data and size are those of the explained network.
        if "size" not in explained.augment:
            raise ValueError(
                f"{plan.explained}: expected the folder of a finished training, but its "
                "configuration does not say the size of the images (augment.size)"
            )
        size, resize = explained.augment["size"], explained.augment.get("resize")
        self.held = Augment.evaluation(size, resize)
        ours = {"size": size} if resize is None else {"size": size, "resize": resize}
        others = {n: v for n, v in plan.training.augment.items() if n not in ("size", "resize")}
        self.training = settled(replace(plan.training, data=explained.data, augment=others | ours))
        self.trainings = Trainings(self.training, means, watch, team or Team())
        self._units = {unit.name: unit for unit in self._wanted()}

    def _wanted(self) -> list[_Unit]:
        found = []
        for seed in self.plan.seeds:
            found.append(_Unit(ALL, TOP, 1.0, seed))
            found += [
                _Unit(order, end, level, seed)
                for order in self.plan.orders
                for level in self.plan.levels
                for end in ENDS
            ]
        return found

    @property
    def units(self) -> Sequence[str]:
        return list(self._units)

    @property
    def compute(self) -> ComputePlan:
        return ComputePlan(device=self.training.device, threads=self.training.threads)

    def config(self, folder: Path) -> str:
        plan = self.plan
        return tomli_w.dumps(
            {
                "study": self.name,
                "levels": list(plan.levels), "seeds": list(plan.seeds), "unit": plan.unit,
                "methods": {label: dict(settings) for label, settings in plan.methods.items()},
                "control": plan.control, "target": plan.target,
                "fill": "mean" if plan.fill is None else plan.fill,
                "explained": train_table(self.explained, folder)
                | {
                    "weights": relative(str(self.weights), folder),
                    "digest": hashlib.sha256(self.weights.read_bytes()).hexdigest()[:16],
                },
                "training": train_table(self.training, folder),
            }
        )  # fmt: skip

    def begin(self, folder: StudyFolder, watch: Watch) -> None:
        """Ranks every picture's entries, once for all trainings."""
        if folder.done(EXPLAINED) and ranked(folder.path / RANKS, self.plan):
            return
        prepared = prepare_train(self.explained, means=self.means, watch=watch)
        assert prepared.test is not None
        load_weights(prepared.module, self.weights, prepared.model.name)
        prepared.module.eval()
        ranking = Ranking(self.plan, prepared, folder.path / RANKS, watch)
        ranking.part(TRAIN, whole(prepared))
        ranking.part(TEST, prepared.test.examples)
        folder.save(EXPLAINED, Done(record={"accuracy": accuracy(prepared, prepared.test)}))

    def do(self, unit: str, folder: StudyFolder, watch: Watch) -> Done | None:
        wanted = self._units[unit]
        place = folder.path / RANKS
        # What is removed has the training pictures' colour in the test pictures too.
        fill = torch.from_numpy(np.load(rank_file(place, TRAIN, FILL)))
        order = self.plan.orders[0] if wanted.order == ALL else wanted.order

        def masked(examples: Examples, part: str) -> Examples:
            ranks = load_ranks(place, part, order)
            return Masked(examples, self.held, ranks, wanted.level, wanted.end, fill)

        def change(begun: PreparedTrain) -> Changed:
            assert begun.test is not None
            return Changed(
                training=masked(begun.loader.examples, TRAIN),
                validation=masked(begun.validation.examples, TRAIN),
                test=masked(begun.test.examples, TEST),
                resized=True,
            )

        prepared = self.trainings.train(wanted.seed, change, unit, folder.training(unit))
        if prepared is None:
            return None
        assert prepared.test is not None
        record = {
            "order": wanted.order, "end": wanted.end, "level": wanted.level, "seed": wanted.seed,
            "accuracy": accuracy(prepared, prepared.test),
            "count": len(prepared.test.examples),
        }  # fmt: skip
        return Done(record=record)

    def results(self, folder: StudyFolder) -> Record:
        records = {unit: folder.record(unit)["accuracy"] for unit in self.units}

        def grid(order: str, end: str) -> list[list[float]]:
            return [
                [records[_Unit(order, end, level, seed).name] for seed in self.plan.seeds]
                for level in self.plan.levels
            ]

        orders: Record = {}
        for order in self.plan.orders:
            top, bottom = grid(order, TOP), grid(order, BOTTOM)
            found = diffroar(top, bottom)
            orders[order] = {
                "top": top, "bottom": bottom,
                "by_level": found.by_level.tolist(),
                "deviation": [_number(value) for value in found.deviation],
                "mean": found.mean, "low": _number(found.low), "high": _number(found.high),
            }  # fmt: skip
        whole = [records[_Unit(ALL, TOP, 1.0, seed).name] for seed in self.plan.seeds]
        return {
            "explained": folder.record(EXPLAINED),
            "levels": list(self.plan.levels), "seeds": list(self.plan.seeds),
            "count": folder.record(self.units[0])["count"],
            "all": whole, "orders": orders,
        }  # fmt: skip

    def table(self, results: Record) -> str:
        return diffroar_table(self.plan, results)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
