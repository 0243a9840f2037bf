"""Processes without any connection share the work of a folder: no unit twice, whoever is killed,
and the bytes of one process."""

import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreaugrad.cli.entry import run
from moreaugrad.files import claims as module
from moreaugrad.files.atomic import LOCK, SHARED, only_writer
from moreaugrad.files.claims import SILENT, Claims
from processes import ended, run_killed, start, tree

IMAGES = 3
UNITS = [f"samples/{n:05d}" for n in range(IMAGES)] + [
    f"methods/{method}/{n:05d}"
    for n in range(IMAGES)
    for method in ("simple-gradient", "smoothgrad")
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "images"
    folder.mkdir()
    generator = np.random.default_rng(3)
    for number in range(IMAGES):
        pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def words(images: Path, out: Path, *more: str) -> list[str]:
    return [
        "evaluate", "--data", str(images), "--model", "tiny_models:smooth", "--threads", "1",
        "--methods", "simple-gradient,smoothgrad", "--noise-samples", "4", "--block", "1",
        "--metrics", "gini", "-q", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def plain(images: Path) -> dict[str, bytes]:
    """The files of a run by one process."""
    assert run(words(images, images.parent / "out")) == 0
    found = tree(images.parent / "out")
    (images.parent / "out").rename(images.parent / "plain")
    return found


@pytest.fixture
def out(images: Path, plain: dict[str, bytes]) -> Path:
    """The same name as that of the run by one process: configurations hold paths."""
    found = images.parent / "out"
    if found.exists():
        found.rename(images.parent / f"old-{time.monotonic_ns()}")
    return found


def written(*errors: Path) -> Counter[str]:
    """How often each unit was written by commands."""
    logs = [Path(f"{file}.units") for file in errors]
    lines = "".join(log.read_text(encoding="utf-8") for log in logs if log.exists()).split("\n")
    return Counter("/".join(Path(line).with_suffix("").parts[-3:]) for line in lines[:-1])


def done(counts: Counter[str], unit: str) -> int:
    return sum(count for name, count in counts.items() if name.endswith(unit))


def test_two_commands_do_no_unit_twice(
    images: Path, plain: dict[str, bytes], out: Path, tmp_path: Path
) -> None:
    errors = [tmp_path / "first", tmp_path / "second"]
    both = [start(words(images, out), file) for file in errors]
    for process, file in zip(both, errors, strict=True):
        ended(process, file, 0)
    assert tree(out) == plain
    assert {unit: done(written(*errors), unit) for unit in UNITS} == dict.fromkeys(UNITS, 1)


def test_a_command_leaves_a_unit_to_the_process_that_has_taken_it(
    images: Path, plain: dict[str, bytes], out: Path, tmp_path: Path
) -> None:
    errors, taken = tmp_path / "errors", "methods/smoothgrad/00001"
    run_killed(words(images, out), tmp_path / "killed", "samples/00001.sha256")
    other = Claims(out)
    with only_writer(out):
        other.clear()
        other.join()
    assert other.take(taken)
    command = start(words(images, out), errors)
    others = {unit for unit in UNITS if unit != taken}
    until = time.monotonic() + 120
    while not all((out / f"{unit}.sha256").exists() for unit in others):
        assert time.monotonic() < until
        time.sleep(0.1)
    time.sleep(1)
    assert command.is_alive()
    assert not (out / f"{taken}.sha256").exists()
    other.leave()
    ended(command, errors, 0)
    assert tree(out) == plain


def test_killed_commands_leave_nothing_undone(
    images: Path, plain: dict[str, bytes], out: Path, tmp_path: Path
) -> None:
    """The second takes over what the first was killed at, and is killed at it too."""
    errors = [tmp_path / name for name in ("first", "second", "third", "fourth")]
    at = "methods/smoothgrad/00001.sha256"
    for process in [start(words(images, out), file, killed_at=at) for file in errors[:2]]:
        process.join(240)
        assert process.exitcode == -signal.SIGKILL
    assert [name for name in tree(out) if name.startswith(SHARED)]
    both = [start(words(images, out), file) for file in errors[2:]]
    for process, file in zip(both, errors[2:], strict=True):
        ended(process, file, 0)
    assert tree(out) == plain
    assert {unit: done(written(*errors), unit) for unit in UNITS} == dict.fromkeys(UNITS, 1)


def test_shards_make_the_same_bytes_one_after_another(
    images: Path, plain: dict[str, bytes], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words(images, out, "--shard", "1/3")) == 0
    assert "shard" in capsys.readouterr().err
    finished = {unit for unit in UNITS if (out / f"{unit}.sha256").exists()}
    assert finished == {*UNITS[:IMAGES], *UNITS[IMAGES + 1 :: 3]}  # and what all of them need
    assert not (out / "records.csv").exists()
    assert not (out / SHARED).exists()
    assert run(words(images, out, "--shard", "0/3")) == 0
    assert not (out / "records.csv").exists()
    assert run(words(images, out)) == 0
    assert tree(out) == plain


def test_the_last_shard_writes_the_summary(
    images: Path, plain: dict[str, bytes], out: Path, tmp_path: Path
) -> None:
    errors = [tmp_path / str(number) for number in range(3)]
    every = [
        start(words(images, out, "--shard", f"{number}/3"), file)
        for number, file in enumerate(errors)
    ]
    for process, file in zip(every, errors, strict=True):
        ended(process, file, 0)
    assert tree(out) == plain
    assert {unit: done(written(*errors), unit) for unit in UNITS} == dict.fromkeys(UNITS, 1)


# Refused


@pytest.mark.parametrize("shard", ["0/0", "2/2", "3/2", "a/b", "1", "-1/2", "1/2/3", "1.0/2"])
def test_another_shard_is_refused(
    images: Path, out: Path, capsys: pytest.CaptureFixture[str], shard: str
) -> None:
    assert run(words(images, out, "--shard", shard)) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "--shard: expected I/N" in message
    assert shard in message
    assert not out.exists()


def test_another_configuration_is_refused_while_a_folder_is_shared(
    images: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(words(images, out))
    other = Claims(out)
    with only_writer(out):
        other.join()
    before = tree(out)
    assert run(words(images, out, "--seed", "1", "--overwrite")) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"process {os.getpid()} on {socket.gethostname()}" in message
    assert "another configuration" in message
    assert "seed is 0 there, 1 here" in message
    assert {n: b for n, b in tree(out).items() if not n.startswith(SHARED)} == {
        n: b for n, b in before.items() if not n.startswith(SHARED)
    }
    other.leave()
    assert run(words(images, out, "--seed", "1", "--overwrite")) == 0


def test_a_command_that_cannot_share_is_refused_while_others_do(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limited = ["explain", str(images / "0.png"), "--model", "tiny_models:smooth", "--method",
               "simple-gradient", "--time", "1m", "-q", "--out", str(tmp_path)]  # fmt: skip
    other = Claims(tmp_path)
    other.join()
    assert run(limited) == 2
    assert "is writing to it" in " ".join(capsys.readouterr().err.split())
    other.leave()
    with only_writer(tmp_path):  # and a command that shares, while one that cannot is at work
        assert run([word for word in limited if word not in ("--time", "1m")]) == 2
    assert f"process {os.getpid()}" in " ".join(capsys.readouterr().err.split())


# Claims


def joined(folder: Path) -> Claims:
    found = Claims(folder)
    found.join()
    return found


def test_each_piece_has_one_process(tmp_path: Path) -> None:
    pieces, by = [f"piece {number}" for number in range(60)], list[tuple[str, int]]()
    ready = threading.Barrier(4)

    def work(number: int) -> None:
        own = joined(tmp_path)
        ready.wait()
        for piece in own.turns(pieces, lambda piece: (tmp_path / piece).exists()):
            by.append((piece, number))
            time.sleep(0.002)
            (tmp_path / piece).touch()
        own.leave()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(piece for piece, _ in by) == sorted(pieces)
    assert len({number for _, number in by}) > 1
    assert not (tmp_path / SHARED).exists()


def test_one_process_does_what_is_done_once(tmp_path: Path) -> None:
    first, second, count = joined(tmp_path), joined(tmp_path), []
    for own in (first, second, first):
        own.once("page", lambda: count.append(1))
    assert len(count) == 1
    first.leave()
    second.leave()


def left_by(folder: Path, process: str, age: float, piece: str) -> Claims:
    """Claims of a folder in which another process had taken a piece."""
    own, other = joined(folder), joined(folder)
    assert other.take(piece)
    assert other._file is not None
    module._own.discard(other._file.name)  # as if it were not of this process
    other._left.set()
    other._file.write_text(process, encoding="utf-8")
    then = time.time() - age
    os.utime(other._file, (then, then))
    return own


DEAD = 2**22 + 1
"""No process has this number on Linux."""
HERE = module._machine()


@pytest.mark.parametrize(
    ("process", "age", "taken_over"),
    [
        ("process {dead} on {here}", 0, True),
        ("process {parent} on {here}", 0, False),
        ("process {parent} on {here}", SILENT + 60, True),  # the number was used again
        ("process {own} on {here}", 0, True),  # that of this process, which has not it
        ("process {dead} on elsewhere", 0, False),
        ("process {dead} on elsewhere", SILENT - 60, False),
        ("process {dead} on elsewhere", SILENT + 60, True),
        ("", SILENT - 60, False),
    ],
)
def test_a_claim_ends_with_its_process(
    tmp_path: Path, process: str, age: float, taken_over: bool
) -> None:
    # The numbers are no part of the test's name, which all workers have to agree on.
    numbers = {"dead": DEAD, "parent": os.getppid(), "own": os.getpid()}
    own = left_by(tmp_path, process.format(here=HERE, **numbers), age, "piece")
    assert own.take("piece") == taken_over
    assert not own.take("piece")
    assert bool(own.others()) != taken_over


@pytest.mark.skipif(os.name == "nt", reason="links need a permission there")
def test_containers_of_one_host_name_number_their_own_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, folder = tmp_path / "numbers", tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setattr(module, "NUMBERS", str(link))
    link.symlink_to("pid:[1]")
    other = joined(folder)
    assert other.take("piece")
    assert other._file is not None
    module._own.discard(other._file.name)  # the same number, of a process in another container
    link.unlink()
    link.symlink_to("pid:[2]")
    own = joined(folder)
    assert not own.take("piece")
    assert own.others() == [f"process {os.getpid()} on {socket.gethostname()}"]
    other.leave()
    assert own.take("piece")
    own.leave()


def test_a_claim_that_does_not_say_whose_it_is_ends_in_time(tmp_path: Path) -> None:
    own = joined(tmp_path)
    assert own.take("piece")
    claim = next((tmp_path / SHARED).glob("*.0"))
    claim.write_text("")
    assert not own.take("piece")
    os.utime(claim, (0, 0))
    assert own.take("piece")


def test_a_process_that_counts_as_dead_goes_on(tmp_path: Path) -> None:
    """It was suspended, and another one has begun anew meanwhile."""
    suspended = joined(tmp_path)
    assert suspended.take("piece")
    Claims(tmp_path).clear()
    other = joined(tmp_path)
    assert other.take("piece")
    assert not suspended.take("piece")
    assert suspended.take("another piece")
    suspended.leave()
    other.leave()
    assert not [file for file in tmp_path.iterdir() if file.name != LOCK]
