"""The folder a job writes to: checked before anything is computed, and never half-written."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from moreaugrad.files import write_atomically

CONFIG, PAGE, RECORD = "config.toml", "index.html", "record.json"


class OutputFolder:
    """Holds a configuration, perhaps `index.html`, and a folder with a record for each input."""

    def __init__(self, path: Path, config: str = CONFIG, record: str = RECORD) -> None:
        self.path, self._config, self._record = path, config, record
        self._made: list[Path] = []

    def check(self, config: str, names: Iterable[str], *, overwrite: bool) -> None:
        """Errors: ValueError for a folder that holds something else, unless `overwrite`, and for
        folders in it, named like those of the inputs, that no job wrote: these are never touched.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: expected a folder to write to, but it is a file")
        for name in names:
            if (self.path / name).exists() and not is_ours(self.path / name / self._record):
                raise ValueError(
                    f"{self.path / name}: expected no such folder, or one that holds results; it "
                    "holds something else: name another folder for the results"
                )
        if overwrite or not self.path.is_dir():
            return
        if not any(self.path.iterdir()):
            return
        try:
            before = (self.path / self._config).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ValueError(
                f"{self.path}: expected a new or empty folder, but it holds other files; name "
                "another, or write into it with --overwrite"
            ) from None
        if before != config:
            raise ValueError(
                f"{self.path}: holds the results of another configuration ({self._config} "
                "differs); name another folder, or replace them with --overwrite"
            )

    def open(self, config: str) -> None:
        """Makes the folder and writes the configuration. Errors: ValueError where it cannot."""
        try:
            missing = [p for p in (self.path, *self.path.parents) if not p.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = missing
            write_atomically(self.path / self._config, config.encode())
        except OSError as error:
            self._remove_made()
            raise ValueError(
                f"{self.path}: cannot be written to ({error.strerror or error}); name another "
                "folder"
            ) from error

    def discard(self) -> None:
        """Takes back what `open` made, when nothing came of the job."""
        if self._made:
            (self.path / self._config).unlink(missing_ok=True)
            self._remove_made()

    def _remove_made(self) -> None:
        for folder in self._made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A folder to write an input's results to; afterwards it is there as `name`, whole."""
        scratch = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=self.path))
        try:
            scratch.chmod(self.path.stat().st_mode & 0o777)
            yield scratch
            target = self.path / name
            if target.exists():
                old = scratch.with_suffix(".old")
                target.rename(old)
                scratch.rename(target)
                shutil.rmtree(old)
            else:
                scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def remove_others(self, kept: Mapping[str, object]) -> None:
        """Removes the inputs' folders of an earlier configuration: those that hold our records."""
        for folder in self.path.iterdir():
            if folder.is_dir() and folder.name not in kept and is_ours(folder / self._record):
                shutil.rmtree(folder)


def is_ours(record: Path) -> bool:
    """Whether a file is a record that a job wrote."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "moreaugrad" in found.get("versions", {})
