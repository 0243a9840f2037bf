"""The directory of a run: its configuration, what it ran on, and its units of work."""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
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
from moreaugrad.files.checksums import SUFFIX, checksums, damaged, listed, missing
from moreaugrad.files.foreign import read_json
from moreaugrad.files.names import readable
from moreaugrad.runs.config import differences
from moreaugrad.runs.records import json_text
from moreaugrad.runs.team import Team

CONFIG, ENVIRONMENT = "config.toml", "environment.json"
MARK = "# Written by moreaugrad {}.\n"
"""The first line of a configuration: only folders with it are written into."""


class RunDirectory:
    """Holds a configuration and what a run of it has made; perhaps `environment.json`.

    A unit of work is named by a path without suffix, `STEM`: it consists of the files that
    `STEM.sha256` lists.
    """

    command: str = ""
    """That makes it."""
    config: str = CONFIG
    """The name of its configuration."""
    named: Mapping[str, str] = MappingProxyType({})
    """Settings that are paths, with those that are digests of what they name; see `differences`."""
    units: Sequence[str] = ()
    """Patterns of the stems of its units."""
    others: Sequence[str] = ()
    """Patterns of the other files that its runs write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole: set[str] = set()
        self._told: set[str] = set()
        self._fresh = False

    @contextmanager
    def opened(
        self,
        config: str,
        environment: Mapping[str, Any] | None = None,
        *,
        overwrite: bool,
        team: Team | None = None,
    ) -> Iterator[None]:
        """While open, the processes of the team are the only ones that write to the folder, which
        is made, or taken where it holds a run of the same configuration.

        overwrite: a run of another configuration is removed first; nothing else ever is.
        Errors: ValueError for a folder of another configuration, of something else or in use, and
        where it cannot be written to.
        """
        with ExitStack() as held:
            (team or Team()).first(lambda: self._open(held, config, environment, overwrite))
            yield

    def _open(
        self, held: ExitStack, config: str, environment: Mapping[str, Any] | None, overwrite: bool
    ) -> None:
        unwritable = [line for line in config.split("\n") if line != readable(line)]
        if unwritable:
            raise ValueError(
                f"{self.config}: expected names in UTF-8, got {readable(unwritable[0])}: rename "
                "the file or folder"
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
            self._fresh = not (self.path / self.config).exists()
            text = MARK.format(self.command) + config
            write_atomically(self.path / self.config, text.encode())
            if environment is not None:
                self._environment(environment)
        except OSError as error:
            raise ValueError(
                f"{self.path}: cannot be written to ({error.strerror or error}); name another "
                "folder"
            ) from error

    def _admit(self, config: str, *, overwrite: bool) -> None:
        """Takes the folder as it is, or clears it. Errors: ValueError where neither is right."""
        file = self.path / self.config
        others = [path for path in self.path.iterdir() if not is_temporary(path)]
        if not others:
            return
        mark = MARK.format(self.command)
        before = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        if not before.startswith(mark):
            what = f"a {self.config} that it did not write" if before else "other files"
            raise ValueError(
                f"{self.path}: expected a new or empty folder, or one that {self.command} made; "
                f"it holds {what}: name another folder"
            )
        try:
            found = differences(tomllib.loads(before), tomllib.loads(config), self.named)
        except tomllib.TOMLDecodeError:
            found = ["it is not a configuration"]
        if not found:
            return
        results = [path for path in others if path.name not in (self.config, ENVIRONMENT)]
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
        for pattern in self.units:
            for file in sorted(self.path.glob(f"{pattern}{SUFFIX}")):
                name = file.relative_to(self.path).as_posix()
                remove_files(self.path, [*listed(file), name])
        for pattern in self.others:
            found = [file.relative_to(self.path).as_posix() for file in self.path.glob(pattern)]
            remove_files(self.path, found)
        self._whole.clear()

    def remove(self) -> None:
        """Removes all that the program wrote, and the folder where it then is empty."""
        if self.path.is_dir():
            self.clear()
            remove_partial(self.path)
            remove_files(self.path, [self.config, ENVIRONMENT, LOCK])
            remove_empty(self.path)

    def discard(self) -> None:
        """Takes back what `opened` made, when nothing came of the run."""
        if self._fresh:
            remove_files(self.path, [self.config, ENVIRONMENT])

    def write(self, stem: str, files: Mapping[str, bytes], *, also: Sequence[str] = ()) -> None:
        """A unit: the contents of its files by their names. also: its files that are there already.
        Errors: OSError of the file system."""
        listing, kept = self.path / f"{stem}{SUFFIX}", {*files, *also}
        remove_files(self.path, [name for name in listed(listing) if name not in kept])
        self.put(f"{stem}{SUFFIX}", checksums(self.path, files, also))
        for name, data in files.items():
            self.put(name, data)
        self._whole.add(stem)

    def put(self, name: str, data: bytes) -> None:
        """A file of its own. Errors: OSError of the file system."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)

    def finished(self, stem: str) -> bool:
        """Whether all files of a unit are there, and as they were written.

        Of a damaged file is warned; the unit is then done again.
        """
        if stem not in self._whole:
            names = listed(self.path / f"{stem}{SUFFIX}")
            wrong = damaged(self.path, names)
            if wrong and stem not in self._told:
                self._told.add(stem)
                warnings.warn(
                    f"{self.path / wrong[0]}: is damaged (its content is not what was written), so "
                    f"{stem} does not count as finished",
                    stacklevel=2,
                )
            if not names or wrong or missing(self.path, names):
                return False
            self._whole.add(stem)
        return True

    def _environment(self, environment: Mapping[str, Any]) -> None:
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
