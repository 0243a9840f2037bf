"""The built-in classifiers: right on cells they have never seen, smooth, small, reproducible."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import benchmarks.command
import pytest
import torch
from safetensors import safe_open
from torch import nn

from moreaugrad.cli.entry import run
from moreaugrad.data.cells import CLASS_NAMES, FEATURE, Cells
from moreaugrad.metrics import auroc, average_precision, gini
from moreaugrad.models import load_model
from moreaugrad.models.sources import SIZE, WEIGHTS

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model():
    return load_model("builtin")


@pytest.fixture(scope="module")
def fresh():
    """Pictures, labels, and what tells their class."""
    cells = Cells(size=SIZE, seed=987654321)
    images, labels, truth = zip(*(cells[index] for index in range(400)), strict=True)
    return torch.stack(images), torch.tensor(labels), torch.stack(truth) == FEATURE


def as_input(model, images):
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (model.preprocess.mean, model.preprocess.std)
    )
    return (images - mean) / std


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.97), (0.1, 0.95)])
@pytest.mark.parametrize("name", WEIGHTS)
def test_fresh_cells_are_recognised(fresh, name, noise, least):
    model, (images, labels, _) = load_model(name), fresh
    drawn = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.module(as_input(model, images + noise * drawn)).argmax(1)
    assert float((found == labels).float().mean()) >= least


def test_the_gradient_of_the_elastic_net_is_sparser_and_nearer_to_the_truth(fresh):
    images, _, feature = fresh
    known = feature.flatten(1).any(1)

    def worth(name):
        model = load_model(name)
        x = as_input(model, images).requires_grad_()
        found = torch.autograd.grad(model.module(x).max(1).values.sum(), x)[0]
        size = found.abs().sum(1)[known]
        scores = (gini(found), auroc(size, feature[known]), average_precision(size, feature[known]))
        return [float(values.nanmean()) for values in scores]

    before, after = worth("builtin"), worth("builtin-elastic-net")
    assert after[0] > before[0] + 0.1
    assert after[1] > before[1] + 0.02
    assert after[2] > before[2] + 0.02


def test_preprocessing_and_labels(model):
    from PIL import Image

    image, label, _ = Cells(size=SIZE, seed=2)[61]
    pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
    x = model.preprocess(Image.fromarray(pixels))
    assert x.shape == (3, SIZE, SIZE)
    torch.testing.assert_close(
        model.preprocess.pixels(x), image.permute(1, 2, 0), atol=0.5 / 255 + 1e-6, rtol=0
    )
    with torch.no_grad():
        assert int(model.module(x[None]).argmax()) == label
    assert model.labels == CLASS_NAMES


def test_the_network_is_smooth_and_couples_no_samples(model):
    kinked = (nn.ReLU, nn.LeakyReLU, nn.MaxPool2d, nn.modules.batchnorm._BatchNorm)
    assert not any(isinstance(layer, kinked) for layer in model.module.modules())
    module = load_model("builtin", dtype=torch.float64).module
    x = torch.randn(3, 3, SIZE, SIZE, dtype=torch.float64)
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))
    # Away from kinks a second difference of the gradient shrinks with its step; at one it grows.
    v = torch.randn_like(x[:1])
    v = v / v.norm()

    def gradient(t):
        at = (x[:1] + t * v).requires_grad_()
        return torch.autograd.grad(module(at)[0, 0], at)[0]

    sizes = [float((gradient(t) - 2 * gradient(0) + gradient(-t)).norm()) for t in (1e-1, 1e-2)]
    assert sizes[1] < sizes[0] / 50


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_file_is_small_and_says_how_it_was_made(name):
    assert WEIGHTS[name].stat().st_size < 1.5e6
    with safe_open(WEIGHTS[name], "pt") as file:
        metadata = file.metadata()
    assert float(metadata.get("accuracy", metadata.get("validation_accuracy"))) > 0.95
    settings = json.loads(metadata["settings"])
    assert (settings["data"]["count"] if "data" in settings else settings["train_count"]) > 0


def test_the_script_that_trains_on_runs(tmp_path, monkeypatch, capsys):
    out = tmp_path / "w.safetensors"
    words = ["train_elastic_net", "--out", str(out), "--runs", str(tmp_path / "runs"),
             "--count", "88", "--epochs", "1", "--fresh", "16"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", words)
    # Its trainings in this process: each import of torch takes as long as one of them.
    monkeypatch.setattr(benchmarks.command, "moreaugrad", lambda *words: run(list(words)))
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("benchmarks.train_elastic_net", run_name="__main__")
    assert not ended.value.code
    assert "| elastic-net |" in capsys.readouterr().out
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["settings"])["protocol"]["penalty"] == "elastic-net"
    module = load_model("builtin", weights=out).module
    before = load_model("builtin").module.state_dict()
    moved = [not torch.equal(value, before[name]) for name, value in module.state_dict().items()]
    assert all(moved)


def test_the_training_script_runs(tmp_path):
    out = tmp_path / "w.safetensors"
    command = [
        sys.executable, str(REPOSITORY / "benchmarks" / "train_builtin.py"), "--out", str(out),
        "--train-count", "128", "--validation-count", "32", "--epochs", "1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
    module = load_model("builtin", weights=out).module
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
