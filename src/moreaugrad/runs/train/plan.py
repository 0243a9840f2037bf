"""What to train: data, network, protocol, and how the weights are changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli_w

from moreaugrad.data.examples import CELLS, TRAIN
from moreaugrad.data.layouts import AUTO, check_layout
from moreaugrad.files.foreign import check_named, read_toml
from moreaugrad.registry import choose, refuse_code
from moreaugrad.runs.config import (
    finding,
    found_from,
    from_table,
    moved_network,
    relative,
    to_table,
)
from moreaugrad.runs.job import ModelPlan, check_threads
from moreaugrad.training.losses import LOSSES
from moreaugrad.training.schedules import SCHEDULES

AMP = ("bfloat16",)
OPTIMISERS = ("adam", "adamw", "sgd")


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """source: "cells", a folder or a zip of one. validation: the share of the training pictures
    that the best epoch is chosen by. test: a part of the data ("test", "val") that the finished
    network is judged on, and nothing is chosen by.

    count, test_count, seed: of the cells. split_seed: of the validation's draw, by default the
    training's. unreadable: the share of pictures from which on the training does not begin.
    """

    source: str = CELLS
    layout: str = AUTO
    split: str = TRAIN
    validation: float = 0.1
    test: str | None = None
    count: int | None = None
    test_count: int | None = None
    seed: int = 0
    split_seed: int | None = None
    unreadable: float = 0.01

    def __post_init__(self) -> None:
        check_named("data.source", self.source)
        check_layout(self.layout)
        if not 0 < self.validation < 1:
            raise ValueError(
                f"validation: expected a share of the training pictures between 0 and 1, got "
                f"{self.validation}"
            )
        if not 0 <= self.unreadable <= 1:
            raise ValueError(f"unreadable: expected a share in [0, 1], got {self.unreadable!r}")
        if self.source != CELLS and (self.count, self.test_count) != (None, None):
            raise ValueError(
                f"count and test_count: expected none beside {self.source}, of which all pictures "
                f"are taken; they are of {CELLS}, which are drawn on the way"
            )
        if self.test is not None and self.test == self.split:
            raise ValueError(
                f"test: expected another part than {self.split!r}, which is trained on"
            )


@dataclass(frozen=True, kw_only=True)
class NetworkPlan(ModelPlan):
    """from_scratch: with fresh weights. Resize and crop are the augmentation's."""

    from_scratch: bool = False

    def __post_init__(self) -> None:
        if self.from_scratch and self.weights is not None:
            raise ValueError("from_scratch: expected no weights beside it, got both")


@dataclass(frozen=True, kw_only=True)
class ProtocolPlan:
    """name, settings: of `training.PROTOCOLS`. penalty: of `runs.train.protocols.PENALTIES`, with
    its weights `epsilon`, and for groups the side and the channels of a block."""

    name: str = "plain"
    penalty: str | None = None
    epsilon: tuple[float, ...] = ()
    group: int = 14
    channels: str = "separate"
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OptimiserPlan:
    """lr: the largest, which the schedule takes shares of. betas: of Adam; momentum: of SGD."""

    name: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    schedule: str = "constant"

    def __post_init__(self) -> None:
        choose("optimiser", self.name, OPTIMISERS)
        choose("schedule", self.schedule, SCHEDULES)
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr: expected a finite number > 0, got {self.lr!r}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay: expected a number >= 0, got {self.weight_decay!r}")
        for name, value in (("momentum", self.momentum), *(("betas", b) for b in self.betas)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}: expected numbers in [0, 1), got {value!r}")


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """epochs over the data in batches of `batch`, each cut into `shards` pieces.

    loss: one of `training.LOSSES`.
    model: has to be named, but for cells, which are learnt by the built-in network.
    seed: of the order, the augmentation, the split, fresh weights and whatever protocols draw.
    amp: the type of the passes where it is safe, or None.
    judged: on how many pictures at most, spread evenly, Gini and robustness are measured.
    augment: settings of `data.augment.Augment`; size is the network's by default.
    start, pictures, files: digests of the weights that the training begins with, of the names and
    classes of what it learns from, and of the names and contents of all its files; filled in.
    """

    epochs: int = 10
    batch: int = 32
    shards: int | None = None
    seed: int = 0
    loss: str = "cross-entropy"
    amp: str | None = None
    device: str | None = None
    threads: int | None = None
    judged: int = 500
    start: str = ""
    pictures: str = ""
    files: str = ""
    data: DataPlan = field(default_factory=DataPlan)
    augment: Mapping[str, Any] = field(default_factory=dict)
    model: NetworkPlan = field(default_factory=NetworkPlan)
    protocol: ProtocolPlan = field(default_factory=ProtocolPlan)
    optimiser: OptimiserPlan = field(default_factory=OptimiserPlan)

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch": 1, "shards": 1, "seed": 0, "judged": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name}: expected at least {bound}, got {value}")
        check_threads(self.threads)
        choose("loss", self.loss, LOSSES)
        if self.amp is not None:
            choose("amp", self.amp, AMP)
        if self.shards is not None and self.shards > self.batch:
            raise ValueError(
                f"shards: expected at most the {self.batch} samples of a batch, got {self.shards}"
            )
        if not self.model.name and self.data.source == CELLS:
            object.__setattr__(self, "model", replace(self.model, name="builtin"))


def read_plan(path: str | Path, *, trust: bool = False) -> TrainPlan:
    """The plan of a TOML file; paths in it are relative to its folder and may begin with an
    environment variable; warns of those that lead out of the folder.

    trust: whether code that it names may be run, see `ModelPlan`.
    Errors: ValueError that names the file and what is wrong in it.
    """
    file, table = Path(path), read_toml(path)
    if not trust:
        refuse_code(table, file)
    try:
        plan = from_table(TrainPlan, table)
        if "source" not in table.get("data", {}):
            raise ValueError(
                "data.source: expected cells, or a folder of images to train on or a zip of one, "
                "got none"
            )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from None
    plan = replace(plan, start="", pictures="", files="")
    with finding(file, found_from) as find:
        plan = _moved(plan, find)
    return replace(plan, model=replace(plan.model, named_in=str(file), trust=trust))


def plan_toml(plan: TrainPlan, folder: Path) -> str:
    """The plan as the text of a TOML file in `folder`."""
    return tomli_w.dumps(to_table(_moved(plan, lambda name: relative(name, folder))))


def _moved(plan: TrainPlan, move: Callable[[str], str]) -> TrainPlan:
    """The plan with every path in it changed."""
    source = plan.data.source if plan.data.source == CELLS else move(plan.data.source)
    data = replace(plan.data, source=source)
    return replace(plan, model=moved_network(plan.model, move), data=data)
