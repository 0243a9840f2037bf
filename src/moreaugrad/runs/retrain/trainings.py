"""Networks trained by one plan on changed data, from the same start for the same seed."""

from __future__ import annotations

import copy
import hashlib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moreaugrad.data.augment import Augment
from moreaugrad.data.dataset import files_digest
from moreaugrad.data.examples import Examples, open_examples
from moreaugrad.data.loading import Loader
from moreaugrad.data.source import CELLS
from moreaugrad.runs.config import to_table
from moreaugrad.runs.network import resolved_device
from moreaugrad.runs.pace import Newsless, Watch
from moreaugrad.runs.team import Team
from moreaugrad.runs.train import (
    DataPlan,
    Means,
    PreparedTrain,
    TrainPlan,
    prepare_train,
    run_train,
)
from moreaugrad.runs.train.judge import validate
from moreaugrad.runs.train.optimisers import make_optimiser
from moreaugrad.runs.train.plan import plan_toml
from moreaugrad.runs.train.prepare import EVALUATED
from moreaugrad.training.checkpoint import Checkpoint

Change = Callable[[PreparedTrain], "Changed"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Changed:
    """What a network learns from and is tested on, in place of the plan's own. None: the same.

    resized: pictures are of the network's size already.
    """

    training: Examples | None = None
    validation: Examples | None = None
    test: Examples | None = None
    resized: bool = False


def settled(plan: TrainPlan) -> TrainPlan:
    """With the choices of the machine made. One picture is judged: studies judge for themselves."""
    return replace(plan, device=resolved_device(plan.device), threads=plan.threads or 1, judged=1)


class Trainings:
    """Reads the data once for each seed; each process trains networks of its own."""

    def __init__(self, plan: TrainPlan, means: Means, watch: Watch, team: Team) -> None:
        if plan.data.test is None:
            raise ValueError(
                "data.test: expected a part of the data that networks are tested on (test or val), "
                "got none: set it in the configuration of the training, given by --config"
            )
        plan.model.check_trust()  # before anything is written
        self.plan, self.means, self.watch = plan, means, watch
        self._alone = team.alone()
        self._seed: int | None = None
        self._prepared: PreparedTrain | None = None

    def start(self, seed: int) -> PreparedTrain:
        """A training with this seed that has not begun."""
        if self._prepared is None or self._seed != seed:
            plan = replace(self.plan, seed=seed)
            self._prepared = prepare_train(plan, self._alone, self.means, self.watch)
            self._seed = seed
        return self._prepared

    def train(self, seed: int, change: Change, unit: str, folder: Path) -> PreparedTrain | None:
        """The network after the last epoch; None where it was interrupted. The folder goes on where
        it was; the caller takes it away."""
        begun = self.start(seed)
        module = copy.deepcopy(begun.module)
        fresh = replace(
            begun,
            model=replace(begun.model, module=module),
            optimiser=make_optimiser(begun.plan.optimiser, module),
            protocols=copy.deepcopy(begun.protocols),
        )
        prepared = _with(fresh, change(begun), unit)
        outcome = run_train(prepared, folder, watch=Newsless(self.watch))
        if outcome.interrupted:
            return None
        last = Checkpoint.load(folder)
        assert last is not None
        module.load_state_dict(dict(last.weights))
        module.eval()
        return prepared


def _with(prepared: PreparedTrain, changed: Changed, unit: str) -> PreparedTrain:
    augment = prepared.loader.augment
    if changed.resized:
        augment = replace(augment, resize=None)
    held = Augment.evaluation(augment.size, augment.resize)
    assert prepared.test is not None
    plan = replace(
        prepared.plan, augment=to_table(augment), pictures=f"{prepared.plan.pictures} {unit}"
    )
    return replace(
        prepared,
        plan=plan,
        loader=Loader(
            changed.training or prepared.loader.examples, augment, batch=plan.batch, seed=plan.seed,
            workers=prepared.means.workers, pin=prepared.device.type == "cuda",
        ),
        validation=held_out(prepared, changed.validation or prepared.validation.examples, held),
        test=held_out(prepared, changed.test or prepared.test.examples, held),
    )  # fmt: skip


def held_out(prepared: PreparedTrain, examples: Examples, held: Augment | None = None) -> Loader:
    """Examples as they lie and as they are evaluated."""
    held = held or prepared.validation.augment
    return Loader(examples, held, batch=EVALUATED, shuffle=False, workers=prepared.means.workers)


def accuracy(prepared: PreparedTrain, loader: Loader | None) -> float:
    assert loader is not None
    return float(validate(prepared, loader)["accuracy"])


def train_table(plan: TrainPlan, folder: Path) -> dict[str, Any]:
    """The plan as it is told in a study's configuration in `folder`."""
    table = tomllib.loads(plan_toml(plan, folder))
    digests = {
        f"{name}_digest": hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
        for name, path in (("weights", plan.model.weights), ("labels", plan.model.labels))
        if path is not None and Path(path).is_file()
    }
    return table | {"files": _files(plan.data)} | digests


def table_named(part: str) -> dict[str, str]:
    """`RunDirectory.named` for such a table as this part of a configuration."""
    return {f"{part}.data.source": f"{part}.files"} | {
        f"{part}.model.{name}": f"{part}.{name}_digest" for name in ("weights", "labels")
    }


def _files(data: DataPlan) -> str:
    """Of all images."""
    parts = [data.split, *([] if data.test is None else [data.test])]
    if data.source == CELLS:
        return CELLS
    opened = [open_examples(data.source, layout=data.layout, split=part) for part in parts]
    return files_digest(
        (part.describe(index), part.digest(index)) for part in opened for index in range(len(part))
    )
