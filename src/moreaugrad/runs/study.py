"""A study: units one after the other, a record of each, and a table when all are done."""

from __future__ import annotations

import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from safetensors.torch import load_file, save
from torch import Tensor

from moreaugrad.files import write_atomically
from moreaugrad.runs.directory import RunDirectory, remove_partial
from moreaugrad.runs.evaluate.environment import deterministic, environment
from moreaugrad.runs.job import ComputePlan
from moreaugrad.runs.network import fixed_threads
from moreaugrad.runs.pace import Unwatched, Watch
from moreaugrad.runs.records import Record, json_text
from moreaugrad.runs.team import Team

RECORDS, TRAINING, MAPS, RANKS = "records", "training", "maps", "ranks"
RESULTS, TABLE = "results.json", "table.md"


class StudyFolder(RunDirectory):
    """Holds `config.toml`, `environment.json`, `records/UNIT.json`, `maps/UNIT.safetensors` where
    a study keeps some, `training/UNIT/` while a network is trained, and in the end `results.json`
    and `table.md`."""

    def __init__(self, path: Path, command: str, named: Mapping[str, str]) -> None:
        super().__init__(path)
        self.command, self.named = command, named

    def clear(self) -> None:
        for name in (RECORDS, TRAINING, MAPS, RANKS):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (RESULTS, TABLE):
            (self.path / name).unlink(missing_ok=True)

    def training(self, unit: str) -> Path:
        return self.path / TRAINING / unit

    def finished(self, unit: str) -> bool:
        return (self.path / RECORDS / f"{unit}.json").exists()

    def record(self, unit: str) -> Record:
        file = self.path / RECORDS / f"{unit}.json"
        try:
            found: Record = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file}: expected a record ({error})") from error
        return found

    def maps(self, unit: str) -> dict[str, Tensor]:
        return load_file(self.path / MAPS / f"{unit}.safetensors")

    def write(self, unit: str, record: Record, maps: Mapping[str, Tensor]) -> None:
        """The record comes last; then the network is no longer needed."""
        if maps:
            kept = {name: value.detach().cpu().contiguous() for name, value in maps.items()}
            self.put(f"{MAPS}/{unit}.safetensors", save(kept))
        self.put(f"{RECORDS}/{unit}.json", json_text(record).encode())
        shutil.rmtree(self.training(unit), ignore_errors=True)

    def put(self, name: str, content: bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial(path.parent, path.name)
        write_atomically(path, content)


Done = tuple[Record, Mapping[str, Tensor]]
"""What is known of a finished training, and maps to keep."""


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

    def open_folder() -> None:
        folder.open(study.config(out), environment(compute), overwrite=overwrite)
        if not all(map(folder.finished, units)):
            study.begin(folder, watch)

    with fixed_threads(compute.threads), deterministic(compute.device):
        team.first(open_folder)
        try:
            for unit in team.share(units):
                if not folder.finished(unit):
                    found = study.do(unit, folder, watch)
                    if found is None:
                        raise KeyboardInterrupt
                    folder.write(unit, *found)
            team.wait()
            if team.rank == 0:
                outcome.results = study.results(folder)
                outcome.table = study.table(outcome.results)
                folder.put(RESULTS, json_text(outcome.results).encode())
                folder.put(TABLE, outcome.table.encode())
                for name in (TRAINING, RANKS):
                    shutil.rmtree(out / name, ignore_errors=True)
        except KeyboardInterrupt:
            outcome.interrupted = True
    outcome.finished = sum(map(folder.finished, units))
    outcome.seconds = time.perf_counter() - began
    return outcome
