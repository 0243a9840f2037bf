"""Methods that draw baselines from the images of a run."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import moreaugrad as mg
from moreaugrad.cli.entry import run
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.common import ComputePlan, DataPlan, ModelPlan

METHOD = "expected-gradients"
Command = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def done(*words: str) -> tuple[int, str]:
        code = run([*words, "--method", METHOD, "--noise-samples", "4"])
        return code, capsys.readouterr().err

    return done


def explain(*words: str, photos: str = "photos", model: str = "smooth") -> list[str]:
    return ["explain", photos, "--model", f"tiny_models:{model}", "--out", "out", *words]


def settings(out: str = "out") -> dict[str, Any]:
    config = tomllib.loads(Path(out, "config.toml").read_text(encoding="utf-8"))
    found: dict[str, Any] = config["methods"][METHOD]
    return found


def test_they_are_drawn_from_the_images_of_the_run(command: Command) -> None:
    code, shown = command(*explain())
    assert (code, "note" in shown) == (0, False)
    assert settings()["baselines"] == "inputs"
    network = Network.load(ModelPlan(name="tiny_models:smooth"), ComputePlan())
    x = torch.cat(Inputs.open(DataPlan(files=("photos",)), 0, network).few(network, 3))
    explainer = mg.ExpectedGradients(network.model.module, baselines=x, samples=4)
    for row in range(3):
        found = load_file(f"out/inputs/{row}/{METHOD}.safetensors")["map"]
        torch.testing.assert_close(found, explainer.attribute(x[row : row + 1])[0])
    record = json.loads(Path("out/inputs/0/record.json").read_text(encoding="utf-8"))
    assert "given" not in json.dumps(record)
    # The configuration gives the same again.
    words = ["explain", "--config", "out/config.toml", "--trust", "--out", "again"]
    assert run(words) == 0
    assert settings("again") == settings()


def test_one_image_is_compared_with_a_number_and_a_note_says_so(command: Command) -> None:
    code, shown = command(*explain(photos="photos/0.png"))
    assert code == 0
    assert "note" in shown
    assert "one image" in shown
    assert settings()["baselines"] == 0.0


def test_a_number_is_kept(command: Command) -> None:
    assert command(*explain("--set", "baselines=0.5"))[0] == 0
    assert settings()["baselines"] == 0.5


@pytest.mark.filterwarnings("ignore:.*does not say how images are preprocessed")
@pytest.mark.parametrize("photos", ["photos/0.png", "photos"])
def test_images_to_draw_from_have_one_shape(command: Command, photos: str) -> None:
    Image.new("RGB", (44, 30), "red").save("photos/wide.png")
    given = explain("--set", "baselines=inputs", photos=photos, model="plain")
    code, shown = command(*given)
    assert code == 2
    assert "baselines" in shown
    assert "at least two images" in shown
    assert "Traceback" not in shown


def test_sanity_and_attacks_keep_the_baselines(command: Command) -> None:
    code, _ = command("sanity", "photos", "--model", "tiny_models:smooth", "--out", "sane",
                      "--seeds", "1", "--metrics", "cosine")  # fmt: skip
    assert code == 0
    assert settings("sane")["baselines"] == "inputs"
    code, shown = command(
        *("evaluate", "photos", "--model", "tiny_models:kinked", "--out", "run"),
        *("--epsilons", "1", "--attack", "top-k:steps=1,count=5,surrogate=5"),
    )
    assert code == 0, shown
    assert settings("run")["baselines"] == "inputs"
