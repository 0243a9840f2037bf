"""Ctrl-C is one line and exit code 130 whenever it comes; a long run without a terminal speaks."""

import re
import subprocess
import sys
import threading

import pytest

from moreaugrad.cli.screen import Lines

INTERRUPTED_AT = """
import os, signal, sys
from moreaugrad.cli import main

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
        return None

sys.meta_path.insert(0, Interrupting())
main(["explain", "none.png", "--model", "builtin", "--out", "o"])
"""


@pytest.mark.parametrize(
    "module",
    ["moreaugrad.cli.entry", "typer", "moreaugrad.cli.options", "numpy", "torch", "captum.attr",
     "moreaugrad.explainers.base", "moreaugrad.runs.job", "moreaugrad.data.images"],
)  # fmt: skip
def test_an_interruption_during_the_imports_is_one_line(tmp_path, module):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT.format(module=module)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert done.stderr == "error: interrupted\n"


def test_an_interruption_of_the_shutdown_is_one_line(tmp_path):
    code = (
        "import atexit, os, signal\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "from moreaugrad.cli import main\n"
        "main(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "error: interrupted\n"


def test_a_line_says_how_far_a_run_is():
    lines = Lines(quiet=False)
    assert lines.line(60) == "starting: 1 min so far"
    lines.pace(25, 100, "smoothgrad")
    assert lines.line(600) == "smoothgrad: 25 % in 10 min, about 30 min left"


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
    assert bool(re.search(r"sweep: 25 % in .* left|starting", err)) is not quiet
