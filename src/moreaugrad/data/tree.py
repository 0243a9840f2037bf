"""Files by name in a folder or a zip archive of one.

Names are handled as text, because objects of `pathlib` are slow where there are a million.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import posixpath
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO

from moreaugrad.files.foreign import (
    FILE_LIMIT,
    TEXT_LIMIT,
    lies_within,
    parsing,
    readable,
    regular_file,
    some,
)

MEMBER_LIMIT = 2**30
"""Largest member of an archive in bytes; it is unpacked in memory."""
RATIO, RATIO_FROM = 100, 2**26
"""Largest ratio of a member's size to its compressed size, for members above the second number."""
STEP = 2**20
"""Bytes that are unpacked in one step."""
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Allowed compression methods. The memory that others need for one step has no bound."""
SPLITS = ("val", "test", "train")
"""Parts of a data set, in the order in which they are looked for."""
SUFFIXES = {
    ".avif", ".bmp", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
"""Suffixes of the images in a folder; a file that is named by itself may have another."""


def open_tree(root: str | Path) -> Tree:
    """Open a folder or a zip archive. Errors: ValueError for anything else.

    >>> names = mg.data.open_tree("docs/images").images()
    """
    root = Path(root)
    if root.is_dir():
        return _Folder(root)
    if root.is_file() and zipfile.is_zipfile(root):
        return _Archive(root)
    what = "it is neither" if root.exists() else "there is no such folder"
    raise ValueError(f"{root}: expected a folder of images or a zip archive of one, but {what}")


class Tree(ABC):
    """The files below a folder or in an archive, by their paths with slashes. root: its path."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def files(self, below: str = "") -> list[str]:
        """Names of all files below a folder, in order; none if there is no such folder."""

    @abstractmethod
    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of this name."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """A file, opened for reading. Errors: ValueError for one that cannot be read."""

    def path(self, name: str) -> Path:
        """The path of a file, with its original bytes."""
        return self.root / name

    def digest(self, name: str) -> str:
        """SHA-256 of a file's content; empty if it cannot be read."""
        try:
            with self.open(name) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except (ValueError, OSError):
            return ""

    def check_inside(self, listing: str, names: Sequence[str | None], below: str = "") -> None:
        """Check that the names in a list stay below a folder of the tree.

        listing: the file that contains the names. Errors: ValueError that shows names that do not.
        Warns of links to files elsewhere.
        """
        paths = [PurePosixPath(name or "") for name in names]
        wrong = [
            name
            for name, path in zip(names, paths, strict=True)
            if not path.parts or path.is_absolute() or ".." in path.parts
        ]
        if wrong:
            raise ValueError(
                f"{self.root / listing}: expected names of files below its folder, got "
                f"{some(map(repr, wrong))}"
            )
        linked = self.links([f"{below}{name}" for name in names])
        if linked:
            warnings.warn(
                f"{self.root / listing}: names links to files outside of the folder of the data: "
                f"{some(linked)}",
                stacklevel=4,
            )

    def links(self, names: Sequence[str]) -> list[str]:
        """Those of these files that are links out of the tree."""
        return []

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return name in self.files(str(PurePosixPath(name).parent).removeprefix("."))

    def images(self, below: str = "") -> list[str]:
        """Names of the files below a folder that have the suffix of an image, in order."""
        names = self.files(below)
        return [name for name in names if posixpath.splitext(name)[1].lower() in SUFFIXES]

    def parts(self, split: str | None) -> list[str]:
        """Folders to search for images: that of the split, or those of all splits and the root."""
        return [split] if split is not None else [*filter(self.has_folder, SPLITS), ""]

    def lines(self, name: str, *, missing_ok: bool = False) -> list[str]:
        """The lines of a text file. missing_ok: no lines if there is no such file.

        Errors: ValueError as in `text`.
        """
        if missing_ok and not self.has(name):
            return []
        # Names may contain other line separators, such as U+2028.
        lines = self.text(name).split("\n")
        return [line.removesuffix("\r") for line in lines[: -1 if not lines[-1] else None]]

    def rows(
        self,
        name: str,
        count: int,
        separator: str | None = None,
        *,
        maxsplit: int = -1,
        missing_ok: bool = False,
    ) -> list[list[str]]:
        """The first `count` words of each line that is not blank.

        separator, maxsplit: as in `str.split`. Errors: ValueError for a line with fewer words.
        """
        found = []
        for number, line in enumerate(self.lines(name, missing_ok=missing_ok), 1):
            words = line.strip().split(separator, maxsplit)
            if line.strip() and len(words) < count:
                raise ValueError(
                    f"{self.root / name}, line {number}: expected {count} words, got {line[:60]!r}"
                )
            if line.strip():
                found.append(words[:count])
        return found

    def text(self, name: str) -> str:
        """The content of a text file in UTF-8, or in UTF-16 with a byte-order mark.

        Errors: ValueError for a file that is not text or too large for a list.
        """
        where = str(self.root / name)
        with self.open(name) as file, parsing(where, "a list as text in UTF-8"):
            data = file.read(TEXT_LIMIT + 1)
            if len(data) > TEXT_LIMIT:
                raise ValueError(f"{where}: expected a list of at most {TEXT_LIMIT >> 20} MiB")
            marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            return data.decode("utf-16" if marked else "utf-8-sig")


