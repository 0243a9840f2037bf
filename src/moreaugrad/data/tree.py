"""Files by name, in a folder or in a zip archive of one."""

from __future__ import annotations

import io
import os
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from typing import IO


def open_tree(root: Path) -> Tree:
    """Errors: ValueError for what is neither a folder nor a zip archive."""
    if root.is_dir():
        return Folder(root)
    if root.is_file() and zipfile.is_zipfile(root):
        return Archive(root)
    what = "it is neither" if root.exists() else "there is no such folder"
    raise ValueError(f"{root}: expected a folder of pictures or a zip of one, but {what}")


class Tree(ABC):
    """Files by names with slashes, below a folder or in an archive."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def files(self, below: str = "") -> list[str]:
        """Names of all files below a folder, in order; none for one that is not there."""

    @abstractmethod
    def has_folder(self, name: str) -> bool: ...

    @abstractmethod
    def open(self, name: str) -> IO[bytes]: ...

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file; -1 where there is none."""

    def has(self, name: str) -> bool:
        return name in self.files(str(PurePosixPath(name).parent).removeprefix("."))

    def lines(self, name: str) -> list[str]:
        with self.open(name) as file:
            return file.read().decode("utf-8").splitlines()


class Folder(Tree):
    def files(self, below: str = "") -> list[str]:
        found = []
        for place, folders, names in os.walk(self.root / below):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = Path(place).relative_to(self.root)
            found += [(inside / name).as_posix() for name in names if not name.startswith(".")]
        return sorted(found)

    def has(self, name: str) -> bool:
        return (self.root / name).is_file()

    def has_folder(self, name: str) -> bool:
        return (self.root / name).is_dir()

    def open(self, name: str) -> IO[bytes]:
        try:
            return (self.root / name).open("rb")
        except OSError as error:
            raise ValueError(f"{self.root / name}: cannot be read ({error.strerror})") from error

    def size(self, name: str) -> int:
        try:
            return (self.root / name).stat().st_size
        except OSError:
            return -1


class Archive(Tree):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._open: tuple[int, zipfile.ZipFile] | None = None
        names = [info.filename for info in self._zip.infolist() if not info.is_dir()]
        self._names = sorted(n for n in names if not any(p[0] == "." for p in n.split("/")))

    @property
    def _zip(self) -> zipfile.ZipFile:
        """Opened once in every process: a forked one would share the place in the file."""
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
        try:
            return io.BytesIO(self._zip.read(name))
        except (zipfile.BadZipFile, KeyError, OSError, EOFError) as error:
            raise ValueError(f"{self.root}, {name}: cannot be read ({error})") from error

    def size(self, name: str) -> int:
        try:
            return self._zip.getinfo(name).file_size
        except KeyError:
            return -1
