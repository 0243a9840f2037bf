"""python -m benchmarks.kills [COMMAND ...]: kills commands at every step that touches their folder.

Each command is killed before every opening, renaming, removal and change of rights in its folder,
and with every file half-written and empty. Then the same command runs to its end, and the folder is
compared with that of a run that nothing happened to. With `--sample N` only N kills a command.

Commands run in forked processes, so that nothing is imported twice; needs Linux or macOS.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

KILLED = 137
STEPS = {"open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "os.rmdir", "os.truncate"}
"""Python's audit events that are counted."""
TIMED = ("index.html", "events")
"""What holds clock times; TensorBoard's files are of each start."""

CELLS = ["data", "cells", "--count", "4", "--size", "64", "-q"]
COMPUTE = ["--model", "builtin", "--device", "cpu", "--threads", "1", "-q"]
TRAIN = ["--data", "cells", "--model", "builtin", "--epochs", "2", "--batch", "10", "--threads",
         "1", "-q", "--checkpoint-every", "1"]  # fmt: skip


@dataclass
class Case:
    """words: of a command, without its folder. before: commands that the folder begins with."""

    words: list[str]
    before: list[list[str]] = field(default_factory=list)


def cases(data: Path, run: Path, config: Path) -> dict[str, Case]:
    """data: a folder of images. run: of `evaluate`. config: of a training."""
    explain = ["explain", str(data / "test"), "--method", "simple-gradient", *COMPUTE]
    return {
        "explain": Case(explain),
        "explain --overwrite": Case(
            [*explain, "--score", "probability", "--overwrite"], before=[explain]
        ),
        "compare": Case(["compare", str(data / "test"), "--methods", "simple-gradient,smoothgrad",
                         "--set", "smoothgrad.samples=2", *COMPUTE]),
        "sweep": Case(["sweep", str(data / "test"), "--method", "smoothgrad", "--over", "sigma",
                       "--values", "0.1,0.2", "--set", "samples=2", *COMPUTE]),
        "certify": Case(["certify", str(data / "test"), "--sigma", "0.5", "--samples", "128",
                         *COMPUTE]),
        "evaluate": Case(["evaluate", "--data", str(data), "--methods", "simple-gradient",
                          "--block", "2", "--metrics", "gini", *COMPUTE]),
        "report": Case(["report", str(run)]),
        "train": Case(["train", "--config", str(config), "-q", "--checkpoint-every", "1"]),
        "sanity": Case(["sanity", "--data", str(data), "--samples", "2", "--metrics", "spearman",
                        "--seeds", "0", *COMPUTE]),
        "visualise": Case(["visualise", "--classes", "0,1", "--set", "steps=2", *COMPUTE]),
        "retrain stability": Case(
            ["retrain", "stability", "--config", str(config), "--epochs", "1", "--seeds", "0,1",
             "--exchanged", "0", "--images", "4", "--metrics", "spearman", "-q"]
        ),
        "data cells": Case(CELLS),
    }  # fmt: skip


@dataclass
class Found:
    """kills: how many. other: folders that ended differently. left: files too many, by name."""

    kills: int = 0
    failed: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.failed or self.other or self.left)


