"""Folders of runs: one writer, damage that is seen, and nothing removed that others wrote."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreaugrad.cli.entry import run
from moreaugrad.files.atomic import (
    LOCK,
    is_temporary,
    only_writer,
    remove_partial,
    write_atomically,
)
from moreaugrad.files.units import listed
from moreaugrad.runs import directory
from moreaugrad.runs.directory import RunDirectory
from moreaugrad.runs.plans.option import Plan

ROOT = Path(__file__).parents[2]
SEARCHED = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "one bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "zeros": lambda data: bytes(len(data)),
    "longer": lambda data: data + b"\n",
}


def directory_of(path: Path) -> RunDirectory:
    return RunDirectory(path, "experiment", Plan, ("parts/*",), ("summary.txt",))


def opened(path: Path, config: str = "a = 1\n", *, overwrite: bool = False) -> RunDirectory:
    folder = directory_of(path)
    with folder.opened(config, overwrite=overwrite):
        folder.write("parts/one", {"parts/one.txt": b"1 2", "maps/one.bin": b"\x00\x01\x02\x03"})
        folder.put("summary.txt", b"all")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_unit_is_listed_as_sha256sum_has_it(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    assert set(tree(folder.path)) == {
        "config.toml", "parts/one.sha256", "parts/one.txt", "maps/one.bin", "summary.txt",
    }  # fmt: skip
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "parts/one.sha256"], cwd=folder.path, check=False
    )
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["parts/one.txt", "maps/one.bin"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_seen_and_reported(tmp_path: Path, name: str, damage: str) -> None:
    path = opened(tmp_path / "run").path
    assert directory_of(path).finished("parts/one")
    (path / name).write_bytes(DAMAGES[damage]((path / name).read_bytes()))
    with pytest.warns(UserWarning, match=rf"{name}: is damaged.*parts/one"):
        assert not directory_of(path).finished("parts/one")


@pytest.mark.parametrize("name", ["parts/one.txt", "maps/one.bin", "parts/one.sha256"])
def test_a_unit_without_one_of_its_files_is_not_finished(tmp_path: Path, name: str) -> None:
    path = opened(tmp_path / "run").path
    (path / name).unlink()
    assert not directory_of(path).finished("parts/one")


@pytest.mark.parametrize("damage", ["emptied", "cut", "zeros"])
def test_a_damaged_list_counts_for_nothing(tmp_path: Path, damage: str) -> None:
    path = opened(tmp_path / "run").path
    file = path / "parts" / "one.sha256"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert not directory_of(path).finished("parts/one")


@pytest.mark.parametrize("name", ["../thesis.txt", "/etc/passwd", "a/../../thesis.txt"])
def test_a_list_names_nothing_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "list.sha256").write_text(f"{'0' * 64}  {name}\n")
    assert listed(tmp_path / "list.sha256") == {}


def test_what_a_unit_no_longer_has_is_removed(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    folder.write("parts/one", {"parts/one.txt": b"3"})
    assert not (folder.path / "maps").exists()
    assert folder.finished("parts/one")


def test_only_our_own_files_are_replaced(tmp_path: Path) -> None:
    path = opened(tmp_path / "run").path
    ours = set(tree(path))
    for name in ("parts/thesis.txt", "maps/labels.txt", "thesis.txt", "notes/a.sha256"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("mine")
    with pytest.raises(ValueError, match="a is 1 there, 2 here"):
        opened(path, "a = 2\n")
    assert (path / "maps/one.bin").exists()
    folder = directory_of(path)
    with folder.opened("a = 2\n", overwrite=True):
        left = {name for name in tree(path) if not is_temporary(Path(name))} - {"config.toml"}
        assert left == {"parts/thesis.txt", "maps/labels.txt", "thesis.txt", "notes/a.sha256"}
    opened(path, "a = 2\n")
    assert set(tree(path)) == ours | left


def test_a_configuration_never_stands_above_results_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = opened(tmp_path / "run").path

    def killed(file: Path, data: bytes) -> None:
        raise SystemExit

    monkeypatch.setattr(directory, "write_atomically", killed)
    with pytest.raises(SystemExit):
        opened(path, "a = 2\n", overwrite=True)
    assert list(tree(path)) == ["config.toml"]
    assert "a = 1" in (path / "config.toml").read_text()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name", ["thesis.txt", "config.toml", "parts/one.txt", "parts/one.sha256", "summary.txt"]
)
def test_folders_of_others_are_not_written_into(tmp_path: Path, name: str, overwrite: bool) -> None:
    (tmp_path / "run" / "parts").mkdir(parents=True)
    (tmp_path / "run" / name).write_text("a = 1\n")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="expected a new or empty folder, or one that experiment"):
        opened(tmp_path / "run", overwrite=overwrite)
    assert tree(tmp_path) == before


def test_the_results_of_another_command_are_not_replaced(tmp_path: Path) -> None:
    path = opened(tmp_path / "run").path
    with pytest.raises(ValueError, match="did not write"):  # noqa: SIM117
        with RunDirectory(path, "other", Plan).opened("a = 1\n", overwrite=True):
            pass


def test_what_a_killed_start_leaves_blocks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    for name in (LOCK, ".moreaugrad-01234567.partial"):
        (path / name).write_bytes(b"half")
    opened(path)
    assert not list(path.glob(".*"))


def test_a_refused_start_leaves_no_folder(tmp_path: Path) -> None:
    folder = directory_of(tmp_path / "a" / "b")
    with folder.opened("a = 1\n", overwrite=False):
        folder.discard()
    assert not (tmp_path / "a").exists()


def test_a_second_writer_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(ValueError, match=rf"process {os.getpid()} on "):  # noqa: SIM117
        with only_writer(tmp_path):
            pass
    with only_writer(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from moreaugrad.files.atomic import only_writer\n"
        "with only_writer(Path(sys.argv[1])): os._exit(9)"
    )
    environment = os.environ | {"PYTHONPATH": SEARCHED}
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment)
    assert killed.returncode == 9
    assert (tmp_path / LOCK).exists()
    with only_writer(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_temporary_files_are_found_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[Path] = []

    def dies(self: Path, target: Path) -> None:
        names.append(self)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dies)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            write_atomically(tmp_path / "map.png", b"x")
    mine = tmp_path / ".moreaugrad-notes.partial"
    mine.write_text("mine")
    assert names[0].exists()
    remove_partial(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.bmp")
    return folder


COMMANDS = {
    "explain": ["explain", "--method", "simple-gradient"],
    "certify": ["certify", "--sigma", "0.5", "--noise-samples", "128"],
    "evaluate": ["evaluate", "--methods", "simple-gradient", "--metrics", "gini"],
    "sanity": ["sanity", "--images", "2", "--metrics", "spearman", "--seeds", "0"],
}


def command(name: str, images: Path, out: Path, *more: str) -> list[str]:
    given = [str(images)] if name in ("explain", "certify") else ["--data", str(images)]
    return [
        *COMMANDS[name],
        *given,
        "--model",
        "tiny_models:smooth",
        "-q",
        *more,
        "--out",
        str(out),
    ]


def untimed(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without the page, which shows clock times, and those times."""
    return {n: d for n, d in files.items() if not n.startswith(("index", "times/"))}


