"""Processes that share the work in a folder without any connection: each takes what no other has.

A process that takes part has a file in `.moreaugrad-shared`, whose time of change it renews. It
takes a piece of work by creating a file that must not exist yet, which names that process. A claim
lasts as long as its process: it ends when the process leaves, when the machine on which both are
knows no such process any more, or when the file of the process has not been renewed for `SILENT`
seconds. If that errs, as for a process that was suspended, a piece is computed twice, with the
same result.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from moreaugrad.files.atomic import LOCK, SHARED, only_writer, remove_partial, write_atomically

BEAT, SILENT = 30.0, 600.0
"""Seconds between renewals, and after which a process on another machine counts as dead."""
PAUSE = 0.5
"""Seconds between two looks at what others are doing."""
PROCESS = re.compile(r"process (\d+) on (.+)", re.DOTALL)
MACHINE, NUMBERS = "/etc/machine-id", "/proc/self/ns/pid"
"""Of Linux: an installation, as machines may have the same host name; and what numbers this process
and others, of which containers of one host name each have their own."""
MEMBERS = "*.process"

_own: set[str] = set()
"""Names of the files of this process, whose number an earlier one may have had."""


class Claims:
    """What processes have taken of the work in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._place = folder, folder / SHARED
        self._file: Path | None = None
        self._left = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="Claims", daemon=True)

    def others(self) -> list[str]:
        """Which other processes take part, in words. Call it as one of them, or as the writer of
        the folder."""
        files = self._place.glob(MEMBERS)
        texts = [_text(file) for file in files if file != self._file and not self._dead(file)]
        return [text.partition("\n")[0] for text in texts]

    def clear(self) -> None:
        """Removes what processes have left that were killed. Call it as the writer of the folder,
        when there are no others."""
        if any(file != self._file for file in self._place.glob(MEMBERS)):
            remove_partial(self._folder)
        shutil.rmtree(self._place, ignore_errors=True)

    def join(self) -> None:
        """Takes part from now on. Errors: OSError of the file system."""
        self._file = self._place / f"{secrets.token_hex(8)}.process"
        _own.add(self._file.name)
        self._renew()
        self._beating.start()

    def leave(self) -> None:
        """Gives up what was taken; the last one to leave removes all traces."""
        self._left.set()
        self._beating.join()
        assert self._file is not None
        try:
            with only_writer(self._folder, briefly=True):
                alone = not self.others()
                # Still as the writer: of two that leave, the second must not see the first.
                self._file.unlink(missing_ok=True)
                if alone:
                    self.clear()
        except (ValueError, OSError):
            pass  # the next start does it
        finally:
            _own.discard(self._file.name)
            with suppress(OSError):
                self._file.unlink(missing_ok=True)

    def take(self, piece: str) -> bool:
        """Whether this process has it now, and no other. Errors: OSError of the file system."""
        self._renew()
        assert self._file is not None
        name = hashlib.sha256(piece.encode()).hexdigest()[:32]
        for number in count():  # a claim that has ended stays, and the next one follows it
            claim = self._place / f"{name}.{number}"
            try:
                with claim.open("x", encoding="utf-8") as file:
                    file.write(self._file.name)
                return True
            except FileExistsError:
                if self._lasts(claim):
                    return False
        raise AssertionError

    def turns(
        self, pieces: Sequence[str], finished: Callable[[str], bool],
        elsewhere: Callable[[str], None] = lambda piece: None,
    ) -> Iterator[str]:  # fmt: skip
        """The pieces that are not finished, one after another as this process takes them; ends when
        all are finished. elsewhere: is called with those that others have finished meanwhile."""
        left = [piece for piece in pieces if not finished(piece)]
        while left:
            others = []
            for piece in left:
                mine = not finished(piece) and self.take(piece)
                if finished(piece):  # perhaps just before it was taken
                    elsewhere(piece)
                elif mine:
                    yield piece
                else:
                    others.append(piece)
            if len(others) == len(left):
                time.sleep(PAUSE)
            left = others

    def once(self, what: str, act: Callable[[], None]) -> None:
        """One process does it, while the others wait."""
        done = self._place / what
        for _ in self.turns([what], lambda _: done.exists()):
            act()
            done.touch()

    def _beat(self) -> None:
        while not self._left.wait(BEAT):
            with suppress(OSError):
                self._renew()

    def _renew(self) -> None:
        assert self._file is not None
        try:
            os.utime(self._file)
        except FileNotFoundError:  # also where this process was taken for dead
            self._place.mkdir(exist_ok=True)
            text = f"process {os.getpid()} on {_machine()}"
            write_atomically(self._file, text.encode())

    def _lasts(self, claim: Path) -> bool:
        try:
            owner = claim.read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        # One that was killed before it could name itself.
        return not self._dead(self._place / owner) if owner else not self._silent(claim)

    def _dead(self, file: Path) -> bool:
        """Whether the process of a file has left or is dead."""
        found = PROCESS.fullmatch(_text(file))
        try:
            gone = found and found[2] == _machine() and not _runs(int(found[1]), file)
            return bool(gone) or self._silent(file)
        except FileNotFoundError:
            return True

    def _silent(self, file: Path) -> bool:
        """Both times are of the file system's clock: those of machines may differ."""
        if self._file is None:
            clock = self._folder / LOCK
            clock.touch()
        else:
            clock = self._file
            self._renew()
        return clock.stat().st_mtime - file.stat().st_mtime > SILENT


def _machine() -> str:
    """Where the number of a process is its own: the host name, and below it what distinguishes
    machines and containers of that name."""
    found = [socket.gethostname()]
    with suppress(OSError):
        found.append(Path(MACHINE).read_text(encoding="utf-8").strip())
    with suppress(OSError):
        found.append(str(Path(NUMBERS).readlink()))
    return "\n".join(found)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _runs(number: int, file: Path) -> bool:
    if number == os.getpid():
        return file.name in _own
    if os.name == "nt":  # where this signal would end it
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
