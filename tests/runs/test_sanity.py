"""Weight randomisation as a run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_models
from moreaugrad import SimpleGradient
from moreaugrad.cli.entry import run
from moreaugrad.metrics import randomisation
from moreaugrad.metrics.sanity import layers as randomisation_layers


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for label in ("stripe", "dot"):
        (folder / label).mkdir()
        for number in range(3):
            pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def command(pictures: Path, out: Path, *more: str) -> list[str]:
    return ["sanity", "--data", str(pictures), "--model", "tiny_models:normalised", "--seeds",
            "0,1", "--methods", "simple-gradient,smoothgrad", "--set", "smoothgrad.samples=4",
            "-q", *more, "--out", str(out)]  # fmt: skip


def test_records_are_those_of_the_function(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(command(pictures, out, "--target", "1")) == 0
    assert {path.stem for path in (out / "records").iterdir()} == {
        "simple-gradient-cascading", "simple-gradient-independent",
        "smoothgrad-cascading", "smoothgrad-independent",
    }  # fmt: skip
    record = json.loads((out / "records" / "simple-gradient-cascading.json").read_text())
    model = tiny_models.normalised()
    files = sorted(pictures.rglob("*.png"), key=lambda path: (path.parent.name, path.name))
    x = torch.stack([model.preprocess(Image.open(file)) for file in files])
    target = torch.ones(6, dtype=torch.long)
    found = randomisation(model.module, SimpleGradient, x, target, seeds=(0, 1))
    assert record["blocks"] == list(found.blocks)
    assert np.array(record["similarity"]["ssim"]) == pytest.approx(
        found.similarity["ssim"].numpy(), abs=1e-5
    )
    results = json.loads((out / "results.json").read_text())
    row = next(r for r in results["likeness"] if r["metric"] == "ssim")
    assert row["mean"] == pytest.approx(float(found.similarity["ssim"][:, 0].mean()), abs=1e-5)
    assert (row["defined"], row["undefined"]) == (12, 0)
    table = (out / "table.md").read_text()
    assert "## smoothgrad, independent" in table
    assert f"| {found.blocks[-1]} |" in table
    before = (out / "results.json").read_bytes()
    (out / "records" / "smoothgrad-cascading.json").unlink()
    assert run(command(pictures, out, "--target", "1")) == 0
    assert (out / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--modes", "sideways"], "modes: expected one of cascading, independent"),
        (["--metrics", "gini"], "metrics: expected one of normalised-distance"),
        (["--blocks", "9"], "block: expected one of"),
        (["--set", "smoothgrad.sample=3"], "sample"),
    ],
)
def test_bad_runs_are_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    more: list[str], message: str,
) -> None:  # fmt: skip
    assert run(command(pictures, tmp_path / "run", *more)) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_where_the_data_lie_is_no_setting(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, moved = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(pictures, moved)
    assert run(command(pictures, out)) == 0
    before = (out / "results.json").read_bytes()
    assert run(command(moved, out)) == 0
    assert (out / "results.json").read_bytes() == before
    Image.new("RGB", (16, 16)).save(moved / "dot" / "1.png")
    assert run(command(moved, out)) == 2
    assert "files is" in " ".join(capsys.readouterr().err.split())


def test_an_estimate_writes_nothing(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run([*command(pictures, out), "--dry-run", "--json"]) == 0
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
