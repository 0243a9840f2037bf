"""The engine of every command that takes time: units of work, resumed, shared, interruptible."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from moreaugrad.files.units import Record
from moreaugrad.runs.directory import RunDirectory
from moreaugrad.runs.estimate import Estimate
from moreaugrad.runs.network import deterministic, fixed_threads
from moreaugrad.runs.plans.common import ComputePlan
from moreaugrad.runs.plans.option import Plan
from moreaugrad.runs.plans.toml import plan_toml
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.progress import Failure, Watch
from moreaugrad.runs.records import environment

Files = Mapping[str, bytes]
"""Contents by names, with slashes, below the folder of the run."""


P = TypeVar("P", bound=Plan)


class NoResult(ValueError):
    """Nothing of a run is of any use, so that its folder is taken back."""


class Run(Generic[P]):
    """A command at work: `plan` has every choice made, so that it gives the same again."""

    command: ClassVar[str]
    patterns: ClassVar[Sequence[str]] = ()
    """Of the stems of its units."""
    others: ClassVar[Sequence[str]] = ()
    """Patterns of its other files."""

    plan: P
    processes: Processes
    watch: Watch
    notes: Sequence[str] = ()
    """Choices that a user should know of."""

    @property
    def compute(self) -> ComputePlan:
        """Device and threads."""
        raise NotImplementedError

    @property
    def stages(self) -> Sequence[Sequence[str]]:
        """Stems of units. All processes finish a stage before the next begins."""
        return ()

    def begin(self, directory: RunDirectory) -> None:
        """What all units need, made by one process."""

    def do(self, unit: str, directory: RunDirectory) -> Files | None:
        """The files of a unit; None where it was interrupted."""
        raise NotImplementedError

    def after(self, stage: Sequence[str], directory: RunDirectory) -> None:
        """Looks at a finished stage. Errors: NoResult."""

    def finish(self, directory: RunDirectory) -> None:
        """What is made of all units, by one process."""

    def interrupted(self, directory: RunDirectory) -> None:
        """What is made of the units that are finished when a run is interrupted."""

    def failures(self, directory: RunDirectory) -> Iterable[Failure]:
        """What could not be done, in this start or one before it."""
        return ()

    def kept(self, directory: RunDirectory) -> bool:
        """Whether there is anything to keep of a run that has not ended well."""
        return any(directory.finished(unit) for stage in self.stages for unit in stage)

    def results(self, directory: RunDirectory) -> Record:
        """A summary for scripts, of a finished or an interrupted run."""
        return {}

    def estimate(self) -> Estimate:
        """What it would cost, from a short timing; nothing is written."""
        raise NotImplementedError

    def work(self, directory: RunDirectory) -> None:
        """Does what is not done yet."""
        units = [unit for stage in self.stages for unit in stage]
        if not all(map(directory.finished, units)):
            self.processes.first(lambda: self.begin(directory))
        for stage in self.stages:
            # Shares are those of all units, so that each has one process whatever is finished.
            for unit in self.processes.share(stage):
                if not directory.finished(unit):
                    files = self.do(unit, directory)
                    if files is None:
                        raise KeyboardInterrupt
                    directory.write(unit, files)
            self.processes.wait()
            self.after(stage, directory)
        if self.processes.rank == 0:
            self.finish(directory)
        self.processes.wait()


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
        return sum(map(len, self.run.stages))

    @property
    def finished(self) -> int:
        return sum(self.directory.finished(unit) for stage in self.run.stages for unit in stage)

    @property
    def complete(self) -> bool:
        return not self.interrupted and not self.failures


def execute(run: Run[Any], out: Path, *, overwrite: bool = False) -> Outcome:
    """Writes the directory of a run, or resumes the one that is there.

    What cannot be read or computed is reported and left out. An interruption (Ctrl-C) keeps the
    finished units. Errors: ValueError for an unsuitable folder, and where there is no result at
    all; OSError where the disk is full or another process has died, MemoryError, FloatingPointError
    where a training diverges.
    """
    directory = RunDirectory(out, run.command, type(run.plan), run.patterns, run.others)
    outcome = Outcome(run=run, directory=directory, notes=list(run.notes))
    compute, began = run.compute, time.perf_counter()
    settings: list[AbstractContextManager[None]] = [
        fixed_threads(compute.threads), deterministic(compute.device),
    ]  # fmt: skip
    with settings[0], settings[1], directory.opened(
        plan_toml(run.plan, out), environment(compute), overwrite=overwrite,
        processes=run.processes,
    ):  # fmt: skip
        if len(directory.environments()) > 1:
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
            elif run.processes.rank == 0:
                run.interrupted(directory)
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            raise OSError(
                f"{out}: cannot be written to ({error.strerror or error}); what is finished stays, "
                "and the same command resumes from there"
            ) from error
        except BaseException as error:
            if isinstance(error, NoResult) or not run.kept(directory):
                directory.discard()
            raise
        outcome.failures += run.failures(directory)
    outcome.seconds = time.perf_counter() - began
    return outcome
