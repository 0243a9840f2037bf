"""A study: units one after the other, a record of each, and a table when all are done."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from safetensors.torch import load_file, save
from torch import Tensor

from moreaugrad.files.atomic import remove_empty, remove_files
from moreaugrad.runs.directory import RunDirectory
from moreaugrad.runs.evaluate.environment import deterministic, environment
from moreaugrad.runs.job import ComputePlan
from moreaugrad.runs.network import fixed_threads
from moreaugrad.runs.pace import Unwatched, Watch
from moreaugrad.runs.records import Record, json_text
from moreaugrad.runs.team import Team
from moreaugrad.runs.train.folder import TrainFolder

RECORDS, TRAINING, MAPS, RANKS = "records", "training", "maps", "ranks"
RESULTS, TABLE = "results.json", "table.md"


@dataclass(frozen=True, kw_only=True, eq=False)
class Done:
    """What is known of a finished unit, maps to keep, and further files by name."""

    record: Record
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class StudyFolder(RunDirectory):
    """Holds `config.toml`, `environment.json`, `records/UNIT.json`, `maps/UNIT.safetensors` where
    a study keeps some, `training/UNIT/` while a network is trained, and in the end `results.json`
    and `table.md`."""

    def __init__(self, path: Path, command: str, named: Mapping[str, str]) -> None:
        super().__init__(path)
        self.command, self.named = command, named

    units = (f"{RECORDS}/*",)
    others = (RESULTS, TABLE, f"{RANKS}/*.npy")

    def clear(self) -> None:
        super().clear()
        self.remove_trainings()

    def remove_trainings(self) -> None:
        """Those of units that are finished, or no longer wanted."""
        for folder in self.path.glob(f"{TRAINING}/*"):
            self.remove_training(folder.name)

    def remove_training(self, unit: str) -> None:
        TrainFolder(self.training(unit)).remove()
        remove_empty(self.path / TRAINING)

    def training(self, unit: str) -> Path:
        return self.path / TRAINING / unit

    def done(self, unit: str) -> bool:
        """Whether a unit is finished and undamaged."""
        return self.finished(f"{RECORDS}/{unit}")

    def record(self, unit: str) -> Record:
        file = self.path / RECORDS / f"{unit}.json"
        try:
            found: Record = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file}: expected a record ({error})") from error
        return found

    def maps(self, unit: str) -> dict[str, Tensor]:
        return load_file(self.path / MAPS / f"{unit}.safetensors")

    def save(self, unit: str, done: Done) -> None:
        """Then the network that was trained for the unit is no longer needed."""
        files = dict(done.files)
        if done.maps:
            kept = {name: value.detach().cpu().contiguous() for name, value in done.maps.items()}
            files[f"{MAPS}/{unit}.safetensors"] = save(kept)
        files[f"{RECORDS}/{unit}.json"] = json_text(done.record).encode()
        self.write(f"{RECORDS}/{unit}", files)
        self.remove_training(unit)


class Study(ABC):
    """What is trained and how it is told. `config`: the text of its configuration file."""

    name: ClassVar[str]
    command: ClassVar[str] = "retrain"
    """Of the command line, that makes it."""
    named: ClassVar[Mapping[str, str]]
    """As of a `RunDirectory`."""

    @abstractmethod
    def config(self, folder: Path) -> str: ...

    @property
    @abstractmethod
    def compute(self) -> ComputePlan:
        """Device and threads."""

    @property
    @abstractmethod
    def units(self) -> Sequence[str]:
        """Names of files; of trainings, mostly."""

    @abstractmethod
    def begin(self, folder: StudyFolder, watch: Watch) -> None:
        """What all units need, made by one process."""

    @abstractmethod
    def do(self, unit: str, folder: StudyFolder, watch: Watch) -> Done | None:
        """None where it was interrupted."""

    @abstractmethod
    def results(self, folder: StudyFolder) -> Record:
        """Of all units, as JSON."""

    @abstractmethod
    def table(self, results: Record) -> str:
        """The results in Markdown."""


@dataclass(kw_only=True, eq=False)
class StudyOutcome:
    """results: empty where not all units are finished."""

    folder: Path
    finished: int = 0
    units: int = 0
    results: Record = field(default_factory=dict)
    table: str = ""
    interrupted: bool = False
    seconds: float = 0.0


def run_study(
    study: Study,
    out: Path,
    *,
    overwrite: bool = False,
    team: Team | None = None,
    watch: Watch | None = None,
) -> StudyOutcome:
    """Does what is not done yet; processes share the trainings.

    An interruption (Ctrl-C) keeps finished trainings, and the last checkpoint of the one at work.
    Errors: ValueError for an unsuitable folder; FloatingPointError where a training diverges;
    OSError where the disk is full.
    """
    team, watch = team or Team(), watch or Unwatched()
    folder, units = StudyFolder(out, study.command, study.named), study.units
    outcome = StudyOutcome(folder=out, units=len(units))
    began = time.perf_counter()
    compute = study.compute

    def begin() -> None:
        if not all(map(folder.done, units)):
            study.begin(folder, watch)

    with (
        fixed_threads(compute.threads),
        deterministic(compute.device),
        folder.opened(study.config(out), environment(compute), overwrite=overwrite, team=team),
    ):
        try:
            team.first(begin)
            for unit in team.share(units):
                if not folder.done(unit):
                    found = study.do(unit, folder, watch)
                    if found is None:
                        raise KeyboardInterrupt
                    folder.save(unit, found)
            team.wait()
            if team.rank == 0:
                outcome.results = study.results(folder)
                outcome.table = study.table(outcome.results)
                folder.put(RESULTS, json_text(outcome.results).encode())
                folder.put(TABLE, outcome.table.encode())
                folder.remove_trainings()
                remove_files(out, [f"{RANKS}/{file.name}" for file in out.glob(f"{RANKS}/*.npy")])
        except KeyboardInterrupt:
            outcome.interrupted = True
        outcome.finished = sum(map(folder.done, units))
    outcome.seconds = time.perf_counter() - began
    return outcome
