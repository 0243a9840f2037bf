"""Writing that survives a kill: whole files, one writer to a folder, digests of contents."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

PARTIAL = ".moreaugrad-{}.partial"
LOCK = ".moreaugrad.lock"


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`: afterwards the file holds all of it, or what it held before, even
    when the power fails.

    A killed process may leave a temporary file; `remove_partial` finds it by its name.
    Errors: `OSError` of the file system, the path in its message.
    """
    target = Path(path)
    scratch = target.with_name(PARTIAL.format(secrets.token_hex(4)))
    try:
        # A new file has the rights that the process's umask leaves.
        with scratch.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
        _sync_folder(target.parent)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def is_temporary(path: Path) -> bool:
    """Whether a file is one of this module's own, which are gone when a process ends by itself."""
    return path.name == LOCK or path.match(PARTIAL.format("?" * 8))


def remove_partial(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder and below it.

    Only for the one that writes there, see `only_writer`: the files may be another process's.
    """
    for left in folder.rglob(PARTIAL.format("?" * 8)):
        left.unlink(missing_ok=True)


def remove_files(root: Path, names: Iterator[str] | list[str]) -> None:
    """Remove these files below a folder where they are there, and folders that become empty."""
    folders = set()
    for name in names:
        file = root / name
        if file.is_file() or file.is_symlink():
            file.unlink()
        folders |= {parent for parent in file.parents if root in parent.parents}
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        remove_empty(folder)


def remove_empty(folder: Path) -> None:
    """Remove a folder if it is there and holds nothing."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """While open, no other process writes to the folder, which has to be there.

    The operating system frees the lock of a process that has ended, however it ended; the file of
    such a lock is taken over, and it is removed in the end.
    Errors: ValueError that names the process and the machine of the present writer.
    """
    file = folder / LOCK
    lock = FileLock(file, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{folder}: {_owner(file)} is writing to it; wait until it has ended, or name another "
            "folder"
        ) from None
    try:
        # A soft lock, for file systems without locks, writes its owner itself.
        if not isinstance(lock, SoftFileLock):
            with suppress(OSError):
                file.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        # Removed while it is held: whoever has opened it meanwhile finds that it is gone.
        with suppress(OSError):
            file.unlink()
        lock.release()


def _owner(file: Path) -> str:
    try:
        words = file.read_text(encoding="utf-8").split("\n")[0]
    except (OSError, UnicodeDecodeError):
        words = ""
    return words if words.startswith("process ") else "another process"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits. Errors: OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """The renaming itself reaches the disk; some file systems cannot be asked for that."""
    if os.name == "nt":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
