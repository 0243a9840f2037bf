"""Units of work in a folder: written whole, and finished where their files are undamaged."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from moreaugrad.files.atomic import remove_files, write_atomically
from moreaugrad.files.checksums import SUFFIX, checksums, damaged, listed, missing

Record = dict[str, Any]


class Units:
    """A unit is named by a path without suffix, `STEM`: it consists of the files that `STEM.sha256`
    lists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole: set[str] = set()
        self._reported: set[str] = set()

    def finished(self, stem: str) -> bool:
        """Whether all files of a unit are there, and as they were written.

        Warns of a damaged file; the unit is then done again.
        """
        if stem not in self._whole:
            names = listed(self.path / f"{stem}{SUFFIX}")
            wrong = damaged(self.path, names)
            if wrong and stem not in self._reported:
                self._reported.add(stem)
                warnings.warn(
                    f"{self.path / wrong[0]}: is damaged (its content is not what was written), so "
                    f"{stem} does not count as finished",
                    stacklevel=2,
                )
            if not names or wrong or missing(self.path, names):
                return False
            self._whole.add(stem)
        return True

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

    def remove(self, patterns: Iterable[str]) -> None:
        """Removes the units whose stems match."""
        for pattern in patterns:
            for file in sorted(self.path.glob(f"{pattern}{SUFFIX}")):
                name = file.relative_to(self.path).as_posix()
                remove_files(self.path, [*listed(file), name])
        self._whole.clear()

    def records(self, stem: str) -> list[Record]:
        """Of a finished unit's `STEM.jsonl`. Errors: ValueError for what is no record."""
        file = self.path / f"{stem}.jsonl"
        try:
            # Names may hold other ends of lines, such as U+2028.
            return [json.loads(line) for line in file.read_bytes().decode().split("\n")[:-1]]
        except ValueError as error:
            raise ValueError(f"{file}: expected a record on each line ({error})") from error

    def json(self, stem: str) -> Record:
        """Of a finished unit's `STEM.json`. Errors: ValueError for what is no record."""
        file = self.path / f"{stem}.json"
        try:
            found: Record = json.loads(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file}: expected a record ({error})") from error
        return found

    def tensors(self, stem: str) -> dict[str, Tensor]:
        """Of a finished unit's `STEM.safetensors`; none where it has none, or is not finished."""
        file = self.path / f"{stem}.safetensors"
        return load_file(file) if self.finished(stem) and file.exists() else {}


def record_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """A line of JSON for each."""
    lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records)
    return "".join(f"{line}\n" for line in lines).encode()


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """As safetensors."""
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
