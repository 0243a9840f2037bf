"""Processes that join, leave and fail at the same moment: what they have in a folder is right."""

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moreaugrad.files import atomic
from moreaugrad.files import claims as module
from moreaugrad.files.atomic import LOCK, SHARED, only_writer
from moreaugrad.files.claims import Claims
from moreaugrad.runs.directory import RunDirectory
from moreaugrad.runs.plans.option import Plan


def joined(folder: Path) -> Claims:
    found = Claims(folder)
    found.join()
    return found


def test_of_two_that_leave_at_once_the_second_removes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes to the lock just as the first has released it, and is done before the first
    does anything else."""
    first, second = joined(tmp_path), joined(tmp_path)
    assert first.take("piece")
    real, left = module.only_writer, []

    @contextmanager
    def followed(folder: Path, *, briefly: bool = False) -> Iterator[None]:
        with real(folder, briefly=briefly):
            yield
        if not left:
            left.append(second)
            second.leave()

    monkeypatch.setattr(module, "only_writer", followed)
    first.leave()
    assert left
    assert not (tmp_path / SHARED).exists()


def test_a_process_that_counted_as_dead_names_itself_again(tmp_path: Path) -> None:
    own = joined(tmp_path)
    assert own._file is not None
    text = own._file.read_text(encoding="utf-8")
    other = joined(tmp_path)
    own._file.unlink()
    own.others()
    assert own._file.read_text(encoding="utf-8") == text
    own.leave()
    other.leave()


def test_machines_of_one_host_name_number_their_own_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "machine-id", tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setattr(module, "MACHINE", str(file))
    file.write_text("1\n", encoding="utf-8")
    other = joined(folder)
    assert other.take("piece")
    assert other._file is not None
    module._own.discard(other._file.name)  # the same number, of a process on the other machine
    file.write_text("2\n", encoding="utf-8")
    own = joined(folder)
    assert not own.take("piece")
    assert [name.rpartition(" on ")[2] for name in own.others()] == [socket.gethostname()]
    file.unlink()  # of a system that has none
    assert own.others()
    other.leave()
    own.leave()


# The lock


def held(folder: Path, text: str, seconds: float) -> threading.Thread:
    """Another holds the lock for so long, and the file has this text."""
    ready = threading.Event()

    def hold() -> None:
        with only_writer(folder, briefly=True):
            (folder / LOCK).write_text(text, encoding="utf-8")
            ready.set()
            time.sleep(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    assert ready.wait(60)
    return thread


def test_a_name_in_the_lock_counts_when_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process has left its name, and the present writer has not yet replaced it."""
    monkeypatch.setattr(atomic, "STAYS", 60.0)
    thread = held(tmp_path, "process 7 on elsewhere\n", 0.3)
    with only_writer(tmp_path, briefly=True):
        pass
    thread.join()
    monkeypatch.setattr(atomic, "STAYS", 0.1)
    thread = held(tmp_path, "process 7 on elsewhere\n", 1.5)
    with pytest.raises(ValueError, match="process 7 on elsewhere"):  # noqa: SIM117
        with only_writer(tmp_path, briefly=True):
            pass
    thread.join()


# Failures


def shared(folder: Path) -> RunDirectory:
    return RunDirectory(folder, "experiment", Plan)


def test_a_folder_in_which_no_claim_can_be_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, or another user's killed process has left a folder of claims."""

    def full(file: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(ValueError, match=r"cannot be written to.*No space left"):  # noqa: SIM117
        with shared(tmp_path).opened("a = 1\n", overwrite=False, shared=True):
            pass


def test_a_process_that_joins_while_another_gives_up_keeps_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits until the other has removed what it had made, and then makes it again."""
    folder, texts = shared(tmp_path), list[str]()
    looked, done = threading.Event(), threading.Event()

    def join() -> None:
        with shared(tmp_path).opened("a = 1\n", overwrite=False, shared=True):
            looked.set()
            done.wait(60)
            texts.append((tmp_path / "config.toml").read_text(encoding="utf-8"))

    thread = threading.Thread(target=join)
    real = Claims.others

    def others(self: Claims) -> list[str]:
        found = real(self)
        if self is folder._claims and not thread.ident:  # between the look and the removal
            thread.start()
            looked.wait(1)
        return found

    with folder.opened("a = 1\n", overwrite=False, shared=True):
        monkeypatch.setattr(Claims, "others", others)
        folder.discard()
    done.set()
    thread.join()
    assert texts == ["# Written by moreaugrad experiment.\na = 1\n"]
