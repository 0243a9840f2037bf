"""The directory of a run: its configuration, what it ran on, and its units of work."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from moreaugrad.files.atomic import (
    LOCK,
    is_temporary,
    only_writer,
    remove_empty,
    remove_files,
    remove_partial,
    write_atomically,
)
from moreaugrad.files.foreign import read_json
from moreaugrad.files.names import readable
from moreaugrad.files.units import Units
from moreaugrad.runs.plans.option import Plan
from moreaugrad.runs.plans.toml import differences, digests
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.records import json_text

CONFIG, ENVIRONMENT = "config.toml", "environment.json"
MARK = "# Written by moreaugrad {}.\n"
"""The first line of a configuration: only folders with it are written into."""


class RunDirectory(Units):
    """Holds `config.toml`, `environment.json`, and what a run of the configuration has made.

    command: that makes it. plan: the class of its plan. units: patterns of the stems of its units;
    others: of the other files that its runs write.
    """

    def __init__(
        self,
        path: Path,
        command: str,
        plan: type[Plan],
        units: Sequence[str] = (),
        others: Sequence[str] = (),
    ) -> None:
        super().__init__(path)
        self.command, self.plan, self.units, self.others = command, plan, units, others
        self._fresh = False

    @contextmanager
    def opened(
        self,
        config: str,
        environment: Mapping[str, Any] | None = None,
        *,
        overwrite: bool,
        processes: Processes | None = None,
    ) -> Iterator[None]:
        """While open, these processes are the only ones that write to the folder, which is made, or
        taken where it holds a run of the same configuration.

        overwrite: a run of another configuration is removed first; nothing else ever is.
        Errors: ValueError for a folder of another configuration, of something else or in use, and
        where it cannot be written to.
        """
        with ExitStack() as held:
            all_of_them = processes or Processes()
            all_of_them.first(lambda: self._open(held, config, environment, overwrite))
            yield

    def _open(
        self, held: ExitStack, config: str, environment: Mapping[str, Any] | None, overwrite: bool
    ) -> None:
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
            held.enter_context(only_writer(self.path))
            self._admit(config, overwrite=overwrite)
            remove_partial(self.path)
            # What makes it a run comes first: a start that is killed here can be repeated.
            self._fresh = not (self.path / CONFIG).exists()
            text = MARK.format(self.command) + config
            write_atomically(self.path / CONFIG, text.encode())
            if environment is not None:
                self._add(environment)
        except OSError as error:
            raise ValueError(
                f"{self.path}: cannot be written to ({error.strerror or error}); name another "
                "folder"
            ) from error

    def _admit(self, config: str, *, overwrite: bool) -> None:
        """Takes the folder as it is, or clears it. Errors: ValueError where neither is right."""
        file = self.path / CONFIG
        others = [path for path in self.path.iterdir() if not is_temporary(path)]
        if not others:
            return
        mark = MARK.format(self.command)
        before = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        if not before.startswith(mark):
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
        results = [path for path in others if path.name not in (CONFIG, ENVIRONMENT)]
        if results and not overwrite:
            more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
            raise ValueError(
                f"{self.path}: holds a run of another configuration: {'; '.join(found[:5])}{more}. "
                "Name another folder, or replace it with --overwrite"
            )
        # Before the new configuration is there: it must never stand above old results.
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
        if self._fresh:
            self.clear()
            remove_files(self.path, [CONFIG, ENVIRONMENT])

    def _add(self, environment: Mapping[str, Any]) -> None:
        """One entry for each environment that has worked on the run."""
        known = self.environments()
        if environment not in known:
            self.put(ENVIRONMENT, json_text([*known, environment]).encode())

    def environments(self) -> list[dict[str, Any]]:
        try:
            found = read_json(self.path / ENVIRONMENT, "the environments of a run")
        except (OSError, ValueError):
            return []
        return found if isinstance(found, list) else []
