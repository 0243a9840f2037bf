"""Ctrl-C, SIGTERM and SIGHUP are one line and an exit code whenever they come; a long run without a
terminal speaks."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from moreaugrad.cli import interruption
from moreaugrad.cli.screen import Lines
from moreaugrad.data import writing
from moreaugrad.runs.directory import RunDirectory
from moreaugrad.training.loop import Trainer

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(autouse=True)
def _ctrl_c_is_not_ignored():
    """A shell starts background jobs with it ignored, and their children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


INTERRUPTED_AT = """
import os, signal, sys
from moreaugrad.cli import main

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})
        return None

sys.meta_path.insert(0, Interrupting())
main(["explain", "none.png", "--model", "builtin", "--out", "o"])
"""


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("moreaugrad.cli.entry", signal.SIGTERM),
        ("cyclopts", signal.SIGINT),
        ("moreaugrad.cli.commands", signal.SIGHUP),
        ("numpy", signal.SIGINT),
        ("torch", signal.SIGTERM),
        ("captum.attr", signal.SIGINT),
        ("moreaugrad.explainers.base", signal.SIGHUP),
        ("moreaugrad.runs.engine", signal.SIGINT),
        ("moreaugrad.data.images", signal.SIGTERM),
    ],
)
def test_an_interruption_during_the_imports_is_one_line(tmp_path, module, number):
    code = INTERRUPTED_AT.format(module=module, number=int(number))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == CODES[number], done.stderr
    assert done.stderr == "error: interrupted\n"


def test_an_interruption_of_the_shutdown_is_one_line(tmp_path):
    code = (
        "import atexit, os, signal\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n"
        "from moreaugrad.cli import main\n"
        "main(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert done.stderr == "error: interrupted\n"


# Long runs

MODEL = ["--model", "tiny_models:smooth", "--threads", "1"]
DATA = ["--data", "data", *MODEL]
LONG = {
    "explain": ["explain", "data", "--method", "simple-gradient", "--block", "1", *MODEL],
    "certify": [
        "certify",
        "data/dot",
        "--sigma",
        "0.5",
        "--noise-samples",
        "128",
        "--radii",
        "0.1",
        *MODEL,
    ],
    "evaluate": ["evaluate", "--methods", "simple-gradient", "--block", "1", *DATA],
    "sanity": ["sanity", "--images", "2", "--metrics", "spearman", "--seeds", "0", *DATA],
    "visualise": ["visualise", "--set", "steps=2", *MODEL],
    "train": [
        "train",
        "--epochs",
        "2",
        "--batch-size",
        "2",
        "--size",
        "16",
        "--validation",
        "0.5",
        *DATA,
    ],
    "data cells": ["data", "cells", "--images", "3", "--size", "16"],
}


def at_the(monkeypatch, act, *places, number=2):
    """`act` comes with this call of each of these functions, which are class and name."""
    for owner, name in places:
        real, seen = getattr(owner, name), []

        def called(*given, real=real, seen=seen, **named):
            seen.append(given)
            if len(seen) == number:
                act()
            return real(*given, **named)

        monkeypatch.setattr(owner, name, called)


WHEN = {"explain": 6}
"""Four images, and one of their maps, are written before."""
PLACES = [(RunDirectory, "write"), (Trainer, "step"), (writing, "write_atomically")]


@pytest.mark.parametrize(
    ("name", "number"),
    [*((name, signal.SIGTERM) for name in LONG), ("explain", signal.SIGHUP),
     ("train", signal.SIGINT)],
)  # fmt: skip
def test_a_signal_keeps_what_is_finished(photos, command, monkeypatch, name, number):
    before = {number: signal.getsignal(number) for number in CODES}
    with monkeypatch.context() as patch:
        at_the(patch, lambda: os.kill(os.getpid(), number), *PLACES, number=WHEN.get(name, 2))
        done = command(*LONG[name], "-q", "--out", "results")
    assert done.code == CODES[number], done
    assert len(done.err.splitlines()) == 1, done
    assert "interrupted" in done.err
    assert {number: signal.getsignal(number) for number in CODES} == before
    assert (photos / "results" / "index.html").exists() == (name == "explain")
    assert not list((photos / "results").rglob(".*"))
    assert command(*LONG[name], "-q", "--out", "results").code == 0


def test_an_error_that_an_interruption_causes_is_no_error(photos, command, monkeypatch):
    def fails():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("a worker was killed") from None

    at_the(monkeypatch, fails, (Trainer, "step"))
    done = command(*LONG["train"], "-q", "--out", "results")
    assert (done.code, done.err) == (143, "error: interrupted")


class Left(BaseException):
    """In place of the end of the process."""


@pytest.mark.parametrize("launcher", ["", "torchrun"])
def test_the_second_signal_ends_at_once(monkeypatch, launcher):
    """But under torchrun, which passes on the signal that its processes have received already."""
    left = []

    def leave(code):
        left.append(code)
        raise Left

    monkeypatch.setattr(interruption.os, "_exit", leave)
    if launcher:
        monkeypatch.setenv(interruption.TORCHRUN, "run")
    interruption.forget()

    def twice():
        with interruption.interruptible():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt:
                os.kill(os.getpid(), signal.SIGHUP)
                raise

    with pytest.raises(interruption.Interrupted if launcher else Left):
        twice()
    assert left == ([] if launcher else [129])
    assert interruption.exit_code() == 143
    interruption.forget()
    assert interruption.exit_code() == 130


def test_signals_that_are_ignored_stay_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption.interruptible():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_workers_leave_signals_to_the_process_that_forked_them():
    with interruption.interruptible():
        child = os.fork()
        if child == 0:
            os._exit(signal.getsignal(signal.SIGINT) is not signal.SIG_IGN)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def test_a_line_says_how_far_a_run_is():
    lines = Lines(quiet=False)
    assert lines.line(60) == "starting: 1 min so far"
    lines.pace(0, 100, "smoothgrad")
    lines.pace(25, 100, "smoothgrad")
    assert lines.line(600) == "smoothgrad: 25 % in 10 min, about 30 min left"


def test_what_an_earlier_start_has_done_took_no_time():
    lines = Lines(quiet=False)
    lines.pace(90, 100, "smoothgrad")
    assert lines.line(600) == "smoothgrad: 90 % in 10 min"
    lines.pace(95, 100, "smoothgrad")
    assert lines.line(600) == "smoothgrad: 95 % in 10 min, about 10 min left"


@pytest.mark.parametrize("quiet", [False, True])
def test_lines_come_on_standard_error_without_a_terminal_unless_quiet(quiet, capsys, monkeypatch):
    written = threading.Event()
    made = Lines.line

    def line(self, seconds):
        written.set()
        return made(self, seconds)

    monkeypatch.setattr(Lines, "line", line)
    with Lines(quiet=quiet, every=0.001) as lines:
        lines.pace(1, 4, "sweep")
        came = written.wait(0.1 if quiet else 60)
    assert came is not quiet
    for thread in threading.enumerate():  # its last line is written
        if thread.name == "Lines":
            thread.join()
    out, err = capsys.readouterr()
    assert out == ""
    assert bool(re.search(r"sweep: 25 % in .* s$|starting", err)) is not quiet
