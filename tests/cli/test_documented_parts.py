"""The parts of `docs/adding-a-part.md`, as written there: in Python, in commands, in TOML."""

import ast
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import moreaugrad as mg
import tiny_models

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-part.md"
KEPT = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
MODEL = ("--model", "tiny_models:smooth")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The page's imports and definitions as `mine.py` of the working folder, with two classes of
    images next to it."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    nodes = [node for block in blocks for node in ast.parse(block).body]
    assigned = [
        node for node in nodes if isinstance(node, ast.Assign) and "PARTS" in ast.dump(node)
    ]
    module = "\n\n".join(ast.unparse(n) for n in nodes if isinstance(n, KEPT) or n in assigned)
    (tmp_path / "mine.py").write_text(f"import moreaugrad as mg\n{module}\n", "utf-8")
    generator = np.random.default_rng(0)
    for label in ("stripe", "dot"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(3):
            pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("mine", None)


def records(folder, label):
    files = sorted(Path(folder, "methods", label).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def test_in_python(mine):
    model, x = tiny_models.smooth().module, torch.rand(2, 3, 16, 16)
    clipped = mg.build("mine:ClippedGradient", model, fraction=0.05)
    plain = mg.SimpleGradient(model).attribute(x)
    maps = clipped.explain(x)
    assert 0 < maps.maps.abs().max() < plain.abs().max()
    penalty = mg.penalties.build("mine:WithMore", 0.05)
    exact = mg.Moreau(model, sigma=0, penalty=penalty)
    for explainer in (clipped, exact):
        pulled = explainer.vjp(explainer.explain(x), torch.ones_like(x))
        assert pulled.shape == x.shape
        assert pulled.isfinite().all()
        attack = mg.attacks.build("mine:FirstHalfAttack", explainer, epsilon=0.5, steps=3)
        found = attack.attack(x)
        assert (found.after <= found.before).all()
    metric = mg.metrics.build("mine:largest_fraction")
    assert torch.equal(metric(torch.tensor([[1.0, -3.0]])), torch.tensor([0.75]).double())
    protocol = mg.training.build("mine:RandomLength", penalty=mg.L1(0.02))
    (step,) = protocol.rounds(model, x, torch.tensor([0, 1]))
    assert step.loss.shape == (2,)


def test_explain(command, mine):
    done = command("explain", "photos", *MODEL, "--method", "mine:ClippedGradient", "--set",
                   "fraction=0.05", "--out", "maps")  # fmt: skip
    assert done.code == 0, done
    assert all(r["map"]["ok"] for r in records("maps", "ClippedGradient"))
    done = command("explain", "photos", *MODEL, "--method", "moreau", "--sigma", "0", "--set",
                   "penalty=mine:EuclideanNorm 0.05", "--out", "shrunk")  # fmt: skip
    assert done.code == 0, done


def test_evaluate(command, mine):
    done = command("evaluate", "--data", "photos", *MODEL, "--methods",
                   "simple-gradient,mine:ClippedGradient", "--metrics",
                   "normalised-distance,mine:largest_fraction", "--attack",
                   "mine:FirstHalfAttack:steps=3", "--epsilons", "0.5", "--out", "run")  # fmt: skip
    assert done.code == 0, done
    attacked = [r for r in records("run", "ClippedGradient") if r["attack"] == "FirstHalfAttack"]
    assert len(attacked) == 6
    for record in attacked:
        assert 0 < record["metrics"]["largest_fraction"] <= 1
    assert command("report", "run", "--out", "page").code == 0
    assert "FirstHalfAttack" in Path("page/index.html").read_text("utf-8")


def test_train(command, mine):
    done = command("train", "--data", "photos", *MODEL, "--protocol", "mine:RandomLength",
                   "--penalty", "mine:EuclideanNorm", "--epsilon", "0.5", "--epochs", "1",
                   "--batch-size", "2", "--validation", "0.4", "--out", "trained")  # fmt: skip
    assert done.code == 0, done
    assert "mine:EuclideanNorm" in Path("trained/config.toml").read_text("utf-8")


def test_a_layout(command, mine):
    for part in ("pets/images", "pets/annotations"):
        Path(part).mkdir(parents=True)
    for number, (name, part) in enumerate((("stripe_1", "trainval"), ("dot_2", "test"))):
        Image.new("RGB", (16, 16), (9, 60 * number, 200)).save(f"pets/images/{name}.jpg")
        Path(f"pets/annotations/{part}.txt").write_text(f"{name} {number + 1} 1 2\n")
    done = command("evaluate", "--data", "pets", "--layout", "mine:read_pets", *MODEL, "--methods",
                   "simple-gradient", "--out", "run")  # fmt: skip
    assert done.code == 0, done
    assert [r["input"] for r in records("run", "simple-gradient")] == ["images/dot_2.jpg"]


@pytest.mark.filterwarnings("ignore:.*straight-through")
def test_in_a_configuration(command, mine):
    Path("job.toml").write_text(
        """
        [data]
        source = "photos"
        [model]
        name = "tiny_models:smooth"
        [methods.clipped]
        method = "mine:ClippedGradient"
        fraction = 0.05
        [methods.shrunk]
        method = "moreau"
        penalty = "mine:EuclideanNorm 0.05"
        sigma = 0.0
        [metrics.largest]
        metric = "mine:largest_fraction"
        [attacks.half]
        attack = "mine:FirstHalfAttack"
        steps = 3
        epsilons = [0.5]
        """,
        "utf-8",
    )
    words = ("evaluate", "--config", "job.toml", "--out", "run")
    command(*words).refused("--trust")
    assert not Path("run").exists()
    assert command(*words, "--trust").code == 0
    for label in ("clipped", "shrunk"):
        half = [r for r in records("run", label) if r["attack"] == "half"]
        assert len(half) == 6
        assert all(0 < r["metrics"]["largest"] <= 1 for r in half)
