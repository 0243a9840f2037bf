"""Writing that survives a kill: whole files, one writer for each folder, digests of contents."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

PARTIAL = ".moreaugrad-{}.partial"
LOCK = ".moreaugrad.lock"
SHARED = ".moreaugrad-shared"
"""Folder of the processes that share the work, see `claims`."""
ANOTHER, PATIENCE = "another process", 60.0
"""Who writes, where that is not known, and how many seconds it is waited for."""
STAYS = 1.0
"""Seconds after which a writer that is named counts as one that stays. Until then it may be a name
that a killed process has left, or a process that is about to be refused."""


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace a file as a whole: it holds either all of `data` or its old content, even after a
    power failure.

    A killed process may leave a temporary file, which `remove_partial` removes.
    Errors: OSError of the file system.
    """
    target = Path(path)
    scratch = target.with_name(PARTIAL.format(secrets.token_hex(4)))
    try:
        # An ordinary new file, so that its permissions follow the umask.
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
    """Whether a file is a lock, a claim or a partial file, left by a killed process."""
    return path.name in (LOCK, SHARED) or path.match(PARTIAL.format("?" * 8))


def remove_partial(folder: Path) -> None:
    """Remove the partial files that killed processes left in and below a folder.

    Call it only as the writer of the folder, see `only_writer`: another writer may be using them.
    """
    for left in folder.rglob(PARTIAL.format("?" * 8)):
        left.unlink(missing_ok=True)


def remove_files(root: Path, names: Iterator[str] | list[str]) -> None:
    """Remove files below a folder, if they exist, and the folders that become empty."""
    folders = set()
    for name in names:
        file = root / name
        if file.is_file() or file.is_symlink():
            file.unlink()
        folders |= {parent for parent in file.parents if root in parent.parents}
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        remove_empty(folder)


def remove_empty(folder: Path) -> None:
    """Remove a folder if it exists and is empty."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def only_writer(folder: Path, *, briefly: bool = False) -> Iterator[None]:
    """Hold the lock of an existing folder, so that no other process writes to it.

    The operating system releases the lock when a process ends, however it ends. The lock file is
    removed at the end. briefly: for moments, so that others who hold it so wait for each other.
    Errors: ValueError that names the process and machine of the present writer.
    """
    file = folder / LOCK
    lock = FileLock(file, timeout=0, thread_local=False)
    owner, since = "", 0.0
    while not lock.is_locked:
        try:
            lock.acquire()
        except Timeout:
            if (found := _owner(file)) != owner:
                owner, since = found, time.monotonic()
            patience = PATIENCE if owner == ANOTHER else STAYS
            if not briefly or time.monotonic() - since > patience:
                raise in_use(folder, owner) from None
            time.sleep(0.02)
    try:
        # filelock's soft lock, used on file systems without locks, writes its owner itself.
        if not isinstance(lock, SoftFileLock):
            with suppress(OSError):
                owner = f"process {os.getpid()} on {socket.gethostname()}"
                file.write_text("" if briefly else f"{owner}\n")
        yield
    finally:
        # Removed while the lock is held: a process that has opened it meanwhile sees it is gone.
        with suppress(OSError):
            file.unlink()
        lock.release()


def in_use(folder: Path, owner: str) -> ValueError:
    """The error of a folder that another process writes to."""
    return ValueError(
        f"{folder}: {owner} is writing to it; wait until it has ended, or name another folder"
    )


def _owner(file: Path) -> str:
    try:
        words = file.read_text(encoding="utf-8").split("\n")[0]
    except (OSError, UnicodeDecodeError):
        words = ""
    return words if words.startswith("process ") else ANOTHER


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal. Errors: OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Force the renaming to the disk, on file systems that support it."""
    if os.name == "nt":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
