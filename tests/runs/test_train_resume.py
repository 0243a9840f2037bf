"""Trainings that are killed, interrupted, out of space or shared end in the same bytes."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreaugrad.cli.entry import run
from moreaugrad.files import tensors
from moreaugrad.models import load_model
from moreaugrad.reports.studies import LOG
from moreaugrad.runs.train import run as training
from moreaugrad.runs.train.run import Trainer
from moreaugrad.training import penalty
from toys import last

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

# Kills its own process in the tenth step.
DYING = """
import os, signal, sys
from moreaugrad.cli import main
from moreaugrad.training.loop import Trainer
real, seen = Trainer.step, []
def step(self, *given, **named):
    seen.append(given)
    if len(seen) == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *given, **named)
Trainer.step = step
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(1)
    for label in ("stripe", "dot", "blank", "cross"):
        (folder / label).mkdir()
        for number in range(8):
            pixels = generator.integers(0, 256, (18, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def command(data: Path, out: Path, *more: str) -> list[str]:
    """Two epochs of six batches, with a checkpoint after every fourth batch.

    The free protocol carries its perturbation from batch to batch, so it shows what is lost.
    """
    return last(
        ["train", "--data", str(data), "--model", "tiny_models:normalised", "-q",
         "--epochs", "2", "--batch-size", "4", "--validation", "0.2", "--checkpoint-every", "4",
         "--resize", "18", "--shards", "2", "--seed", "3", "--protocol", "free",
         "--penalty", "l1", "--epsilon", "0.05", "--set", "replays=2", "--threads", "1",
         *more, "--out", str(out)]
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training that nothing happened to."""
    out = tmp_path_factory.mktemp("plain") / "run"
    assert run(command(data, out)) == 0
    return out


def tree(folder: Path) -> dict[str, bytes]:
    """All files but TensorBoard's, which hold clock times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "events")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def process(code: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *code], env=ENVIRONMENT | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_what_a_training_writes(plain: Path) -> None:
    names = {"config.toml", "environment.json", "log.jsonl", "labels.json", "card.md",
             "results.json", "results.sha256", "model.json", "last.safetensors",
             "best.safetensors", "tables.json", "table.md", "index.html",
             "index.sha256"}  # fmt: skip
    assert set(tree(plain)) == names | {"state-00000012.safetensors"}
    records = [json.loads(line) for line in (plain / "log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert [record["steps"] for record in records] == [6, 12]


# 1 and 2 are configuration and environment; then the state and weights of batches 4, 6 (with the
# best and the log), 8 and 12.
@pytest.mark.parametrize("number", [4, 5, 9])
def test_a_killed_training_goes_on_to_the_same_bytes(
    data: Path, plain: Path, tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    killed = process(["-c", KILLED.format(number=number), *command(data, out)])
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    capsys.readouterr()
    assert run([word for word in command(data, out) if word != "-q"]) == 0
    assert ("resuming from the checkpoint at epoch" in capsys.readouterr().err) == (number > 4)
    assert tree(out) == tree(plain)


def test_a_finished_training_is_not_done_again(
    data: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished training was written again")

    before = tree(plain)
    monkeypatch.setattr(tensors, "write_atomically", never)
    monkeypatch.setattr(training, "measure", never)
    assert run(command(data, plain)) == 0
    assert tree(plain) == before


def test_a_full_disk_keeps_the_last_checkpoint(
    data: Path, plain: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out, real, seen = tmp_path / "run", tensors.write_atomically, []

    def full(path: Path, content: bytes) -> None:
        seen.append(path)
        if len(seen) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(tensors, "write_atomically", full)
        assert run(command(data, out)) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "No space left on device; what is finished stays" in told
    assert "MOREAUGRAD_TRACEBACK" not in told
    assert (out / "last.safetensors").exists()
    assert run(command(data, out)) == 0
    assert tree(out) == tree(plain)


def test_an_interruption_goes_on(
    data: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, seen = tmp_path / "run", Trainer.step, []

    def step(self: Trainer, *given: object, **named: object) -> object:
        seen.append(given)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return real(self, *given, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        assert run(command(data, out)) == 130
    assert run(command(data, out)) == 0
    assert tree(out) == tree(plain)


def test_overshooting_is_counted_in_each_epoch_and_over_a_resume(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At the second call of each of the two pieces, and at every third from there.
    monkeypatch.setattr(penalty, "CHECK_EVERY", 3)
    monkeypatch.setattr(penalty, "CHECK_FROM", 1)
    whole, out = tmp_path / "whole", tmp_path / "run"
    free = ["--set", "replays=2"]
    fast = ["--protocol", "fast", "--penalty", "elastic-net", "--epsilon", "0.01,0.1"]

    def words(folder: Path) -> list[str]:
        found = command(data, folder, *fast)
        place = found.index(free[0])
        assert found[place : place + 2] == free
        return found[:place] + found[place + 2 :]

    assert run(words(whole)) == 0
    records = [json.loads(line)["training"] for line in (whole / LOG).read_text().splitlines()]
    assert [record["checked"] for record in records] == [2 * 2 * 2, 2 * 2 * 2]
    assert all(0 <= record["overshot"] <= record["checked"] for record in records)
    real, seen = Trainer.step, []

    def step(self: Trainer, *given: object, **named: object) -> object:
        seen.append(given)
        if len(seen) == 10:
            raise KeyboardInterrupt
        return real(self, *given, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        assert run(words(out)) == 130
    assert run(words(out)) == 0
    assert tree(out) == tree(whole)


def test_two_processes_end_in_the_same_bytes(data: Path, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    started = process(
        ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port(),
         "-m", "moreaugrad", *command(data, out)]
    )  # fmt: skip
    told = started.communicate(timeout=300)
    assert started.returncode == 0, told
    assert tree(out) == tree(plain)


def test_a_process_that_dies_fails_the_others_and_the_next_start_completes(
    data: Path, plain: Path, tmp_path: Path
) -> None:
    out, port = tmp_path / "run", free_port()
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    codes = [["-m", "moreaugrad"], ["-c", DYING]]
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
    assert not (out / "card.md").exists()
    assert run(command(data, out)) == 0
    assert tree(out) == tree(plain)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--lr", "0.01"], "optimiser.lr is 0.001 there, 0.01 here"),
        (["--seed", "4"], "seed is 3 there, 4 here"),
        (["--shards", "1"], "shards is 2 there, 1 here"),
        (["--no-flip"], "augment.flip is True there, False here"),
    ],
)
def test_other_settings_are_refused(
    data: Path, plain: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    before = tree(plain)
    assert run(command(data, plain, *more)) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert tree(plain) == before


def test_where_the_data_lie_is_no_setting(
    data: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in another copy of the repository; an archive has the same files, too."""
    out, moved = tmp_path / "run", tmp_path / "elsewhere" / "data"
    shutil.copytree(plain, out)
    shutil.copytree(data, moved)
    # The page shows the configuration, paths included.
    before = {k: v for k, v in tree(out).items() if not k.startswith(("config.", "index."))}
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", data)
    for place in (moved, Path(archive)):
        assert run(command(place, out)) == 0
        now = tree(out)
        assert f'source = "../{place.relative_to(tmp_path)}"' in now.pop("config.toml").decode()
        assert {k: v for k, v in now.items() if not k.startswith("index.")} == before
    # An image of another size, as in a data set of another resolution with the same names.
    Image.new("RGB", (30, 20)).save(moved / "dot" / "3.png")
    assert run(command(moved, out)) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "holds a run of another configuration: data.digest is" in told
    # An older version kept no digest of the files: then the path tells of them.
    config = out / "config.toml"
    text = config.read_text(encoding="utf-8")
    digest = f'digest = "{tomllib.loads(text)["data"]["digest"]}"\n'
    config.write_text("".join(line for line in text.splitlines(True) if line != digest))
    assert run(command(data, out)) == 2
    assert "data.source is ../packed.zip there" in " ".join(capsys.readouterr().err.split())
    assert run(command(Path(archive), out)) == 0


def test_other_loading_is_no_other_setting(data: Path, plain: Path, tmp_path: Path) -> None:
    loading = ["--memory", "0", "--checkpoint-every", "5", "--workers", "1"]
    assert run(command(data, tmp_path / "run", *loading)) == 0
    assert tree(tmp_path / "run") == tree(plain)


EMPTIED, CUT, CHANGED = (
    lambda data: b"",
    lambda data: data[: len(data) // 2],
    lambda data: data[:-1] + bytes([data[-1] ^ 1]),
)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("last.safetensors", EMPTIED),
        ("last.safetensors", CHANGED),
        ("state-00000012.safetensors", CUT),
        ("best.safetensors", EMPTIED),
        ("best.safetensors", CHANGED),
        ("results.json", EMPTIED),
        ("model.json", CUT),
        ("labels.json", EMPTIED),
        ("card.md", CHANGED),
        ("log.jsonl", CUT),
    ],
)
def test_a_damaged_file_is_reported_and_made_again(
    data: Path, plain: Path, tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(plain, out)
    (out / name).write_bytes(damage((plain / name).read_bytes()))
    with pytest.warns(UserWarning, match=rf"{name}.*damaged|{name}: expected a checkpoint"):
        assert run(command(data, out)) == 0
    assert tree(out) == tree(plain)


@pytest.mark.parametrize(
    "name", ["best.safetensors", "last.safetensors", "model.json", "labels.json"]
)
@pytest.mark.parametrize("damage", [CHANGED, CUT])
def test_a_network_that_is_not_as_it_was_written_is_not_loaded(
    data: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str,
    damage: Callable[[bytes], bytes],
) -> None:  # fmt: skip
    out = tmp_path / "run"
    shutil.copytree(plain, out)
    (out / "card.md").write_text("notes of my own")
    load_model(f"trained:{out}", trust=True)
    (out / name).write_bytes(damage((plain / name).read_bytes()))
    words = ["explain", str(data), "--model", f"trained:{out}", "--out", str(tmp_path / "maps")]
    assert run(words) == 2
    told = capsys.readouterr().err.strip()
    assert f"{name}: is damaged" in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("name", ["best.safetensors", "model.json", "results.sha256"])
def test_a_file_that_is_gone_is_made_again(
    data: Path, plain: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(plain, out)
    (out / name).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run(command(data, out)) == 0
    assert tree(out) == tree(plain)


def test_overwriting_begins_again(data: Path, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(plain, out)
    words = command(data, out, "--epochs", "1")
    assert run(words) == 2
    assert run([*words, "--overwrite"]) == 0
    assert len((out / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    assert (out / "state-00000006.safetensors").exists()


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])
