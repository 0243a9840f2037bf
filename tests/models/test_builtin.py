"""The built-in classifier: right on cells it has never seen, smooth, small, and reproducible."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from moreaugrad.data.cells import CLASS_NAMES, Cells
from moreaugrad.models import load_model
from moreaugrad.models.builtin import SIZE, WEIGHTS

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model():
    return load_model("builtin")


def answers(model, cells, count, noise=0.0):
    images, labels = zip(*(cells[index][:2] for index in range(count)), strict=True)
    x = torch.stack(images)
    x = x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (model.preprocess.mean, model.preprocess.std)
    )
    with torch.no_grad():
        return model.module((x - mean) / std).argmax(1), torch.tensor(labels)


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.97), (0.1, 0.95)])
def test_fresh_cells_are_recognised(model, noise, least):
    found, truth = answers(model, Cells(size=SIZE, seed=987654321), 400, noise)
    assert float((found == truth).float().mean()) >= least


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


def test_the_file_is_small_and_says_how_it_was_made():
    assert WEIGHTS.stat().st_size < 1.5e6
    with safe_open(WEIGHTS, "pt") as file:
        metadata = file.metadata()
    assert float(metadata["validation_accuracy"]) > 0.95
    assert json.loads(metadata["settings"])["train_count"] > 0


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
