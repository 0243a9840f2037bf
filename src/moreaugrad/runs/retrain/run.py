"""Networks trained by one plan on changed data, from the same start for the same seed."""

from __future__ import annotations

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from moreaugrad.data.examples import Examples, open_examples
from moreaugrad.data.source import CELLS
from moreaugrad.explainers.base import Explainer
from moreaugrad.files.atomic import LOCK, remove_empty
from moreaugrad.files.units import SUFFIX, Record
from moreaugrad.models.loading import FINISHED, Trained, trained_folder
from moreaugrad.reports.folder import CONFIG, ENVIRONMENT, PAGE, PAGE_UNIT
from moreaugrad.reports.studies import STUDY_FILES
from moreaugrad.runs.cost import Estimate
from moreaugrad.runs.directory import RunDirectory, json_text
from moreaugrad.runs.engine import Files, Observer, Run, execute
from moreaugrad.runs.maps.methods import made
from moreaugrad.runs.network import resolved_device
from moreaugrad.runs.plans.common import ComputePlan
from moreaugrad.runs.plans.retrain import RetrainPlan
from moreaugrad.runs.plans.toml import read_plan
from moreaugrad.runs.plans.train import StartPlan, TrainDataPlan, TrainPlan
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.train.measure import validate
from moreaugrad.runs.train.prepare import (
    PreparedTrain,
    examples_digest,
    make_optimiser,
    prepare_train,
)
from moreaugrad.runs.train.run import TrainRun
from moreaugrad.training.checkpoint import WEIGHTS, Checkpoint

R = TypeVar("R", bound=RetrainPlan)
RECORDS, TRAINING = "records", "training"


class RetrainRun(Run[R]):
    """A unit is a network: `records/UNIT.json`; while it is trained, `training/UNIT/` is the folder
    of the training. Each process trains networks of its own."""

    patterns: ClassVar[Sequence[str]] = (f"{RECORDS}/*",)
    others: ClassVar[Sequence[str]] = (
        *STUDY_FILES, "ranks/*.npy",
        *(
            f"{TRAINING}/*/{name}"
            for name in (
                *TrainRun.others, f"{FINISHED}{SUFFIX}", f"{PAGE_UNIT}{SUFFIX}", PAGE, CONFIG,
                ENVIRONMENT, LOCK,
            )
        ),
    )  # fmt: skip

    def __init__(
        self, plan: R, processes: Processes | None = None, watch: Observer | None = None
    ) -> None:
        """Errors: ValueError for what cannot work; nothing is written."""
        if plan.file is not None:
            trust = plan.training.model.trust
            plan = replace(plan, training=read_plan(TrainPlan, plan.file, trust=trust), file=None)
        super().__init__(plan, processes, watch)
        self._begun: PreparedTrain | None = None
        self._last: RunDirectory | None = None

    @property
    def compute(self) -> ComputePlan:
        training = self.plan.training
        return ComputePlan(device=training.device, threads=training.threads)

    def start(self, seed: int) -> PreparedTrain:
        """A training with this seed that has not begun; the data are read once for each seed."""
        if self._begun is None or self._begun.plan.seed != seed:
            self._begun = self.prepared(replace(self.plan.training, seed=seed))
        return self._begun

    def prepared(self, plan: TrainPlan) -> PreparedTrain:
        """A training of this process alone."""
        loading = replace(plan.loading, memory=plan.loading.memory / self.processes.size)
        return prepare_train(replace(plan, loading=loading), self.processes.alone(), self.watch)

    @abstractmethod
    def change(self, wanted: Any, begun: PreparedTrain, directory: RunDirectory) -> PreparedTrain:
        """With what a network of `units` learns from."""

    def measured(self, prepared: PreparedTrain) -> tuple[Record, Mapping[str, bytes]]:
        """More about a trained network: for its record, and files by their suffixes."""
        return {}, {}

    def do(self, unit: str, directory: RunDirectory) -> Files | None:
        wanted = self.units[unit]
        changed = self.change(wanted, self.start(wanted.seed), directory)
        prepared = self._trained(unit, changed, directory)
        if prepared is None:
            return None
        more, files = self.measured(prepared)
        test = tested(prepared)
        record = {
            **asdict(wanted), "accuracy": accuracy(prepared, test), "count": len(test), **more,
        }  # fmt: skip
        found = {f"{unit}{suffix}": data for suffix, data in files.items()}
        return {**found, f"{unit}.json": json_text(record).encode()}

    def _trained(
        self, unit: str, changed: PreparedTrain, directory: RunDirectory
    ) -> PreparedTrain | None:
        """With the network after the last epoch; None where it was interrupted."""
        module = copy.deepcopy(changed.module)
        data = replace(changed.plan.data, digest=f"{changed.plan.data.digest} {unit}")
        fresh = replace(
            changed,
            plan=replace(changed.plan, data=data),
            network=replace(changed.network, model=replace(changed.model, module=module)),
            optimiser=make_optimiser(changed.plan.optimiser, module),
            protocols=copy.deepcopy(changed.protocols),
        )
        if self._last is not None:
            self._last.remove_all()
        run = TrainRun(fresh.plan, self.processes.alone(), _Newsless(self.watch), prepared=fresh)
        outcome = execute(run, directory.path / TRAINING / Path(unit).name)
        if outcome.interrupted:
            return None
        self._last, last = outcome.directory, Checkpoint.load(outcome.folder)
        assert last is not None
        module.load_state_dict(dict(last.weights))
        module.eval()
        return fresh

    def kept(self, directory: RunDirectory) -> bool:
        """Also of a training that was cut, which resumes from its checkpoint."""
        found = (f"{RECORDS}/*", f"{TRAINING}/*/{WEIGHTS}")
        return any(any(directory.path.glob(pattern)) for pattern in found)

    def finish(self, directory: RunDirectory) -> None:
        super().finish(directory)
        directory.remove_others([name for name in self.others if "/" in name])
        remove_empty(directory.path / TRAINING)

    def estimate(self) -> Estimate:
        """Of the trainings."""
        prepared, count = self.start(self.plan.seeds[0]), len(self.units)
        one = TrainRun(prepared.plan, prepared=prepared).estimate()
        costs = (
            replace(cost, maps=count * cost.maps, seconds=count * cost.seconds)
            for cost in one.costs
        )
        return replace(one, costs=tuple(costs), batches=count * one.batches)


