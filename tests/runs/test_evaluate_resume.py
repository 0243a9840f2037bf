"""Runs that are killed, interrupted, out of space or shared end in the same bytes."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreaugrad.cli.entry import run
from moreaugrad.files import units
from moreaugrad.files.units import Units
from moreaugrad.runs import directory
from moreaugrad.runs.directory import RunDirectory
from moreaugrad.runs.engine import execute
from moreaugrad.runs.maps.run import MapsRun
from moreaugrad.runs.plans.explain import EvaluatePlan
from moreaugrad.runs.plans.toml import read_plan

TESTS = Path(__file__).parents[1]
SEARCHED = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": SEARCHED,
    "OMP_NUM_THREADS": "1",
}

# Kills its own process between the writing of the n-th file and its renaming.
KILLED = """
import os, pathlib, signal, sys
from moreaugrad.cli import main
real, seen = pathlib.Path.replace, []
def replace(self, target):
    seen.append(target)
    if len(seen) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
pathlib.Path.replace = replace
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(1)
    for number in range(5):
        pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def command(data: Path, out: Path) -> list[str]:
    return ["evaluate", "--data", str(data), "--model", "tiny_models:smooth", "-q", "--block", "2",
            "--methods", "smoothgrad,sparse-moreaugrad-plain",
            "--set", "smoothgrad.samples=8", "--metrics", "gini,normalised-distance",
            "--attack", "gaussian:over=sigma,epsilons=[0.05,0.1]", "--out", str(out)]  # fmt: skip


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to."""
    out = tmp_path_factory.mktemp("plain") / "run"
    assert run(command(data, out)) == 0
    return out


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def process(code: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *code], env=ENVIRONMENT | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


# 1 and 2 are configuration and environment, 3 to 11 images, the others files of a unit.
@pytest.mark.parametrize("number", [1, 2, 5, 14])
def test_a_killed_run_goes_on_to_the_same_bytes(
    data: Path, plain: Path, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "run"
    killed = process(["-c", KILLED.format(number=number), *command(data, out)])
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    left = tree(out)
    hidden = {name for name in left if "/." in f"/{name}"}
    assert sum(name.endswith(".partial") for name in hidden) == 1  # a file half-written
    done = {name: data for name, data in left.items() if name not in hidden}
    assert done.items() < tree(plain).items()
    assert run(command(data, out)) == 0
    assert tree(out) == tree(plain)


def test_finished_units_are_not_done_again(
    data: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a finished unit was written again")

    before = tree(plain)
    monkeypatch.setattr(Units, "write", never)
    assert run(command(data, plain)) == 0
    assert tree(plain) == before


def test_where_the_data_lie_is_no_setting(
    data: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, moved = tmp_path / "run", tmp_path / "data"
    shutil.copytree(plain, out)
    shutil.copytree(data, moved)
    assert run(command(moved, out)) == 0
    before, now = tree(plain), tree(out)
    assert before.pop("config.toml") != now.pop("config.toml")
    assert now == before
    Image.new("RGB", (16, 17)).save(moved / "3.png")
    assert run(command(moved, out)) == 2
    assert "of another configuration: data.digest is" in " ".join(capsys.readouterr().err.split())


def test_a_full_disk_loses_nothing_that_is_finished(
    data: Path, plain: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out, real, seen = tmp_path / "run", units.write_atomically, []

    def full(path: Path, content: bytes) -> None:
        seen.append(path)
        if len(seen) > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(units, "write_atomically", full)
        patch.setattr(directory, "write_atomically", full)
        assert run(command(data, out)) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "No space left on device; what is finished stays" in told
    assert "MOREAUGRAD_TRACEBACK" not in told
    assert tree(out).items() < tree(plain).items()
    assert run(command(data, out)) == 0
    assert tree(out) == tree(plain)


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        ("samples/00000.jsonl", lambda data: b""),
        ("samples/00001.safetensors", lambda data: data[: len(data) // 2]),
        ("methods/smoothgrad/00001.jsonl", lambda data: data[: data.index(b"\n") + 1]),
        ("methods/smoothgrad/00000.jsonl", lambda data: bytes(len(data))),
        ("methods/smoothgrad/00002.safetensors", lambda data: data[:-1] + b"?"),
    ],
)
def test_a_damaged_unit_is_reported_and_done_again(
    data: Path, plain: Path, tmp_path: Path, name: str, damaged: Callable[[bytes], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "run"
    shutil.copytree(plain, out)
    (out / name).write_bytes(damaged((plain / name).read_bytes()))
    with pytest.warns(UserWarning, match=f"{name}: is damaged"):
        assert run(["report", str(out), "--out", str(tmp_path / "page")]) == 1
    assert "is not complete: " in " ".join(capsys.readouterr().err.split())
    with pytest.warns(UserWarning, match=f"{name}: is damaged"):
        assert run(command(data, out)) == 0
    assert tree(out) == tree(plain)


def test_a_report_can_be_made_again_after_a_full_disk(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["report", str(plain), "--out", str(tmp_path / "page")]
    assert run(words) == 0
    whole = tree(tmp_path / "page")
    for count in range(len(whole)):
        shutil.rmtree(tmp_path / "page")
        real, seen = units.write_atomically, []

        def full(path: Path, content: bytes) -> None:
            seen.append(path)  # noqa: B023
            if len(seen) > count:  # noqa: B023
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            real(path, content)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(units, "write_atomically", full)
            patch.setattr(directory, "write_atomically", full)
            assert run(words) == 2
        assert run(words) == 0
        assert tree(tmp_path / "page") == whole


@pytest.mark.parametrize("gone", [True, False])
def test_an_image_lost_on_the_way_is_a_problem_and_counts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], gone: bool,
) -> None:  # fmt: skip
    moved, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data, moved)
    real = MapsRun.after

    def lost(self: MapsRun, stage: Sequence[str], directory: RunDirectory) -> None:
        real(self, stage, directory)
        if gone:
            (moved / "3.png").unlink(missing_ok=True)
        else:
            (moved / "3.png").write_bytes(b"no image")

    monkeypatch.setattr(MapsRun, "after", lost)
    assert run([*command(moved, out), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["complete"]
    assert [one["input"] for one in told["failures"]] == ["3.png"] * 2
    records = [
        json.loads(line)
        for file in sorted((out / "methods" / "smoothgrad").glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    assert [r["input"] for r in records if "problem" in r] == ["3.png"]
    assert {record["input"] for record in records} == {f"{number}.png" for number in range(5)}
    assert run(["report", str(out), "--out", str(tmp_path / "page")]) == 0
    assert "1 without a result" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


def test_an_interruption_is_reported_and_goes_on(
    data: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, seen = tmp_path / "run", Units.write, []

    def write(self: Units, *given: object) -> None:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(given)
        real(self, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Units, "write", write)
        assert run(command(data, out)) == 130
    assert run(command(data, out)) == 0
    assert tree(out) == tree(plain)


def test_two_processes_end_in_the_same_bytes_and_give_a_note_once(
    data: Path, plain: Path, tmp_path: Path
) -> None:
    out, config = tmp_path / "run", tmp_path / "plan.toml"
    config.write_text(f'[data]\nsource = "{data.as_posix()}"\n', encoding="utf-8")
    started = process(
        ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port(),
         "-m", "moreaugrad", *command(data, out), "--config", str(config)]
    )  # fmt: skip
    _, errors = started.communicate(timeout=300)
    assert started.returncode == 0, errors
    assert errors.count("outside of its folder") == 1
    assert tree(out) == tree(plain)


def test_a_process_that_dies_fails_the_others_and_the_next_start_completes(
    data: Path, plain: Path, tmp_path: Path
) -> None:
    out, port = tmp_path / "run", free_port()
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    # The second process writes images (6 files) and dies in its first unit.
    codes = [["-m", "moreaugrad"], ["-c", KILLED.format(number=8)]]
    both = [
        process([*code, *command(data, out)], RANK=str(rank), **shared)
        for rank, code in enumerate(codes)
    ]
    errors = [one.communicate(timeout=300)[1] for one in both]
    assert both[1].returncode == -signal.SIGKILL
    assert both[0].returncode == 2, errors[0]
    told = " ".join(errors[0].split())
    assert "another process of this run has stopped" in told
    assert "Traceback" not in told
    assert len(tree(out)) < len(tree(plain))
    assert run(command(data, out)) == 0
    assert tree(out) == tree(plain)


def test_another_environment_is_reported(data: Path, plain: Path, tmp_path: Path) -> None:
    file = plain / "environment.json"
    before = file.read_bytes()
    other = json.loads(before)
    other[0]["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(other), encoding="utf-8")
    try:
        again = read_plan(EvaluatePlan, plain / "config.toml", trust=True)
        outcome = execute(MapsRun(again, command="evaluate"), plain)
        assert "other versions" in outcome.notes[0]
        assert len(json.loads(file.read_text(encoding="utf-8"))) == 2
    finally:
        file.write_bytes(before)


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])
