"""python -m benchmarks.kills [COMMAND ...]: kills commands at every step that touches their folder.

Each command is killed before every opening, renaming, removal and change of rights in its folder,
and with every file half-written and empty. Then the same command runs to its end, and the folder is
compared with that of a run that nothing happened to. With `--sample N` only N kills a command; with
`--out FOLDER` the counts are written there.

Commands run in forked processes, so that nothing is imported twice; needs Linux or macOS.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.context import CPU
from benchmarks.results import Result, Table, write
from moreaugrad.cli import perform
from moreaugrad.cli.commands import COMMANDS
from moreaugrad.cli.entry import run
from moreaugrad.reports.page import templates
from moreaugrad.runs.plans.explain import ExplainPlan
from moreaugrad.runs.plans.text import Settings

KILLED = 137
STEPS = {"open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "os.rmdir", "os.truncate",
         "os.link", "os.symlink"}  # fmt: skip
"""Python's audit events that are counted; writes are counted as they are synchronised."""
TIMED = ("index.html", "index.sha256", "events", "times")
"""What holds clock times; TensorBoard's files are of each start."""

COMPUTE = ["--model", "builtin", "--resize", "32", "--crop", "32", "--device", "cpu", "--threads",
           "1", "-q"]  # fmt: skip
CHEAP = ["--set", "samples=2"]
L1 = ["--penalty", "l1", "--epsilon", "0.02"]
PROTOCOLS = {
    "plain": [],
    "fast": [*L1],
    "iterative": ["--penalty", "elastic-net", "--epsilon", "0.02,0.1", "--set", "steps=2"],
    "momentum": [*L1, "--set", "steps=2"],
    "free": [*L1, "--set", "replays=2"],
    "penalised": ["--penalty", "squared-l2", "--epsilon", "0.02"],
    "gaussian-noise": ["--set", "sigma=0.1"],
}
"""Of `train`, with the options that make them short."""


@dataclass
class Case:
    """words: of a command, without its folder. before: commands that the folder begins with."""

    words: list[str]
    before: list[list[str]] = field(default_factory=list)


def cases(place: Path) -> dict[str, Case]:
    """place: where `prepared` has put what they read."""
    data, run, config, trained = (place / name for name in ("data", "run", "train.toml", "trained"))
    image = str(data / "test" / "*" / "000000.png")
    explain = ["explain", str(data / "test"), "--method", "simple-gradient", *COMPUTE]
    evaluate = ["evaluate", "--data", str(data), "--methods", "simple-gradient,smoothgrad",
                "--block", "2", "--metrics", "gini", *CHEAP, *COMPUTE]  # fmt: skip
    train = ["train", "--config", str(config), "-q", "--checkpoint-every", "1"]
    retrain = ["--training", str(config), "--epochs", "1", "-q"]
    maps = ["--images", "4", "--metrics", "spearman"]
    return {
        "explain": Case([*explain, "--export", "npy", "--export", "csv"]),
        "explain --overwrite": Case(
            [*explain, "--score", "probability", "--overwrite"], before=[explain]
        ),
        "compare": Case(["compare", image, "--methods", "simple-gradient,smoothgrad",
                         "--compare-with", "builtin-elastic-net", *CHEAP, *COMPUTE]),
        "sweep": Case(["sweep", image, "--method", "smoothgrad", "--over", "sigma",
                       "--values", "0.1,0.2", *CHEAP, *COMPUTE]),
        "certify": Case(["certify", image, "--sigma", "0.1", "--noise-samples", "128",
                         "--radii", "0.1,0.5", *COMPUTE]),
        "evaluate": Case([*evaluate, "--attack", "top-k:steps=1", "--epsilons", "0.5"]),
        "evaluate --overwrite": Case([*evaluate, "--seed", "1", "--overwrite"], before=[evaluate]),
        "report": Case(["report", str(run)]),
        "report --overwrite": Case(
            ["report", str(run), "--gallery", "1", "--overwrite"], before=[["report", str(run)]]
        ),
        **{
            f"train {name}": Case([*train, "--epochs", "1", "--protocol", name, *more])
            for name, more in PROTOCOLS.items()
        },
        "train": Case(train),
        "train --overwrite": Case(
            [*train, "--seed", "1", "--overwrite"], before=[[*train, "--epochs", "1"]]
        ),
        "sanity": Case(["sanity", "--data", str(data), "--images", "2", "--metrics", "spearman",
                        "--seeds", "0", *COMPUTE]),
        "visualise": Case(["visualise", "--classes", "0,1", "--set", "steps=2", *COMPUTE]),
        "data cells": Case([*CELLS, "--images", "4"]),
        "data cells, more": Case([*CELLS, "--images", "4"], before=[[*CELLS, "--images", "2"]]),
        "demo": Case(["demo"]),
        "retrain stability": Case(
            ["retrain", "stability", "--seeds", "0,1", "--exchanged", "0", *maps, *retrain]
        ),
        "retrain labels": Case(["retrain", "labels", "--seeds", "0,1", *maps, *retrain]),
        "retrain diffroar": Case(
            ["retrain", "diffroar", str(trained), "--levels", "0.5", "--seeds", "0",
             "--no-control", *retrain]
        ),
    }  # fmt: skip


