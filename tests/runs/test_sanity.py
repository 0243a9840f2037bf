"""Weight randomisation as a run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_models
from moreaugrad import SimpleGradient
from moreaugrad.cli.entry import run
from moreaugrad.metrics import randomisation
from moreaugrad.metrics.sanity import layers as randomisation_layers
from moreaugrad.reports.studies import Findings
from moreaugrad.runs import studies
from toys import last


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for label in ("stripe", "dot"):
        (folder / label).mkdir()
        for number in range(3):
            pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def command(images: Path, out: Path, *more: str) -> list[str]:
    return last(
        ["sanity", "--data", str(images), "--model", "tiny_models:normalised", "--seeds", "0,1",
         "--methods", "simple-gradient,smoothgrad", "--set", "smoothgrad.samples=4", "-q", *more,
         "--out", str(out)]
    )  # fmt: skip


def test_records_are_those_of_the_function(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(command(images, out, "--target", "1")) == 0
    assert {path.stem for path in (out / "records").glob("*.json")} == {
        "simple-gradient-cascading", "simple-gradient-independent",
        "smoothgrad-cascading", "smoothgrad-independent",
    }  # fmt: skip
    record = json.loads((out / "records" / "simple-gradient-cascading.json").read_text())
    model = tiny_models.normalised()
    files = sorted(images.rglob("*.png"), key=lambda path: (path.parent.name, path.name))
    x = torch.stack([model.preprocess(Image.open(file)) for file in files])
    target = torch.ones(6, dtype=torch.long)
    found = randomisation(model.module, SimpleGradient, x, target, seeds=(0, 1))
    assert record["blocks"] == list(found.blocks)
    assert np.array(record["similarity"]["ssim"]) == pytest.approx(
        found.similarity["ssim"].numpy(), abs=1e-5
    )
    results = json.loads((out / "results.json").read_text())
    row = next(r for r in results["similarity"] if r["metric"] == "ssim")
    assert row["mean"] == pytest.approx(float(found.similarity["ssim"][:, 0].mean()), abs=1e-5)
    assert (row["defined"], row["undefined"]) == (12, 0)
    tables = Findings.read(out).tables
    assert [table.title for table in tables[2:]] == [
        "smoothgrad, cascading", "smoothgrad, independent",
    ]  # fmt: skip
    assert tables[0].rows[-1][0] == found.blocks[-1]
    assert f"| {found.blocks[-1]} |" in (out / "table.md").read_text()
    before = (out / "results.json").read_bytes()
    (out / "records" / "smoothgrad-cascading.json").unlink()
    assert run(command(images, out, "--target", "1")) == 0
    assert (out / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--modes", "sideways"], "modes: expected one of cascading, independent"),
        (["--metrics", "gini"], "metrics: expected one of normalised-distance"),
        (["--blocks", "9"], "blocks: expected one of"),
        (["--set", "smoothgrad.sample=3"], "sample"),
        (["--seeds", "0,x"], "--seeds: expected whole numbers"),
    ],
)
def test_bad_runs_are_refused(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    more: list[str], message: str,
) -> None:  # fmt: skip
    assert run(command(images, tmp_path / "run", *more)) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_interrupted_run_resumes_to_the_same_bytes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    whole, out, modes = tmp_path / "whole", tmp_path / "run", []
    assert run(command(images, whole)) == 0

    def counted(*given: Any, **named: Any) -> Any:
        modes.append(named["mode"])
        if len(modes) == 3:
            raise KeyboardInterrupt
        return randomisation(*given, **named)

    monkeypatch.setattr(studies, "randomisation", counted)
    assert run([*command(images, out), "--json"]) == 130
    found = json.loads(capsys.readouterr().out)
    assert (found["finished"], found["units"]) == (2, 4)
    assert {row["mode"] for row in found["similarity"]} == {"cascading", "independent"}
    assert run(command(images, out)) == 0
    assert len(modes) == 5
    assert tree(out) == tree(whole)


def test_cells_and_named_files(images: Path, tmp_path: Path) -> None:
    few = ["--modes", "cascading", "--seeds", "0", "-q", "--target"]
    cells = ["--data", "cells", "--images", "3", "--model", "builtin", "--blocks", "head"]
    assert run(["sanity", *cells, *few, "label", "--out", str(tmp_path / "cells")]) == 0
    files = [str(images / "dot"), "--model", "tiny_models:normalised"]
    assert run(["sanity", *files, *few, "dot", "--out", str(tmp_path / "files")]) == 0
    for name in ("cells", "files"):
        assert json.loads((tmp_path / name / "results.json").read_text())["images"] == 3


def test_the_only_image_is_named_where_it_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n")
    command = ["sanity", str(tmp_path / "cut.png"), "--model", "tiny_models:normalised", "-q"]
    assert run([*command, "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert "cut.png" in message
    assert "1 of 1" not in message


def test_unreadable_images_are_left_out(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(images, folder)
    (folder / "dot" / "1.png").write_bytes(b"none")
    words = command(folder, tmp_path / "run", "--modes", "cascading")
    assert run([*words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [failure["input"] for failure in found["failures"]] == ["dot/1.png"]
    assert (found["images"], found["unreadable"]) == (5, 1)
    (folder / "dot" / "2.png").write_bytes(b"none")
    assert run(command(folder, tmp_path / "other")) == 2
    assert "2 of 6 images cannot be read" in " ".join(capsys.readouterr().err.split())


def test_where_the_data_lie_is_no_setting(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, moved = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(images, moved)
    assert run(command(images, out)) == 0
    before = (out / "results.json").read_bytes()
    assert run(command(moved, out)) == 0
    assert (out / "results.json").read_bytes() == before
    Image.new("RGB", (16, 16)).save(moved / "dot" / "1.png")
    assert run(command(moved, out)) == 2
    assert "data.digest is" in " ".join(capsys.readouterr().err.split())


def test_an_estimate_writes_nothing(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run([*command(images, out), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = tiny_models.normalised()
    blocks = len(randomisation_layers(model.module, torch.zeros(1, 3, 16, 16)))
    # The network itself, and two copies for each block; twice, cascading and independent.
    maps = 6 * (1 + 2 * blocks)
    counts = {cost["key"]: (cost["maps"], cost["evaluations"]) for cost in found["costs"]}
    assert counts["simple-gradient-cascading"] == (maps, 1)
    assert counts["smoothgrad-independent"] == (maps, 4)
    assert found["evaluations"] == 2 * maps * (1 + 4)
    assert not out.exists()
