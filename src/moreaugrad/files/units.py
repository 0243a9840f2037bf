"""Units of work in a folder: each is written as a whole, and finished while its files are intact.

A unit has a list of its files with their SHA-256, as `sha256sum` writes it. The list is written
before the files, so a unit is finished if and only if all of its files are there as listed,
however a process was stopped and whatever happened to a file since. A name in a list is the name
of a file that this program wrote.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors.torch import save
from torch import Tensor

from moreaugrad.files.atomic import file_digest, remove_files, write_atomically
from moreaugrad.files.maps import read_maps

Record = dict[str, Any]

SUFFIX = ".sha256"
LINE = re.compile(r"([0-9a-f]{64})  (.+)")


class Units:
    """The units in a folder.

    A unit is named by a path without suffix, its stem; it consists of the files that `STEM.sha256`
    lists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole: set[str] = set()
        self._reported: set[str] = set()

    def finished(self, stem: str) -> bool:
        """Whether all files of a unit are there as they were written.

        Warns of a damaged file; its unit will be computed again.
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
            if not names or wrong or not all((self.path / name).is_file() for name in names):
                return False
            self._whole.add(stem)
        return True

    def write(self, stem: str, files: Mapping[str, bytes], *, also: Sequence[str] = ()) -> None:
        """Write a unit. files: contents by names. also: names of its files that are there already.

        Files of an earlier unit of this name are removed. Errors: OSError of the file system.
        """
        listing, kept = self.path / f"{stem}{SUFFIX}", {*files, *also}
        remove_files(self.path, [name for name in listed(listing) if name not in kept])
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        digests |= {name: file_digest(self.path / name) for name in also}
        lines = (f"{digest}  {name}\n" for name, digest in digests.items())
        self.put(f"{stem}{SUFFIX}", "".join(lines).encode())
        for name, data in files.items():
            self.put(name, data)
        self._whole.add(stem)

    def put(self, name: str, data: bytes) -> None:
        """Write a file that belongs to no unit. Errors: OSError of the file system."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)

    def remove(self, patterns: Iterable[str]) -> None:
        """Remove the units whose stems match one of these patterns."""
        for pattern in patterns:
            for file in sorted(self.path.glob(f"{pattern}{SUFFIX}")):
                name = file.relative_to(self.path).as_posix()
                remove_files(self.path, [*listed(file), name])
        self._whole.clear()

    def records(self, stem: str) -> list[Record]:
        """The records of a finished unit's `STEM.jsonl`. Errors: ValueError for other content."""
        file = self.path / f"{stem}.jsonl"
        try:
            # Names may contain other line separators, such as U+2028.
            return [json.loads(line) for line in file.read_bytes().decode().split("\n")[:-1]]
        except ValueError as error:
            raise ValueError(f"{file}: expected a record on each line ({error})") from error

    def json(self, stem: str) -> Record:
        """The record in a finished unit's `STEM.json`. Errors: ValueError for other content."""
        file = self.path / f"{stem}.json"
        try:
            found: Record = json.loads(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file}: expected a record ({error})") from error
        return found

    def tensors(self, stem: str) -> dict[str, Tensor]:
        """The tensors of a unit's `STEM.safetensors`; none if there is no such file, or the unit is
        not finished."""
        file = self.path / f"{stem}.safetensors"
        return read_maps(file) if self.finished(stem) and file.exists() else {}


def listed(file: Path) -> dict[str, str]:
    """Digests by name from the list of a unit; empty for a list that is missing or damaged."""
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return {}
    found = [LINE.fullmatch(line) for line in text.split("\n")[:-1]]
    if not text.endswith("\n") or not all(found):
        return {}
    names = {match[2]: match[1] for match in found if match}
    inside = (not PurePosixPath(n).is_absolute() and ".." not in n.split("/") for n in names)
    return names if all(inside) else {}


def damaged(root: Path, names: Mapping[str, str]) -> list[str]:
    """Names of files below a folder whose content is not the listed one."""
    return [
        name
        for name, digest in names.items()
        if (root / name).is_file() and file_digest(root / name) != digest
    ]


def record_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Records as JSON, one on each line."""
    lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records)
    return "".join(f"{line}\n" for line in lines).encode()


def flat(value: Mapping[str, Any], where: str = "") -> Record:
    """A record without nesting: the names of nested values are joined by dots, texts by "; "."""
    found: Record = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            found |= flat(item, f"{where}{name}.")
        elif not isinstance(item, (list, tuple)):
            found[f"{where}{name}"] = item
        elif all(isinstance(each, str) for each in item):
            found[f"{where}{name}"] = "; ".join(item)
    return found


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors by name as a safetensors file."""
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
