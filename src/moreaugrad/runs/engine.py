"""The engine of every command that takes time: units of work, resumed, shared, interruptible."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from moreaugrad.files.units import Record
from moreaugrad.reports import page_files
from moreaugrad.reports.folder import PAGE, PAGE_UNIT, read_environments
from moreaugrad.reports.studies import TABLES, Findings, study_page
from moreaugrad.runs.cost import Estimate
from moreaugrad.runs.directory import RunDirectory, environment
from moreaugrad.runs.network import Network, computing
from moreaugrad.runs.plans.common import ComputePlan
from moreaugrad.runs.plans.option import Plan
from moreaugrad.runs.plans.toml import plan_toml
from moreaugrad.runs.processes import Processes

Files = Mapping[str, bytes]
"""Contents by names, with slashes, below the folder of the run."""
LEFT_OUT = "left out"
"""The kind of failure of an input or a map that there is no result of."""
P = TypeVar("P", bound=Plan)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An input that failed (no method), one of its maps, or something else, as `kind` says: the
    words before the message."""

    title: str
    message: str
    method: str = ""
    kind: str = LEFT_OUT

    @classmethod
    def of(cls, record: Record, why: str = "") -> Failure:
        """Of the record of an image or a map; why: instead of its `problem`."""
        message = why or record["problem"]
        return cls(title=record["input"], method=record.get("method", ""), message=message)

    def __str__(self) -> str:
        # The messages of the readers of files begin with the file's path.
        if not self.method and self.title in self.message:
            return self.message
        return f"{self.title}{', ' if self.method else ''}{self.method}: {self.message}"


class Observer:
    """Is informed of a run: `done` of about `total` evaluations, news, a page that can be looked
    at, and what failed. This one ignores it; others have the same methods.

    looking: whether somebody waits for maps to look at, of which previews are then made first.
    """

    looking: bool = False

    def pace(self, done: float, total: float, doing: str) -> None: ...

    def page(self, path: Path) -> None: ...

    def agreed(self, question: str) -> bool:
        """Whether to go on with what will take long."""
        return True

    def news(self, text: str) -> None: ...

    def failed(self, failure: Failure) -> None: ...


class NoResult(ValueError):
    """A run has no usable result; its folder is removed."""


class Run(ABC, Generic[P]):
    """A command at work. `plan` has every choice made, so that it gives the same again.

    A subclass says what it needs (`settled`), what its units of work are (`units`, or `stages` of
    them), how one is done (`do`), and what is made of all of them (`findings`, or `finish`).
    """

    command: ClassVar[str]
    patterns: ClassVar[Sequence[str]] = ()
    """Of the stems of its units."""
    others: ClassVar[Sequence[str]] = ()
    """Patterns of its other files."""
    shares: bool = True
    """Whether processes without any connection can share its units."""

    plan: P
    network: Network
    units: Mapping[str, Any] = {}
    """What each unit is of, by its stem."""
    notes: Sequence[str] = ()
    """Choices that a user should know of."""

    def __init__(
        self, plan: P, processes: Processes | None = None, watch: Observer | None = None
    ) -> None:
        """Errors: ValueError or TypeError for a plan that cannot be run; nothing is written."""
        self.processes, self.watch = processes or Processes(), watch or Observer()
        self.plan = self.settled(plan)

    @abstractmethod
    def settled(self, plan: P) -> P:
        """The plan with every choice made. Loads what the run needs, and sets `units`."""

    @property
    def compute(self) -> ComputePlan:
        """Device and threads."""
        return self.network.compute

    @property
    def stages(self) -> Sequence[Sequence[str]]:
        """Stems of units. All processes finish a stage before the next begins."""
        return [list(self.units)]

    def place(self, unit: str) -> tuple[int, int]:
        """How many of its units this process does before this one, and how many in all."""
        own = self.processes.share(list(self.units))
        return own.index(unit), len(own)

    def records(self, directory: RunDirectory) -> list[Record]:
        """`UNIT.json` of the finished units."""
        return [directory.json(unit) for unit in self.units if directory.finished(unit)]

    def begin(self, directory: RunDirectory) -> None:
        """What all units need, made by one process."""

    @abstractmethod
    def do(self, unit: str, directory: RunDirectory) -> Files | None:
        """The files of a unit; None where it was interrupted."""

    def after(self, stage: Sequence[str], directory: RunDirectory) -> None:
        """Looks at a finished stage. Errors: NoResult."""

    def finish(self, directory: RunDirectory) -> None:
        """What is made of all units, by one process."""
        results = self.results(directory)
        if (found := self.findings(results)) is not None:
            found.write(directory, results)

    def findings(self, results: Record) -> Findings | None:
        """The results as tables; None for a command that makes its own files of them."""
        return None

    def interrupted(self, directory: RunDirectory) -> None:
        """What is made of the units that are finished when a run is interrupted."""

    def elsewhere(self, unit: str) -> None:
        """Another process, without any connection, has done this unit."""

    def failures(self, directory: RunDirectory) -> Iterable[Failure]:
        """What could not be done, in this start or one before it."""
        return ()

    def remarks(self, directory: RunDirectory) -> Iterable[str]:
        """What a user should know of the results."""
        return ()

    def kept(self, directory: RunDirectory) -> bool:
        """Whether there is anything to keep of a run that has not ended well."""
        return self.count(directory)[0] > 0

    def count(self, directory: RunDirectory) -> tuple[int, int]:
        """Units that are finished, and all of them."""
        units = [unit for stage in self.stages for unit in stage]
        return sum(map(directory.finished, units)), len(units)

    def results(self, directory: RunDirectory) -> Record:
        """A summary for scripts, of a finished or an interrupted run."""
        return {}

    def estimate(self) -> Estimate:
        """What it would cost, from a short timing; nothing is written."""
        raise ValueError(f"dry_run: {self.command} computes nothing whose cost could be estimated")

    def work(self, directory: RunDirectory) -> None:
        """Does what is not done yet."""
        team = self.processes
        if not all(directory.finished(unit) for stage in self.stages for unit in stage):
            team.first(lambda: directory.once("begin", lambda: self.begin(directory)))
        for number, stage in enumerate(self.stages, 1):
            # Shares are those of all units, so that each has one process whatever is finished. A
            # shard waits for no other: what its last stage needs, it makes unless others do.
            whole = team.shard is not None and number < len(self.stages)
            for unit in directory.turns(stage if whole else team.share(stage), self.elsewhere):
                files = self.do(unit, directory)
                if files is None:
                    raise KeyboardInterrupt
                directory.write(unit, files)
            team.wait()
            if team.shard is not None and not all(map(directory.finished, stage)):
                return
            self.after(stage, directory)
        if team.rank == 0:
            directory.once("finish", lambda: self._conclude(directory))
        team.wait()

    def _conclude(self, directory: RunDirectory) -> None:
        self.finish(directory)
        self.draw(directory)

    def draw(self, directory: RunDirectory) -> None:
        """The page of a study's tables."""
        if (directory.path / TABLES).is_file():
            directory.write(PAGE_UNIT, page_files(study_page(directory.path), PAGE))


