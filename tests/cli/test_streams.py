"""Standard output that lacks characters, or whose reader has gone, loses no work and no summary."""

import io
import json
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreaugrad.cli.entry import lasting, run

FULL = Path("/dev/full")
NAMES = ["gr\u00f6\u00dfe", "\u03c1\u2192\u221e", "line\u2028separator"]


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def words(images, *more):
    return ["explain", str(images), "--method", "simple-gradient", "--model", "tiny_models:smooth",
            "--threads", "1", "--out", "results", *more]  # fmt: skip


@contextmanager
def standard(**files):
    """While open, the standard streams write to these file descriptors; None is a closed one."""
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    made = []
    for name, file in files.items():
        setattr(sys, name, file and file())
        made.append(getattr(sys, name))
    try:
        lasting()
        yield
    finally:
        made += [sys.stdout, sys.stderr]
        for name, kept in before.items():
            setattr(sys, name, kept)
        for one in made:
            if one is not None:
                with suppress(OSError):
                    one.close()


def to(file, encoding="utf-8", *, unbuffered=False):
    """A stream as Python makes its own."""

    def make():
        raw = io.FileIO(file, "w")
        return io.TextIOWrapper(
            raw if unbuffered else io.BufferedWriter(raw), encoding, write_through=unbuffered
        )

    return make


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_characters_that_cannot_be_written_are_escaped(images, tmp_path, encoding, unbuffered):
    told = []
    for more in ([], ["--json"]):
        file = tmp_path / f"out{len(told)}"
        opened = os.open(file, os.O_WRONLY | os.O_CREAT)
        with standard(stdout=to(opened, encoding, unbuffered=unbuffered), stderr=io.StringIO):
            assert run(words(images, *more)) == 0
            sys.stdout.flush()
        told.append(file.read_bytes().decode(encoding))
    table, record = told[0], json.loads(told[1])
    assert "3 maps of 3 inputs" in table
    assert ("\\u2192" in table) == (encoding != "utf-8")
    assert {one["input"] for one in record["inputs"]} == {f"{name}.png" for name in NAMES}


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_reader_that_has_gone_changes_nothing(images, tmp_path, code, unbuffered):
    if code:
        (images / "damaged.png").write_bytes(b"no image")
    read, write = os.pipe()
    os.close(read)
    streams = {name: to(os.dup(write), unbuffered=unbuffered) for name in ("stdout", "stderr")}
    os.close(write)
    with standard(**streams):
        assert run(words(images)) == code
        assert run(["--help"]) == 0
        assert run(["methods"]) == 0
        sys.stdout.flush()
    assert (tmp_path / "results" / "index.html").exists()


def test_closed_streams_change_nothing(images, tmp_path):
    with standard(stdout=None, stderr=None):
        assert run(words(images)) == 0
    assert (tmp_path / "results" / "index.html").exists()


@pytest.mark.skipif(not FULL.exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_an_error():
    with standard(stdout=to(os.open(FULL, os.O_WRONLY)), stderr=io.StringIO):
        with pytest.raises(OSError, match="No space left"):
            print("x", flush=True)  # noqa: T201
        sys.stdout.flush()  # nothing is left that could fail again