def campaign(case: Case, place: Path, sample: int | None = None) -> Found:
    """One command, killed again and again."""
    place.mkdir()
    plain = place / "plain"
    steps = place / "steps"
    _prepare(case, plain)
    code, text = _run(case.words, plain, _counting(plain, steps))
    assert code in (0, 1), text
    expected, count = tree(plain), int(steps.read_text(encoding="utf-8"))
    found = Found()
    chosen = range(1, count + 1)
    if sample is not None:
        chosen = sorted({1 + round(i * (count - 1) / max(1, sample - 1)) for i in range(sample)})
    for number in chosen:
        out = place / f"killed-{number}"
        _prepare(case, out)
        code, text = _run(case.words, out, _killing(out, number))
        found.kills += 1
        if code != KILLED:
            found.failed.append(f"{number}: not killed ({code}) {text[-300:]}")
            continue
        code, text = _run(case.words, out)
        if code not in (0, 1) or "Traceback" in text:
            found.failed.append(f"{number}: {text[-300:]}")
            continue
        now = tree(out)
        found.left += [f"{number}: {name}" for name in now.keys() - expected.keys()]
        found.other += [
            f"{number}: {name}" for name, data in expected.items() if now.get(name) != data
        ]
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """All files by name; those that hold clock times without their content."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = {path: path.relative_to(folder).as_posix() for path in files}
    return {
        name: b"" if name.startswith(TIMED) else path.read_bytes()
        for path, name in names.items()
        if not name.startswith("events/")
    }


def _prepare(case: Case, out: Path) -> None:
    for words in case.before:
        code, text = _run(words, out)
        assert code in (0, 1), text


def _run(words: list[str], out: Path, watch: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """A command in a process of its own: the exit code, and what it printed."""
    with tempfile.TemporaryFile("w+") as text:
        process = os.fork()
        if process == 0:
            code = 70
            try:
                for number in (1, 2):
                    os.dup2(text.fileno(), number)
                from moreaugrad.cli.entry import run

                watch()
                code = run([*words, "--out", str(out)])
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                _at_end()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        text.seek(0)
        return code, text.read()


_ended: list[Callable[[], None]] = []


def _at_end() -> None:
    for act in _ended:
        act()


def _counting(out: Path, steps: Path) -> Callable[[], None]:
    """Counts the steps, and writes at the end how many there were."""

    def begin() -> None:
        seen = _watch(out, 0)
        _ended.append(
            lambda: steps.write_text(str(sum(1 for _ in seen)), encoding="utf-8") and None
        )

    return begin


def _killing(out: Path, number: int) -> Callable[[], None]:
    return lambda: _watch(out, number) and None


def _watch(out: Path, number: int) -> list[str]:
    """From now on every step in the folder is noted; the process dies in that of this number."""
    seen: list[str] = []
    inside = str(out)

    def step(name: str) -> bool:
        seen.append(name)
        return len(seen) == number

    def hook(event: str, given: tuple[object, ...]) -> None:
        if event not in STEPS or not isinstance(given[0], (str, os.PathLike)):
            return
        if not os.fspath(given[0]).startswith(inside) or _only_reads(event, given):
            return
        if step(event):
            os._exit(KILLED)

    def fsync(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        for kept in (0, size // 2):
            if step("write"):
                with contextlib.suppress(OSError):  # a folder
                    os.ftruncate(descriptor, kept)
                os._exit(KILLED)
        synchronise(descriptor)

    synchronise, os.fsync = os.fsync, fsync
    sys.addaudithook(hook)
    return seen


def _only_reads(event: str, given: tuple[object, ...]) -> bool:
    flags = given[2] if event == "open" else None
    return isinstance(flags, int) and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)


@contextlib.contextmanager
def prepared() -> Iterator[tuple[Path, dict[str, Case]]]:
    """A folder to work in, with what the commands read."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        data, run, config = place / "data", place / "run", place / "train.toml"
        given = cases(data, run, config)
        code, text = _run([*CELLS, "--test", "3"], data)
        assert code == 0, text
        code, text = _run(given["evaluate"].words, run)
        assert code == 0, text
        config.write_text(TRAINING, encoding="utf-8")
        yield place, given


TRAINING = """
epochs = 2
batch = 10
threads = 1
device = "cpu"
[data]
source = "cells"
count = 40
test = "test"
test_count = 10
validation = 0.25
[model]
name = "builtin"
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", help="all by default")
    parser.add_argument("--sample", type=int, help="kills of each command")
    options = parser.parse_args()
    torch.set_num_threads(1)
    _import()
    bad = 0
    with prepared() as (place, given):
        for name in options.commands or given:
            found = campaign(given[name], place / name.replace(" ", "-"), options.sample)
            bad += not found.good
            print(
                f"{name}: {found.kills} kills, {len(found.failed)} restarts failed, "
                f"{len(found.other)} files other, {len(found.left)} left",
                flush=True,
            )
            for line in [*found.failed, *found.other, *found.left][:8]:
                print(f"  {line}", flush=True)
    return 1 if bad else 0


def _import() -> None:
    """What the commands import, once. Nothing is computed: autograd's threads would not survive a
    fork."""
    import jinja2  # noqa: F401
    from PIL import PngImagePlugin  # noqa: F401

    import moreaugrad.runs.certify
    import moreaugrad.runs.evaluate.report
    import moreaugrad.runs.retrain
    import moreaugrad.runs.sanity
    import moreaugrad.runs.visualise  # noqa: F401
    from moreaugrad.cli.entry import run

    with contextlib.redirect_stderr(io.StringIO()):
        for words in (["explain", "missing.png"], ["report", "missing"]):
            run([*words, "--out", "nowhere"])


if __name__ == "__main__":
    sys.exit(main())