@pytest.mark.parametrize("name", COMMANDS)
def test_other_content_of_the_same_size_is_another_run(
    name: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "run", images / "1.bmp"
    assert run(command(name, images, out)) == 0
    before = tree(out)
    assert run(command(name, images, out)) == 0
    data, times = bytearray(file.read_bytes()), file.stat()
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run(command(name, images, out)) == 2
    assert "data.digest is" in " ".join(capsys.readouterr().err.split())
    assert untimed(tree(out)) == untimed(before)
    assert run(command(name, images, out, "--overwrite")) == 0
    assert not list(out.rglob(".*"))


def test_other_weights_are_another_run(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(command("explain", images, out)) == 0
    other = ["tiny_models:normalised" if word == "tiny_models:smooth" else word
             for word in command("explain", images, out)]  # fmt: skip
    assert run(other) == 2
    assert "model.digest is" in " ".join(capsys.readouterr().err.split())


def test_files_in_an_inputs_folder_stay(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(command("explain", images, out)) == 0
    (out / "inputs/0/thesis.txt").write_text("mine")
    more = ["--score", "probability", "--overwrite"]
    assert run([*command("explain", images / "1.bmp", out), *more]) == 0
    assert [path.name for path in (out / "inputs/0").iterdir()] == ["thesis.txt"]


def test_a_map_that_is_not_finite_is_a_failure(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("explain", "evaluate"):
        words = command(name, images, tmp_path / name)
        words[words.index("tiny_models:smooth")] = "tiny_models:endless"
        assert run([*words, "--json"]) == 1
        told = capsys.readouterr()
        assert '"complete": false' in told.out
        assert "not finite" in told.out


def test_kills_end_in_the_same_bytes() -> None:
    """A few kills of two commands; all: `python -m benchmarks.kills`."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kills", "--sample", "3", "explain --overwrite", "train"],
        env=os.environ | {"PYTHONPATH": SEARCHED}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
