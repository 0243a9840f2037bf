"""Networks whose outputs are not finite, or are a single number."""

import json
from pathlib import Path

import pytest

NETWORKS = """
import torch
from torch import nn
from moreaugrad.models import LoadedModel, Preprocess

class Broken(nn.Module):
    def forward(self, x):
        means = x.mean((2, 3))
        return means / 0 * 0

def broken():
    return LoadedModel(module=Broken(), preprocess=Preprocess(), labels=("dot", "stripe", "blank"))

def single():
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.SiLU(), nn.Flatten(), nn.LazyLinear(1))
    module(torch.zeros(1, 3, 8, 8))
    return LoadedModel(module=module.eval(), preprocess=Preprocess(resize=8, crop=8))
"""


@pytest.fixture
def networks(photos, tmp_path, monkeypatch):
    (tmp_path / "odd_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    return photos


@pytest.mark.parametrize(
    "words",
    [
        ["explain", "one.png", "--methods", "simple-gradient"],
        ["explain", "one.png", "--methods", "simple-gradient", "--maps-as", "float16"],
        ["evaluate", "--data", "data", "--methods", "simple-gradient"],
        ["certify", "one.png", "--sigma", "0.1", "--noise-samples", "128"],
        ["visualise", "--classes", "0", "--set", "steps=2", "--crop", "8"],
    ],
)
def test_outputs_that_are_not_finite_are_reported(command, networks, words):
    done = command(*words, "--model", "odd_networks:broken", "--out", "results")
    assert done.code in (1, 2), done
    assert "finite" in done.err
    assert "MOREAUGRAD_TRACEBACK" not in done.err


def test_a_network_of_one_output_is_visualised_as_two_classes(command, networks):
    words = ["--model", "odd_networks:single", "--set", "steps=2", "--out", "results", "--json"]
    done = command("visualise", *words)
    assert done.code == 0, done
    records = [
        json.loads(path.read_text()) for path in sorted(Path("results").glob("images/*.json"))
    ]
    first, second = [record["probability"][0] for record in records]
    assert 0 < first < 1
    assert 0 < second < 1