CELLS = ["data", "cells", "--size", "32", "-q"]
TRAINING = """
epochs = 2
batch = 16
threads = 1
device = "cpu"
[data]
source = "cells"
images = 40
test = "test"
test_images = 10
validation = 0.25
[augment]
size = 32
[protocol]
name = "plain"
[model]
name = "builtin"
"""


@dataclass
class Found:
    """steps: that the command has. kills: how many of them it was killed in. failed: restarts that
    did not end well. other: files that ended differently. left: files too many."""

    steps: int = 0
    kills: int = 0
    failed: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def faults(self) -> list[str]:
        return [*self.failed, *self.other, *self.left]


def campaign(case: Case, place: Path, sample: int | None = None) -> Found:
    """One command, killed again and again."""
    began = time.perf_counter()
    place.mkdir()
    # The same names for all starts: configurations hold paths.
    first, out, kept = (place / name for name in ("first", "out", "plain"))
    for words in case.before:
        _well(_run(words, out))
    if out.exists():
        shutil.copytree(out, first)
    steps = place / "steps"
    _well(_run(case.words, out, _counting(out, steps)))
    expected, count = tree(out), int(steps.read_text(encoding="utf-8"))
    out.rename(kept)
    found = Found(steps=count)
    chosen = range(1, count + 1)
    if sample is not None:
        chosen = sorted({1 + round(i * (count - 1) / max(1, sample - 1)) for i in range(sample)})
    for number in chosen:
        if first.exists():
            shutil.copytree(first, out)
        code, text = _run(case.words, out, _killing(out, number))
        found.kills += 1
        if code != KILLED:
            found.failed.append(f"{number}: not killed ({code}) {text[-300:]}")
        else:
            code, text = _run(case.words, out)
            if code not in (0, 1) or "Traceback" in text:
                found.failed.append(f"{number}: {text[-300:]}")
            else:
                now = tree(out)
                found.left += [f"{number}: {name}" for name in now.keys() - expected.keys()]
                found.other += [
                    f"{number}: {name}" for name, data in expected.items() if now.get(name) != data
                ]
        shutil.rmtree(out, ignore_errors=True)
    found.seconds = time.perf_counter() - began
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


def _well(done: tuple[int, str]) -> None:
    code, text = done
    if code not in (0, 1) or "Traceback" in text:
        raise RuntimeError(f"expected a command that ends well, got exit code {code}: {text}")


