"""The run directory: a configuration, and for each unit of work two files that are whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from safetensors.torch import load_file, save
from torch import Tensor

from moreaugrad.files import write_atomically
from moreaugrad.runs.directory import RunDirectory, remove_partial
from moreaugrad.runs.records import Record

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


class RunFolder(RunDirectory):
    """Holds `config.toml`, `environment.json`, `samples/` and `methods/LABEL/`.

    A unit is a `.jsonl` of records and a `.safetensors` of maps, in this order from last to first:
    where the records are, all is there.
    """

    command = "evaluate"
    named = MappingProxyType(
        {"data": "files", "model.weights": "network", "model.labels": "outputs"}
    )

    def clear(self) -> None:
        for name in (SAMPLES, METHODS):
            shutil.rmtree(self.path / name, ignore_errors=True)

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
            remove_partial(stem.parent, f"{stem.name}.{kind}")
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