class _Newsless(Observer):
    """Passes on all to a watch but the news."""

    def __init__(self, watch: Observer) -> None:
        self.pace, self.failed = watch.pace, watch.failed  # type: ignore[method-assign]


def settled_training(plan: RetrainPlan, training: TrainPlan) -> TrainPlan:
    """With the choices of the machine made, and with digests. One image is measured: studies
    measure for themselves. Errors: ValueError for a training that cannot be used."""
    data, model = training.data, training.model
    if data.source is None:
        raise ValueError("training: expected the TOML file of a training (--training), got none")
    if data.test is None:
        raise ValueError(
            "data.test: expected a part of the data that networks are tested on (test or val), "
            "got none: set it in the file of the training, given by --training"
        )
    model.check_trust()
    return replace(
        training, epochs=plan.epochs or training.epochs, threads=training.threads or 1, measured=1,
        device=resolved_device(plan.device or training.device), loading=plan.loading,
        data=replace(data, digest=_images(data)),
        model=replace(model, digest=_start(model), outputs=_content(model.labels)),
    )  # fmt: skip


def _images(data: TrainDataPlan) -> str:
    """A digest of all images and their classes."""
    assert data.source is not None
    if data.source == CELLS:
        return CELLS
    return examples_digest([
        open_examples(data.source, layout=data.layout, split=part)
        for part in (data.split, data.test) if part is not None
    ])  # fmt: skip


def _start(model: StartPlan) -> str:
    """A digest of the weights that training starts from, where they are in a file."""
    folder = trained_folder(model.name)
    own = None if folder is None or model.from_scratch else Trained.read(Path(folder)).weights
    return _content(model.weights or own)


def _content(file: str | None) -> str:
    """A digest of a file's content, where there is one."""
    if file is None or not Path(file).is_file():
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]


def explainers(plan: RetrainPlan, prepared: PreparedTrain) -> Mapping[str, Explainer]:
    """The methods of a plan by label, for a trained network. Errors: ValueError for unsuitable
    settings."""
    found = made(plan.methods, {}, 0, prepared.network, None)
    return {method.label: method.explainer for method in found}


def tested(prepared: PreparedTrain) -> Examples:
    """The test images, which every study has."""
    assert prepared.test is not None
    return prepared.test


def accuracy(prepared: PreparedTrain, examples: Examples) -> float:
    return float(validate(prepared, prepared.evaluated(examples))["accuracy"])
