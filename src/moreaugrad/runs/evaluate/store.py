"""The run directory: a configuration, and for each unit of work two files that are whole."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from moreaugrad.files import write_atomically
from moreaugrad.runs.evaluate.plan import differences
from moreaugrad.runs.records import Record, json_text

CONFIG, ENVIRONMENT = "config.toml", "environment.json"
SAMPLES, METHODS = "samples", "methods"


@dataclass(frozen=True)
class Unit:
    """A block of samples, of the pictures themselves (`method` empty) or through one method."""

    block: int
    method: str = ""

    @property
    def stem(self) -> str:
        folder = f"{METHODS}/{self.method}" if self.method else SAMPLES
        return f"{folder}/{self.block:05d}"


class RunFolder:
    """Holds `config.toml`, `environment.json`, `samples/` and `methods/LABEL/`.

    A unit is a `.jsonl` of records and a `.safetensors` of maps, in this order from last to first:
    where the records are, all is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, config: str, environment: Mapping[str, Any], *, overwrite: bool) -> None:
        """Makes the folder or takes one of the same configuration.

        Errors: ValueError for a folder of another configuration or of something else, and where it
        cannot be written to.
        """
        file = self.path / CONFIG
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: expected a folder to write to, but it is a file")
        try:
            _clear(self.path, CONFIG)
            _clear(self.path, ENVIRONMENT)
            if file.exists():
                self._compare(config, file.read_text(encoding="utf-8"), overwrite=overwrite)
            elif self.path.exists() and any(self.path.iterdir()) and not overwrite:
                raise ValueError(
                    f"{self.path}: expected a new or empty folder, or one that evaluate made; it "
                    "holds other files: name another, or write into it with --overwrite"
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
        if not overwrite:
            try:
                found = differences(tomllib.loads(before), tomllib.loads(config))
            except tomllib.TOMLDecodeError:
                found = ["it is not a configuration"]
            more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
            raise ValueError(
                f"{self.path}: holds a run of another configuration: {'; '.join(found[:5])}{more}. "
                "Name another folder, or replace it with --overwrite"
            )
        for name in (SAMPLES, METHODS):
            shutil.rmtree(self.path / name, ignore_errors=True)
        (self.path / ENVIRONMENT).unlink(missing_ok=True)

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

    def finished(self, unit: Unit) -> bool:
        return (self.path / f"{unit.stem}.jsonl").exists()

    def write(self, unit: Unit, records: Iterable[Record], tensors: Mapping[str, Tensor]) -> None:
        """Errors: OSError of the file system; then nothing of the unit is taken as finished."""
        try:
            self._write(self.path / unit.stem, records, tensors)
        except OSError as error:
            raise OSError(
                f"{self.path}: cannot be written to ({error.strerror or error}); what is finished "
                "stays, and the same command goes on from there"
            ) from error

    def _write(self, stem: Path, records: Iterable[Record], tensors: Mapping[str, Tensor]) -> None:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for kind in ("safetensors", "jsonl"):
            _clear(stem.parent, f"{stem.name}.{kind}")
        if tensors:
            kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
            write_atomically(stem.with_suffix(".safetensors"), save(kept))
        lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records]
        text = "".join(f"{line}\n" for line in lines)
        write_atomically(stem.with_suffix(".jsonl"), text.encode())

    def read(self, unit: Unit) -> list[Record]:
        """The records of a finished unit. Errors: ValueError for a damaged file."""
        file = self.path / f"{unit.stem}.jsonl"
        try:
            return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise ValueError(f"{file}: expected a record a line ({error})") from error

    def tensors(self, unit: Unit) -> dict[str, Tensor]:
        file = self.path / f"{unit.stem}.safetensors"
        return load_file(file) if file.exists() else {}


def _clear(folder: Path, name: str) -> None:
    """Takes away what a killed process left half-written; see `files.write_atomically`."""
    for left in folder.glob(f".{name}.{'?' * 8}"):
        left.unlink()
