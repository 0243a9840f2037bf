"""What every command's run has: a report, tables, and the same bytes however often it was killed
and however many processes share it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreaugrad.cli.entry import run
from moreaugrad.runs.directory import RunDirectory
from processes import ended, run_killed, run_shared, start, tree

MODEL = ["--model", "tiny_models:smooth", "--threads", "1"]
SET = ["--data", "{data}", *MODEL]
STUDY = ["--training", "{data}/../train/config.toml", "--trust", "--seeds", "0,1", "--images", "2"]
COMMANDS = {
    "explain": ["explain", "{data}/val", *MODEL, "--method", "smoothgrad", "--noise-samples", "4",
                "--block", "1", "--export", "npy,csv"],
    "compare": ["compare", "{data}/val", *MODEL, "--methods", "simple-gradient,smoothgrad",
                "--block", "1", "--compare-with", "tiny_models:flat"],
    "sweep": ["sweep", "{data}/val", *MODEL, "--method", "sparse-moreaugrad-plain",
              "--max-evaluations", "40", "--over", "eta", "--values", "0,0.01"],
    "certify": ["certify", "{data}/val/dot", *MODEL, "--sigma", "0.5", "--noise-samples", "128",
                "--radii", "0.1,0.2"],
    "evaluate": ["evaluate", *SET, "--methods", "simple-gradient,smoothgrad", "--block", "1",
                 "--noise-samples", "4", "--attack", "gaussian", "--epsilons", "1",
                 "--metrics", "gini,normalised-distance"],
    "recommend": ["recommend", *SET, "--methods", "simple-gradient,smoothgrad", "--sigmas", ".2",
                  "--noise-samples", "4", "--attack-steps", "1", "--images", "2", "--block", "1",
                  "--time", "1h"],
    "train": ["train", *SET, "--test-split", "val", "--from-scratch", "--epochs", "2", "--size",
              "16", "--batch-size", "2", "--shards", "2"],
    "sanity": ["sanity", *SET, "--methods", "simple-gradient,smoothgrad", "--noise-samples", "2",
               "--metrics", "spearman", "--seeds", "0"],
    "visualise": ["visualise", *MODEL, "--set", "steps=2"],
    "retrain diffroar": ["retrain", "diffroar", "{data}/../train", "--trust", "--levels", ".5",
                         "--seeds", "0,1"],
    "retrain stability": ["retrain", "stability", *STUDY, "--exchanged", "0,.5"],
    "retrain labels": ["retrain", "labels", *STUDY],
}  # fmt: skip
"""A small run of each command, of several units."""
MAPS = ["explain", "compare", "sweep", "evaluate"]
UNKEPT = re.compile(r"^times/|^index\.|^events/|^recommendation\.|\.moreaugrad\.lock$")
"""What has clock times in it, such as the page, and the lock."""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, three images each to train on and two to look at."""
    folder = tmp_path_factory.mktemp("every") / "data"
    generator = np.random.default_rng(1)
    for part, count in (("train", 3), ("val", 2)):
        for label in ("stripe", "dot"):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / label / f"{number}.png")
    return folder


def command(name: str, data: Path, out: Path) -> list[str]:
    return [word.replace("{data}", str(data)) for word in COMMANDS[name]] + [
        "-q",
        "--out",
        str(out),
    ]


class Finished(dict[str, Path]):
    """The folder of each command's run, made when it is asked for."""

    def __init__(self, data: Path) -> None:
        super().__init__()
        self.data = data

    def __missing__(self, name: str) -> Path:
        if name.startswith("retrain"):
            self["train"]
        out = self.data.parent / name.replace(" ", "-")
        assert run(command(name, self.data, out)) == 0
        self[name] = out
        return out


@pytest.fixture(scope="session")
def finished(data: Path) -> Finished:
    return Finished(data)


def kept(folder: Path) -> dict[str, bytes]:
    return {name: found for name, found in tree(folder).items() if not UNKEPT.search(name)}


def test_every_command_is_here() -> None:
    from moreaugrad.cli.commands import COMMANDS as ALL

    assert {*COMMANDS, "report"} == {*ALL}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_but_evaluate_writes_its_page(finished: Finished, name: str) -> None:
    """An evaluation's page is a report, of several perhaps."""
    page = finished[name] / "index.html"
    assert page.is_file() == (name != "evaluate")
    if page.is_file():
        assert "<h1>" in page.read_text(encoding="utf-8")


# Killed, and shared

