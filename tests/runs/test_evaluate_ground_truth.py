"""Metrics against a truth, over data that have one."""

import json
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from moreaugrad.cli.entry import run
from moreaugrad.data.cells import Cells
from moreaugrad.data.dataset import choose_images, known_classes
from moreaugrad.data.layouts import open_dataset
from moreaugrad.data.source import CELL_SEEDS
from moreaugrad.data.writing import write_cells
from moreaugrad.metrics import auroc, five_band, gaze_overlap
from moreaugrad.models import load_model

METRICS = "auroc,five-band-recall,binary-precision,gaze-overlap,gini"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells") / "data"
    write_cells(folder, counts={"test": 12}, size=64)
    return folder


@pytest.mark.parametrize("command", ["evaluate", "sanity", "visualise", "explain"])
def test_another_size_keeps_the_normalisation(cells: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / "run"
    given = {
        "evaluate": ["--data", str(cells), "--images", "1", "--metrics", "gini",
                     "--methods", "simple-gradient"],
        "sanity": ["--data", str(cells), "--images", "1", "--seeds", "0",
                   "--modes", "independent", "--methods", "simple-gradient"],
        "visualise": ["--classes", "0", "--set", "steps=1"],
        "explain": [str(next((cells / "test").rglob("*.png"))), "--method", "simple-gradient"],
    }  # fmt: skip
    assert run([command, *given[command], "--model", "builtin", "--resize", "48", "--crop", "48",
                "-q", "--out", str(out)]) == 0  # fmt: skip
    told = tomllib.loads((out / "config.toml").read_text())["model"]["preprocess"]
    assert (told["resize"], told["crop"], told["mean"]) == (48, 48, [0.3] * 3)


def test_classes_are_found_by_name(cells: Path) -> None:
    """Where the network has the names of the folders, their order does not matter."""
    backwards = load_model("builtin").labels[::-1]
    data = open_dataset(cells, split="test")
    drawn = choose_images(data)
    assert known_classes(choose_images(data, labels=backwards)) == [
        backwards.index(one.item.label) for one in drawn
    ]
    name = drawn[0].item.label
    lacking = [f"other {label}" if label == name else label for label in backwards]
    words = rf"knows only \d of the data's classes.*not {name}"
    with pytest.warns(UserWarning, match=words):
        assert choose_images(data, labels=lacking) == drawn
    with pytest.warns(UserWarning, match="knows none of the data's classes"):
        assert choose_images(data, labels=[f"other {number}" for number in range(10)]) == drawn


@pytest.mark.parametrize("size", [None, (64, 48)])
def test_true_maps_are_those_of_the_images(
    cells: Path, tmp_path: Path, size: tuple[int, int] | None
) -> None:
    """One is broken, or has another size than its image."""
    out = tmp_path / "run"
    broken = min((cells / "maps" / "test").rglob("*.png"))
    kept = broken.read_bytes()
    broken.write_bytes(b"no picture")
    if size is not None:
        Image.new("L", size, 255).save(broken)
    try:
        code = run(["evaluate", "--data", str(cells), "--split", "test", "--model", "builtin",
                    "--methods", "simple-gradient", "--metrics", METRICS, "--target", "label",
                    "--attack", "gaussian:over=sigma,epsilons=[0.1]", "-q",
                    "--out", str(out)])  # fmt: skip
    finally:
        broken.write_bytes(kept)
    assert code == 0
    records = [
        json.loads(line)
        for file in sorted((out / "methods" / "simple-gradient").glob("*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    maps: dict[str, torch.Tensor] = {}
    for file in (out / "methods" / "simple-gradient").glob("*.safetensors"):
        maps |= load_file(file)
    source = Cells(size=64, seed=CELL_SEEDS["test"], count=12)
    checked = 0
    for record in records:
        number = int(Path(record["input"]).stem)
        truth, found = source[number][2][None], record["metrics"]
        attacked = record["attack"] != "clean"
        name = "gaussian/0.1" if attacked else "clean"
        one = maps[f"{record['index']}/{name}/map"][None]
        assert found["gini"] is not None
        if record["input"] == broken.relative_to(cells).as_posix().removeprefix("maps/"):
            assert found["auroc"] is None
            continue
        empty = source.label(number) == 9
        assert (found["five-band-recall"] is None) == empty
        if not empty:
            magnitude = one.abs().sum(1)
            recall = five_band(one.sum(1), truth, measure="recall")
            assert found["five-band-recall"] == pytest.approx(recall.item())
            assert found["auroc"] == pytest.approx(auroc(magnitude, truth > 0.7).item())
            overlap = gaze_overlap(magnitude, truth)
            assert found["gaze-overlap"] == pytest.approx(overlap.item(), abs=1e-6)
            checked += 1
    assert checked > 10
    assert run(["report", str(out), "--out", str(tmp_path / "page")]) == 0
