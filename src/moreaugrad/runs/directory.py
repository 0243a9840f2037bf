"""The directory of a run that goes on where it was: its configuration, and what it ran on."""

from __future__ import annotations

import json
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from moreaugrad.files import write_atomically
from moreaugrad.runs.config import differences
from moreaugrad.runs.records import json_text

CONFIG, ENVIRONMENT = "config.toml", "environment.json"


class RunDirectory(ABC):
    """Holds `config.toml`, `environment.json`, and what a run of that configuration has made."""

    command = ""
    """That makes it."""
    named: Mapping[str, str] = MappingProxyType({})
    """Settings that are paths, with those that are digests of what they name; see `differences`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def clear(self) -> None:
        """Takes away what a run of another configuration has made."""

    def open(self, config: str, environment: Mapping[str, Any], *, overwrite: bool) -> None:
        """Makes the folder or takes one of the same configuration.

        Errors: ValueError for a folder of another configuration or of something else, and where it
        cannot be written to.
        """
        file = self.path / CONFIG
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: expected a folder to write to, but it is a file")
        try:
            remove_partial(self.path, CONFIG)
            remove_partial(self.path, ENVIRONMENT)
            if file.exists():
                self._compare(config, file.read_text(encoding="utf-8"), overwrite=overwrite)
            elif self.path.exists() and any(self.path.iterdir()) and not overwrite:
                raise ValueError(
                    f"{self.path}: expected a new or empty folder, or one that {self.command} "
                    "made; it holds other files: name another, or write into it with --overwrite"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            # What makes it a run comes first: a start that is killed here can go on.
            write_atomically(file, config.encode())
            self._environment(environment)
        except OSError as error:
            raise ValueError(
                f"{self.path}: cannot be written to ({error.strerror or error}); name another "
                "folder"
            ) from error

    def _compare(self, config: str, before: str, *, overwrite: bool) -> None:
        if before == config:
            return
        try:
            found = differences(tomllib.loads(before), tomllib.loads(config), self.named)
        except tomllib.TOMLDecodeError:
            found = ["it is not a configuration"]
        if not found:
            return
        if not overwrite and self._holds_results():
            more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
            raise ValueError(
                f"{self.path}: holds a run of another configuration: {'; '.join(found[:5])}{more}. "
                "Name another folder, or replace it with --overwrite"
            )
        self.clear()
        (self.path / ENVIRONMENT).unlink(missing_ok=True)

    def _holds_results(self) -> bool:
        """Whether a run has made anything, or was refused before it could."""
        return any(path.name not in (CONFIG, ENVIRONMENT) for path in self.path.iterdir())

    def _environment(self, environment: Mapping[str, Any]) -> None:
        """One entry for each environment that has worked on the run."""
        known = self.environments()
        if environment not in known:
            text = json_text([*known, environment])
            write_atomically(self.path / ENVIRONMENT, text.encode())

    def environments(self) -> list[dict[str, Any]]:
        try:
            found = json.loads((self.path / ENVIRONMENT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return found if isinstance(found, list) else []


def remove_partial(folder: Path, name: str) -> None:
    """Takes away what a killed process left half-written; see `files.write_atomically`."""
    for left in folder.glob(f".{name}.{'?' * 8}"):
        left.unlink()