class _Folder(Tree):
    """The files below a folder. Bytes of a name that are not UTF-8 are escaped, see `readable`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._escaped: dict[str, str] = {}

    def files(self, below: str = "") -> list[str]:
        found = []
        for place, folders, names in os.walk(self.root / below, onerror=_warn_of):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = Path(place).relative_to(self.root).as_posix()
            shown = [name for name in names if not name.startswith(".")]
            found += [posixpath.normpath(f"{inside}/{name}") for name in shown]
        escaped = {readable(name): name for name in found}
        if len(escaped) < len(found):
            twice = next(name for name in found if escaped[readable(name)] != name)
            raise ValueError(
                f"{self.root}: expected names in UTF-8, but two files would be called "
                f"{readable(twice)}: rename one"
            )
        self._escaped |= {name: own for name, own in escaped.items() if name != own}
        return sorted(escaped)

    def path(self, name: str) -> Path:
        return self.root / self._escaped.get(name, name)

    def has(self, name: str) -> bool:
        return self.path(name).is_file()

    def has_folder(self, name: str) -> bool:
        return (self.root / name).is_dir()

    def links(self, names: Sequence[str]) -> list[str]:
        within = cache(lambda path: lies_within(path, self.root))
        paths = [self.path(name) for name in names]
        return [
            name
            for name, path in zip(names, paths, strict=True)
            if not within(path if path.is_symlink() else path.parent)
        ]

    def open(self, name: str) -> IO[bytes]:
        path = regular_file(self.path(name), "a file of the data set", limit=FILE_LIMIT)
        with parsing(str(path), "a file that can be read"):
            return path.open("rb")


class _Archive(Tree):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._open: tuple[int, zipfile.ZipFile] | None = None
        with parsing(str(root), "a zip archive"):
            infos = [info for info in self._zip.infolist() if not info.is_dir()]
        found = {self._inside(info.filename): info for info in infos}
        self._infos = {name: info for name, info in found.items() if "/." not in f"/{name}"}
        self._names = sorted(self._infos)

    def _inside(self, name: str) -> str:
        """A member's name without `.` parts. Errors: ValueError if it leads out of the archive."""
        if name.startswith("/") or ".." in name.split("/") or "\\" in name:
            raise ValueError(
                f"{self.root}: expected names within the archive, but it holds {name!r}: pack it "
                "again from within its folder"
            )
        return posixpath.normpath(name)

    @property
    def _zip(self) -> zipfile.ZipFile:
        """Opened once in each process, because a fork would share the position in the file."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), zipfile.ZipFile(self.root))
        return self._open[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": None}

    def files(self, below: str = "") -> list[str]:
        start = f"{below}/" if below else ""
        return [name for name in self._names if name.startswith(start)]

    def has_folder(self, name: str) -> bool:
        return any(other.startswith(f"{name}/") for other in self._names)

    def open(self, name: str) -> IO[bytes]:
        where = str(self.root / name)
        if name not in self._infos:
            raise ValueError(f"{where}: expected a file of the data set, but there is none")
        info = self._infos[name]
        if info.flag_bits & 1:
            raise ValueError(f"{where}: expected a file without a password, but it is encrypted")
        if info.compress_type not in PACKED:
            raise ValueError(
                f"{where}: expected a file packed by deflate or not at all, got method "
                f"{info.compress_type}"
            )
        packed = max(1, min(info.compress_size, self.root.stat().st_size))
        size = info.file_size
        if size > MEMBER_LIMIT or (size > RATIO_FROM and size > RATIO * packed):
            raise ValueError(
                f"{where}: expected a file of at most {MEMBER_LIMIT >> 20} MiB, and above "
                f"{RATIO_FROM >> 20} MiB of at most {RATIO} times its packed size; it would unpack "
                f"to {size >> 20} MiB, {size // packed} times as many"
            )
        with parsing(where, "a file that can be unpacked"):
            return io.BytesIO(self._unpacked(info))

    def _unpacked(self, info: zipfile.ZipInfo) -> bytes:
        """A member's content, read in steps, so that a wrong size in its header cannot fill the
        memory. Errors: ValueError for another size than in the header."""
        data = bytearray()
        with self._zip.open(info) as file:
            while part := file.read(STEP):
                data += part
        if len(data) != info.file_size:
            raise ValueError(f"it has {len(data)} bytes, not {info.file_size}, as its header says")
        return bytes(data)


def _warn_of(error: OSError) -> None:
    """Warn of a folder that cannot be read; it is left out."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        warnings.warn(
            f"{error.filename}: the folder cannot be read ({error.strerror}) and is left out",
            stacklevel=2,
        )
