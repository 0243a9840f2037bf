"""The directory of a run: its configuration, what it ran on, its units of work and their records,
which are plain values without clock times, so that equal runs are equal."""

from __future__ import annotations

import json
import math
import platform
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import captum
import numpy as np
import torch
from torch import Tensor

from moreaugrad.files.atomic import (
    LOCK,
    in_use,
    is_temporary,
    only_writer,
    remove_empty,
    remove_files,
    remove_partial,
    write_atomically,
)
from moreaugrad.files.claims import Claims
from moreaugrad.files.foreign import readable, some
from moreaugrad.files.units import Record, Units
from moreaugrad.reports.folder import CONFIG, ENVIRONMENT, read_environments
from moreaugrad.runs.plans.common import ComputePlan
from moreaugrad.runs.plans.option import Plan
from moreaugrad.runs.plans.toml import differences, digests
from moreaugrad.runs.processes import Processes

MARK = "# Written by moreaugrad {}.\n"
"""The first line of a configuration: only folders with it are written into."""

TROUBLE = (ValueError, TypeError, FloatingPointError, MemoryError, RuntimeError, AssertionError)
"""What a method or a network raises for an input that does not suit it."""


class RunDirectory(Units):
    """Holds `config.toml`, `environment.json`, and what a run of the configuration has made.

    command: that makes it. plan: the class of its plan. units: patterns of the stems of its units;
    others: of the other files that its runs write.
    """

    def __init__(
        self, path: Path, command: str, plan: type[Plan], units: Sequence[str] = (),
        others: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__(path)
        self.command, self.plan, self.units, self.others = command, plan, units, others
        self._fresh = False
        self._claims: Claims | None = None

    @contextmanager
    def opened(
        self, config: str, environment: Record | None = None, *, overwrite: bool,
        processes: Processes | None = None, shared: bool = False,
    ) -> Iterator[None]:  # fmt: skip
        """While open, these processes are the only ones that write to the folder, which is made, or
        taken where it holds a run of the same configuration.

        shared: others may join in with the same configuration; see `turns`. overwrite: a run of
        another configuration is removed first; nothing else ever is.
        Errors: ValueError for a folder of another configuration, of something else or in use, and
        where it cannot be written to.
        """
        with ExitStack() as held:
            (processes or Processes()).first(
                lambda: self._open(held, config, environment, overwrite, shared)
            )
            yield

    def turns(
        self, units: Sequence[str], elsewhere: Callable[[str], None] = lambda unit: None
    ) -> Iterator[str]:
        """The units that are not finished, of a shared folder each where no other process has taken
        it; ends when all are finished. elsewhere: is called with those of others."""
        if self._claims is None:
            return (unit for unit in units if not self.finished(unit))
        return self._claims.turns(units, self.finished, elsewhere)

    def once(self, what: str, act: Callable[[], None]) -> None:
        """Does it; in a shared folder one process does it, while the others wait."""
        if self._claims is None:
            act()
        else:
            self._claims.once(what, act)

    @property
    def joined(self) -> bool:
        """Whether other processes share the folder at this moment."""
        return self._claims is not None and bool(self._claims.others())

    def _open(
        self, held: ExitStack, config: str, environment: Record | None, overwrite: bool,
        shared: bool,
    ) -> None:  # fmt: skip
        unwritable = [line for line in config.split("\n") if line != readable(line)]
        if unwritable:
            raise ValueError(
                f"{CONFIG}: expected names in UTF-8, got {readable(unwritable[0])}: rename the "
                "file or folder"
            )
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: expected a folder to write to, but it is a file")
        try:
            made = [path for path in (self.path, *self.path.parents) if not path.exists()]
            for folder in reversed(made):
                held.callback(remove_empty, folder)
            self.path.mkdir(parents=True, exist_ok=True)
            with ExitStack() as briefly:
                held_by = briefly if shared else held
                held_by.enter_context(only_writer(self.path, briefly=shared))
                claims = Claims(self.path)
                others = claims.others()
                if others and not shared:
                    raise in_use(self.path, others[0])
                self._admit(config, overwrite=overwrite, others=others)
                self._begin(config, environment, others)
                if shared:
                    claims.join()
                    held.callback(claims.leave)
                    self._claims = claims
        except OSError as error:
            raise ValueError(
                f"{self.path}: cannot be written to ({error.strerror or error}); name another "
                "folder"
            ) from error

    def _begin(self, config: str, environment: Record | None, others: Sequence[str]) -> None:
        if not others:
            Claims(self.path).clear()
            remove_partial(self.path)
        # What makes it a run comes first: a start that is killed here can be repeated.
        self._fresh = not (self.path / CONFIG).exists()
        text = MARK.format(self.command) + config
        write_atomically(self.path / CONFIG, text.encode())
        known = read_environments(self.path)
        if environment is not None and environment not in known:
            self.put(ENVIRONMENT, json_text([*known, environment]).encode())

    def _admit(self, config: str, *, overwrite: bool, others: Sequence[str]) -> None:
        """Takes the folder as it is, or clears it. others: which processes share it. Errors:
        ValueError where neither is right."""
        there = [path for path in self.path.iterdir() if not is_temporary(path)]
        if not there:
            return
        file = self.path / CONFIG
        before = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        if not before.startswith(MARK.format(self.command)):
            what = f"a {CONFIG} that it did not write" if before else "other files"
            raise ValueError(
                f"{self.path}: expected a new or empty folder, or one that {self.command} made; "
                f"it holds {what}: name another folder"
            )
        try:
            found = differences(tomllib.loads(before), tomllib.loads(config), digests(self.plan))
        except tomllib.TOMLDecodeError:
            found = ["it is not a configuration"]
        if not found:
            return
        if others:
            raise ValueError(
                f"{self.path}: {others[0]} is writing to it with another configuration: "
                f"{some(found, '; ')}. Name another folder"
            )
        results = [path for path in there if path.name not in (CONFIG, ENVIRONMENT)]
        if results and not overwrite:
            raise ValueError(
                f"{self.path}: holds a run of another configuration: {some(found, '; ')}. Name "
                "another folder, or replace it with --overwrite"
            )
        # Before the new configuration is there, which must never describe old results.
        self.clear()
        remove_files(self.path, [ENVIRONMENT])

    def clear(self) -> None:
        """Removes what runs have made, by the program's own names, but not the configuration."""
        self.remove(self.units)
        self.remove_others(self.others)

    def remove_others(self, patterns: Iterable[str]) -> None:
        """Removes the files that match, and folders that become empty."""
        for pattern in patterns:
            found = [file.relative_to(self.path).as_posix() for file in self.path.glob(pattern)]
            remove_files(self.path, found)

    def remove_all(self) -> None:
        """Removes all that the program wrote, and the folder where it then is empty."""
        if self.path.is_dir():
            self.clear()
            remove_partial(self.path)
            remove_files(self.path, [CONFIG, ENVIRONMENT, LOCK])
            remove_empty(self.path)

    def discard(self) -> None:
        """Takes back what `opened` made, when a run has no result."""
        if not self._fresh:
            return
        # No process may join between the look and the removal.
        alone = only_writer(self.path, briefly=True) if self._claims else nullcontext()
        with suppress(ValueError, OSError), alone:
            if not self.joined:
                self.clear()
                remove_files(self.path, [CONFIG, ENVIRONMENT])


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {
        "moreaugrad": version("moreaugrad"),
        "torch": torch.__version__,
        "captum": captum.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def environment(compute: ComputePlan) -> Record:
    """What a run's bytes depend on besides its configuration: versions, CPU and device, threads."""
    device = torch.device(compute.device or "cpu")
    found: Record = {
        "versions": versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "device": device.type,
        "threads": compute.threads,
    }
    if device.type == "cuda":
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found


def number(value: float) -> float | None:
    """JSON has no NaN: null."""
    return value if math.isfinite(value) else None


def numbers(values: Tensor) -> list[Any]:
    """The same for all, in lists as deep as the tensor."""
    if values.ndim > 1:
        return [numbers(part) for part in values]
    return [number(value) for value in values.tolist()]


def line(error: BaseException) -> str:
    """An error in one line, which a record can hold."""
    text = readable(" ".join(str(error).split()))
    return text or type(error).__name__


def problem(error: Exception) -> str:
    """What a method, an attack or a metric raised for an input, in one line.

    Raises it again where it says nothing about the input: memory that ran out, files. Everything
    else is recorded, so that one part that breaks does not end a run of many.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        raise MemoryError("not enough memory: use a smaller --batch-size or --block") from error
    if isinstance(error, OSError):
        raise error
    return ("" if isinstance(error, TROUBLE) else f"{type(error).__name__}: ") + line(error)


def json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