KILLED = [name for name in COMMANDS if name not in ("evaluate", "train")]
"""The others have tests of their own."""
SHARED = ["explain", "compare", "sweep", "certify", "recommend", "sanity", "visualise"]


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_run_resumes_to_the_same_bytes(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plain, out = finished[name], finished.data.parent / f"{name} killed"
    units = sorted(plain.rglob("*.sha256"), key=lambda file: file.stat().st_mtime_ns)
    before = [file.relative_to(plain).as_posix() for file in units[: len(units) // 2 + 1]]
    run_killed(command(name, finished.data, out), tmp_path / "errors", f"{out.name}/{before[-1]}")
    left = {file for file in tree(out) if file.endswith(".sha256")}
    assert {file for file in left if not file.startswith("training/")} == {*before[:-1]}
    real, again = RunDirectory.write, []

    def write(self: RunDirectory, stem: str, *given: object, **named: object) -> None:
        again.append((self.path / f"{stem}.sha256").relative_to(out).as_posix())
        real(self, stem, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(RunDirectory, "write", write)
    assert run(command(name, finished.data, out)) == 0
    assert kept(out) == kept(plain)
    assert before[-1] in again
    assert not {*before[:-1]} & {*again}, "a finished unit was computed again"
    assert (out / "index.html").exists() == (plain / "index.html").exists()


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_make_the_same_bytes(finished: Finished, tmp_path: Path, name: str) -> None:
    plain, out = finished[name], finished.data.parent / f"{name} shared"
    run_shared(command(name, finished.data, out), tmp_path / "errors")
    assert kept(out) == kept(plain)


@pytest.mark.parametrize("name", ["explain", "certify", "recommend", "retrain diffroar"])
def test_two_commands_make_the_same_bytes(finished: Finished, tmp_path: Path, name: str) -> None:
    plain, out = finished[name], finished.data.parent / f"{name} by two"
    errors = tmp_path / "errors"
    for process in [start(command(name, finished.data, out), errors) for _ in range(2)]:
        ended(process, errors, 0)
    assert kept(out) == kept(plain)


# Tables

TABLES = [*MAPS, "certify", "sanity", "retrain stability", "retrain labels"]


@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_read_as_it_is(finished: Finished, name: str) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(finished[name] / "records.csv")
    assert len(table) > 1
    assert not [column for column in table if column.startswith("Unnamed")]
    if name not in MAPS:
        column = "overlap" if name == "certify" else "mean"
        assert table[column].dtype == float
        return
    maps = [record for file in (finished[name] / "methods").rglob("*.jsonl")
            for record in map(json.loads, file.read_text("utf-8").splitlines())]  # fmt: skip
    assert len(table) == len(maps)
    key = ["index", "method", "attack", "epsilon"]
    read = table[key].astype(object).where(table[key].notna(), None)
    assert {tuple(row) for row in read.values.tolist()} == {
        tuple(record[name] for name in key) for record in maps
    }
    assert table["map.ok"].dtype == bool
    assert table["map.evaluations"].dtype == int
    assert table["metrics.gini"].dtype == table["epsilon"].dtype == float
    assert table.loc[table["attack"] == "clean", "epsilon"].isna().all()


NAMES = ["a, b", 'say "x"', "two\nlines", "old\rmac", "semi;colon\ttab", "ümlaut", "'=1+1"]


def test_names_of_any_kind_stay_in_their_cells(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    (tmp_path / "images").mkdir()
    for name in NAMES:
        Image.new("RGB", (16, 16)).save(tmp_path / "images" / f"{name}.png")
    out = tmp_path / "out"
    words = ["explain", str(tmp_path / "images"), *MODEL, "--method", "simple-gradient", "-q"]
    assert run([*words, "--out", str(out)]) == 0
    table = pandas.read_csv(out / "records.csv")
    assert set(table["input"]) == {f"{name}.png" for name in NAMES}
    assert table["metrics.gini"].dtype == float


def test_the_table_is_there_as_parquet_too(finished: Finished) -> None:
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    for name in TABLES:
        columns = pandas.read_parquet(finished[name] / "records.parquet")
        lines = pandas.read_csv(finished[name] / "records.csv")
        assert list(columns) == list(lines)
        assert len(columns) == len(lines)
        for column in lines:
            if lines[column].dtype == float:
                assert np.array_equal(columns[column].astype(float), lines[column], equal_nan=True)


# Reports


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_of_any_command_has_a_page(finished: Finished, tmp_path: Path, name: str) -> None:
    out = tmp_path / "page"
    assert run(["report", str(finished[name]), "-q", "--out", str(out)]) == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<h1" in page
    assert "smooth" in page
    assert "Traceback" not in page


def test_runs_of_maps_go_on_one_page_together(finished: Finished, tmp_path: Path) -> None:
    runs = [str(finished[name]) for name in MAPS]
    assert run(["report", *runs, "-q", "--out", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert all(name in page for name in MAPS)


def test_other_runs_go_on_pages_alone(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(finished[name]) for name in ("explain", "certify")]
    assert run(["report", *runs, "--out", str(tmp_path / "page")]) == 2
    assert "certify: expected it alone" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("name", MAPS)
def test_an_unfinished_run_has_a_page_that_says_so(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    left = tmp_path / "left"
    shutil.copytree(finished[name], left)
    sorted((left / "methods").rglob("*.sha256"))[-1].unlink()
    assert run(["report", str(left), "--out", str(tmp_path / "page")]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "note: left is not complete" in told
    assert "left out" not in told
    assert (tmp_path / "page" / "index.html").is_file()


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]", '{"tables": [1]}', None])
@pytest.mark.parametrize("name", ["certify", "visualise"])
def test_a_damaged_study_is_refused_in_one_line(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str,
    damage: str | None,
) -> None:  # fmt: skip
    left = tmp_path / "left"
    shutil.copytree(finished[name], left)
    if damage is None:
        (left / "tables.json").unlink()
    else:
        (left / "tables.json").write_text(damage)
    assert run(["report", str(left), "--out", str(tmp_path / "page")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "tables.json" in told
    assert "TRACEBACK" not in told


@pytest.mark.parametrize("damage", [b"no image", None])
def test_a_lost_image_of_a_study_is_named(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes | None
) -> None:
    left = tmp_path / "left"
    shutil.copytree(finished["visualise"], left)
    image = left / "images" / "class-0001-0.png"
    image.unlink() if damage is None else image.write_bytes(damage)
    assert run(["report", str(left), "--out", str(tmp_path / "page")]) == 2
    assert "class-0001-0.png: expected an image" in " ".join(capsys.readouterr().err.split())