def _run(words: list[str], out: Path, watch: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """A command in a process of its own: the exit code, and what it printed."""
    with tempfile.TemporaryFile("w+") as text:
        process = os.fork()
        if process == 0:
            code = 70
            try:
                for number in (1, 2):
                    os.dup2(text.fileno(), number)
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
def prepared(names: Collection[str]) -> Iterator[tuple[Path, dict[str, Case]]]:
    """A folder to work in, with what the commands of these names (none: all) read."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        every = cases(place)
        given = {name: every[name] for name in names or every}
        read = {word for case in given.values() for word in case.words}
        (place / "train.toml").write_text(TRAINING, encoding="utf-8")
        _well(_run([*CELLS, "--images", "4", "--test-images", "2"], place / "data"))
        for name, folder in {"evaluate": place / "run", "train": place / "trained"}.items():
            if str(folder) in read:
                _well(_run(every[name].words, folder))
        yield place, given


def result(found: Mapping[str, Found]) -> Result:
    """The counts, as a table."""
    header = ["command", "steps", "kills", "restarts that failed", "files with other bytes",
              "files too many", "seconds"]  # fmt: skip
    rows = [
        [name, one.steps, one.kills, len(one.failed), len(one.other), len(one.left),
         round(one.seconds)]
        for name, one in found.items()
    ]  # fmt: skip
    whole = [sum(row[place] for row in rows) for place in range(1, len(header))]
    caption = (
        "Each command killed in every step that touches its folder, and started again; compared "
        "with a run that nothing happened to."
    )
    return Result(
        title="Commands that are killed",
        settings={"steps": sorted(STEPS), "half-written and empty": "at every fsync"},
        figures={
            name: {"steps": one.steps, "kills": one.kills, "faults": one.faults}
            for name, one in found.items()
        },
        tables=[Table(caption=caption, header=header, rows=[*rows, ["all", *whole]])],
        notes=["Pages and TensorBoard's events hold clock times: only that they are there counts."],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", help="all by default")
    parser.add_argument("--sample", type=int, help="kills of each command")
    parser.add_argument("--jobs", type=int, default=1, help="commands at a time")
    parser.add_argument("--out", type=Path, help="folder for kills.json and kills.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    _import()
    found: dict[str, Found] = {}
    with (
        prepared(options.commands) as (place, given),
        ProcessPoolExecutor(options.jobs, get_context("fork")) as jobs,
    ):
        doing = {
            jobs.submit(campaign, case, place / f"kills-{number}", options.sample): name
            for number, (name, case) in enumerate(given.items())
        }
        for done in as_completed(doing):
            name = doing[done]
            one = found[name] = done.result()
            print(
                f"{name}: {one.kills} kills in {one.seconds:.0f} s, {len(one.failed)} restarts "
                f"failed, {len(one.other)} files other, {len(one.left)} left",
                flush=True,
            )
            for line in one.faults[:8]:
                print(f"  {line}", flush=True)
            if options.out is not None:
                ordered = {name: found[name] for name in given if name in found}
                write(result(ordered), "kills", options.out, machine.describe(CPU))
    return 1 if any(one.faults for one in found.values()) else 0


def _less(plan: ExplainPlan) -> ExplainPlan:
    """One input and few maps; the kinds of files are the same."""
    assert plan.sweep is not None
    assert plan.compare is not None
    methods: dict[str, Settings] = {"simple-gradient": {}}
    sweep = replace(
        plan.sweep, method="smoothgrad", over="sigma", values=(0.1, 0.2), settings={"samples": 2}
    )
    return replace(
        plan, data=replace(plan.data, indices=(0,)), methods=methods, sweep=sweep,
        compare=replace(plan.compare, methods=methods),
    )  # fmt: skip


IMPORTED = (
    "matplotlib.backends.backend_agg", "torch._dynamo", "torch.fx.experimental.symbolic_shapes",
    "torch.utils.tensorboard", "PIL.PngImagePlugin", "moreaugrad.explainers.gradient",
    "moreaugrad.cli.perform", "moreaugrad.runs.engine",
    *(command.run.partition(":")[0] for command in COMMANDS.values()),
)  # fmt: skip
"""What commands import when they need it."""


def _import() -> None:
    """What the commands import and compile, once. Nothing is computed: autograd's threads would not
    survive a fork."""
    for name in IMPORTED:
        importlib.import_module(name)
    for name in templates().list_templates():
        templates().get_template(name)

    less = _less(perform.demo_plan())
    perform.demo_plan = lambda: less
    with contextlib.redirect_stderr(io.StringIO()):
        for words in (["explain", "missing.png"], ["report", "missing"]):
            run([*words, "--out", "nowhere"])


if __name__ == "__main__":
    sys.exit(main())
