"""Activation maximisation as a run."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import tiny_models
from moreaugrad.cli.entry import run
from moreaugrad.explainers.feature_visualisation import Ascent, activation_maximisation
from moreaugrad.pictures import read_settings
from moreaugrad.reports.studies import study_page
from moreaugrad.score.inputs import InputSpace


def command(out: Path, *more: str) -> list[str]:
    return ["visualise", "--model", "tiny_models:smooth", "--set", "steps=10", "--set",
            "decay=0.1", "--seed", "3", "-q", *more, "--out", str(out)]  # fmt: skip


def test_images_are_those_of_the_function(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(command(out, "--classes", "dot,3", "--images", "2")) == 0
    names = {f"class-000{c}-{n}.png" for c in (1, 3) for n in (0, 1)}
    assert {path.name for path in (out / "images").glob("*.png")} == names
    model = tiny_models.smooth()
    space = InputSpace(mean=(0.5,) * 3, std=(0.25,) * 3)
    how = Ascent(steps=10, decay=0.1, seed=3)
    expected = activation_maximisation(model.module, [1, 1], (3, 16, 16), space=space, ascent=how)
    kept = load_file(out / "images" / "class-0001.safetensors")["pixels"]
    assert kept.numpy() == pytest.approx(expected.pixels.numpy(), abs=1e-4)
    shown = np.asarray(Image.open(out / "images" / "class-0001-1.png").convert("RGB"))
    assert shown / 255 == pytest.approx(kept[1].permute(1, 2, 0).numpy(), abs=0.51 / 255 + 1e-4)
    assert read_settings(out / "images" / "class-0001-1.png")["label"] == "dot"
    found = json.loads((out / "results.json").read_text())["classes"]
    assert [record["label"] for record in found] == ["dot", "cross"]
    for record in found:
        assert np.all(np.array(record["after"]) > np.array(record["before"]))
    assert "![dot, 1](images/class-0001-0.png)" in (out / "table.md").read_text()
    page = study_page(out)
    titles = [section.title for section in page.sections]
    assert titles == ["dot, 1", "dot, 2", "cross, 1", "cross, 2"]
    assert len(page.tables[0].rows) == 4


def test_images_raised_apart_are_the_same(tmp_path: Path) -> None:
    words = ["--classes", "1", "--images", "3", "--batch-size"]
    for size in ("1", "3"):
        assert run(command(tmp_path / size, *words, size)) == 0
    one, together = (
        load_file(tmp_path / size / "images" / "class-0001.safetensors")["pixels"]
        for size in ("1", "3")
    )
    assert one.numpy() == pytest.approx(together.numpy(), abs=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--classes", "9"], "classes: expected indices from 0 to 3, got 9"),
        (["--classes", "dott"], "did you mean 'dot'"),
        (["--set", "step=0"], "step: expected"),
        (["--set", "stepps=3"], "there is no such setting; did you mean 'steps'"),
        (["--images", "0"], "images: expected at least 1"),
        (["--score", "logits"], "score: expected one of logit"),
        (["--target", "dott"], "did you mean 'dot'"),
        (["--batch-size", "0"], "--batch-size: expected"),
    ],
)
def test_bad_runs_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert run(command(tmp_path / "run", *more)) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_an_estimate_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert run([*command(out, "--images", "2"), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [cost["key"] for cost in found["costs"]] == list(tiny_models.LABELS)
    assert (found["inputs"], found["evaluations"]) == (8, 8 * 10)
    assert found["seconds"] > 0
    assert not out.exists()
