"""What a unit of work consists of: a list of its files with their SHA-256, as `sha256sum` has it.

The list is written before the files. So a unit is finished where all of its files are there as
listed, whatever stopped the process that wrote it or has happened to a file since; and a name that
is listed is one that the program wrote.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from moreaugrad.files.atomic import file_digest

SUFFIX = ".sha256"
LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def checksums(root: Path, files: Mapping[str, bytes], also: Iterable[str] = ()) -> bytes:
    """The list, a line for each file. files: contents by names, with slashes. also: names of files
    that are below the folder already."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    digests |= {name: file_digest(root / name) for name in also}
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()


def listed(file: Path) -> dict[str, str]:
    """Digests by name; none where there is no list, or one that is damaged."""
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


def missing(root: Path, names: Mapping[str, str]) -> list[str]:
    """Those that are not there below a folder."""
    return [name for name in names if not (root / name).is_file()]


def damaged(root: Path, names: Mapping[str, str]) -> list[str]:
    """Those that are there with another content than is listed."""
    return [
        name
        for name, digest in names.items()
        if (root / name).is_file() and file_digest(root / name) != digest
    ]
