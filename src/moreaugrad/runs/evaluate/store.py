"""The run directory: a configuration, and for each unit of work its records and its maps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from safetensors.torch import load_file, save
from torch import Tensor

from moreaugrad.runs.directory import RunDirectory
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

    A unit is a `.jsonl` of records and, where maps are kept, a `.safetensors` of them.
    """

    command = "evaluate"
    named = MappingProxyType(
        {"data": "files", "model.weights": "network", "model.labels": "outputs"}
    )
    units = (f"{SAMPLES}/*", f"{METHODS}/*/*")

    def done(self, unit: Unit) -> bool:
        """Whether a unit is finished and undamaged."""
        return self.finished(unit.stem)

    def save(self, unit: Unit, records: Iterable[Record], tensors: Mapping[str, Tensor]) -> None:
        """Errors: OSError of the file system; then nothing of the unit is taken as finished."""
        lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records]
        files = {f"{unit.stem}.jsonl": "".join(f"{line}\n" for line in lines).encode()}
        if tensors:
            kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
            files = {f"{unit.stem}.safetensors": save(kept)} | files
        try:
            self.write(unit.stem, files)
        except OSError as error:
            raise OSError(
                f"{self.path}: cannot be written to ({error.strerror or error}); what is finished "
                "stays, and the same command resumes from there"
            ) from error

    def read(self, unit: Unit) -> list[Record]:
        """The records of a finished unit. Errors: ValueError for what is no record."""
        file = self.path / f"{unit.stem}.jsonl"
        try:
            # Names may hold other ends of lines, such as U+2028.
            return [json.loads(line) for line in file.read_bytes().decode().split("\n")[:-1]]
        except ValueError as error:
            raise ValueError(f"{file}: expected a record a line ({error})") from error

    def tensors(self, unit: Unit) -> dict[str, Tensor]:
        """The maps of a finished unit; none where it keeps none, or is not finished."""
        file = self.path / f"{unit.stem}.safetensors"
        return load_file(file) if self.done(unit) and file.exists() else {}