@dataclass(kw_only=True, eq=False)
class Outcome:
    """How far a run is. units, finished: of all processes."""

    run: Run[Any]
    directory: RunDirectory
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def folder(self) -> Path:
        return self.directory.path

    @property
    def units(self) -> int:
        return self.run.count(self.directory)[1]

    @property
    def finished(self) -> int:
        return self.run.count(self.directory)[0]

    @property
    def complete(self) -> bool:
        return not self.interrupted and not self.failures


def execute(run: Run[Any], out: Path, *, overwrite: bool = False) -> Outcome:
    """Writes the directory of a run, or resumes the one that is there, or joins the processes that
    share its work at this moment.

    What cannot be read or computed is reported and left out. An interruption (Ctrl-C) keeps the
    finished units. Errors: ValueError for an unsuitable folder, and where there is no result at
    all; OSError where the disk is full or another process has died, MemoryError, FloatingPointError
    where a training diverges.
    """
    patterns = (*run.patterns, PAGE_UNIT)
    shared = run.shares and run.processes.size == 1
    if run.processes.shard and not shared:
        raise ValueError(
            f"shard: {run.command} cannot be split into shards; torchrun starts processes that "
            "share it"
        )
    directory = RunDirectory(out, run.command, type(run.plan), patterns, run.others)
    outcome = Outcome(run=run, directory=directory, notes=list(run.notes))
    began, made_on = time.perf_counter(), environment(run.compute)
    opened = directory.opened(
        plan_toml(run.plan, out), made_on, overwrite=overwrite, processes=run.processes,
        shared=shared,
    )  # fmt: skip
    with computing(run.compute), opened:
        if len(read_environments(out)) > 1:
            outcome.notes.append(
                "this run was begun with other versions or on another machine: its results may "
                "differ by rounding (environment.json lists all)"
            )
        try:
            run.work(directory)
        except KeyboardInterrupt:
            outcome.interrupted = True
            if not run.kept(directory):
                directory.discard()
            elif run.processes.rank == 0 and not directory.joined:
                run.interrupted(directory)
        except ConnectionError:
            raise
        except OSError as error:
            why = error.strerror or str(error)
            if run.kept(directory):
                why += "; what is finished stays, and the same command resumes from there"
            else:
                directory.discard()
            raise OSError(error.errno, why, str(error.filename or out)) from error
        except BaseException as error:
            if isinstance(error, NoResult) or not run.kept(directory):
                directory.discard()
            raise
        outcome.failures += run.failures(directory)
        outcome.notes += run.remarks(directory)
    outcome.seconds = time.perf_counter() - began
    return outcome
