"""The top-k attack on a real network and real pictures."""

import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from moreaugrad import SimpleGradient
from moreaugrad.attacks import PublishedTopKAttack, RandomSearch, TopKAttack
from moreaugrad.models import LoadedModel, load_model
from moreaugrad.score.inputs import InputSpace

pytestmark = pytest.mark.data


def pictures(folder: Path, loaded: LoadedModel, count: int = 4) -> Tensor:
    with zipfile.ZipFile(folder / "cifar10-jpeg.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.startswith("test/") and n[-4:] == ".jpg")
        step = len(names) // count
        images = [Image.open(BytesIO(archive.read(name))) for name in names[::step][:count]]
        return torch.stack([loaded.preprocess(image) for image in images])


def overlap(clean: Tensor, other: Tensor) -> Tensor:
    """Share of the largest two fifths of entries that are still among them."""
    a, b = clean.flatten(1).abs(), other.flatten(1).abs()
    k = int(0.4 * a.shape[1])
    inside = torch.zeros_like(a).scatter_(1, a.topk(k, dim=1).indices, 1.0)
    return inside.gather(1, b.topk(k, dim=1).indices).mean(1)


def test_gradients_beat_the_released_attack_and_chance(data_folder: Path) -> None:
    loaded = load_model("benchmarks.cifar_resnet:resnet20_softplus")
    x, preprocess = pictures(data_folder, loaded), loaded.preprocess
    space = InputSpace(mean=preprocess.mean, std=preprocess.std)
    explainer = SimpleGradient(loaded.module)
    settings = {"epsilon": 0.5, "units": "pixel", "space": space}
    kept = {}
    for attack in (
        TopKAttack(explainer, steps=20, **settings),
        PublishedTopKAttack(explainer, **settings),
        RandomSearch(explainer, steps=30, **settings),
    ):
        found = attack.attack(x)
        assert found.ok
        assert bool((found.distance <= 0.5 + 1e-5).all())
        assert torch.equal(found.attacked.prediction, found.clean.prediction)
        pixels = found.inputs * torch.tensor(preprocess.std).view(3, 1, 1)
        pixels = pixels + torch.tensor(preprocess.mean).view(3, 1, 1)
        assert float(pixels.min()) > -1e-6
        assert float(pixels.max()) < 1 + 1e-6
        kept[attack.name] = float(overlap(found.clean.maps, found.attacked.maps).mean())
    assert kept["top-k"] < 0.7
    assert kept["top-k"] < kept["published-top-k"] - 0.02
    assert kept["published-top-k"] < kept["random-search"] - 0.1
