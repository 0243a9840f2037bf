"""The networks and images that are measured on, from the folder named by MOREAUGRAD_DATA."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.cache import digest_of
from benchmarks.cifar_resnet import SMOOTH_WEIGHTS
from moreaugrad.data.images import load_image
from moreaugrad.models import LoadedModel, Preprocess, load_model, optimise

VARIABLE = "MOREAUGRAD_DATA"
PHOTO_NETWORKS = {
    "squeezenet": "squeezenet1_0-imagenet.safetensors",
    "mobilenetv2": "mobilenetv2-imagenet.safetensors",
}
"""Networks for ImageNet, and their weights in the data folder."""


class MissingData(Exception):
    """The data folder is not there; what needs it is skipped."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A network as published (`module`) and as it is fast on a CPU (`fast`), and images.

    `names` is in an order fixed by hashes, so that the first few are a fair sample of them all.
    """

    name: str
    module: nn.Module
    fast: nn.Module
    weights: str
    preprocess: Preprocess
    labels: tuple[str, ...]
    names: tuple[str, ...]
    read: Callable[[str], Image.Image]
    chunk: int
    published_steps: int

    def inputs(self, names: Sequence[str]) -> Tensor:
        return torch.stack([self.preprocess(self.read(name)) for name in names])

    def reduced(self, dtype: torch.dtype) -> nn.Module:
        """The fast network in another precision."""
        return copy.deepcopy(self.fast).to(dtype)

    def predictions(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return self.fast(inputs).argmax(1)


def fast(module: nn.Module, example: Tensor) -> nn.Module:
    """Batch normalisation folded, weights channels-last: the quickest exact passes."""
    return optimise(module, example).model


def load(name: str) -> Subject:
    """`squeezenet`, `mobilenetv2` (ImageNet photos), `resnet20`, `resnet20-softplus` (CIFAR-10)."""
    folder = data_folder()
    if name in PHOTO_NETWORKS:
        return _of_photos(folder, name)
    weights = {
        "resnet20": folder / "models" / "resnet20-cifar10.safetensors",
        "resnet20-softplus": SMOOTH_WEIGHTS,
    }[name]
    return _resnet20(folder, name, weights)


def data_folder() -> Path:
    found = os.environ.get(VARIABLE)
    if not found:
        raise MissingData(f"{VARIABLE} is not set: it names the folder of models and images")
    folder = Path(found)
    if not folder.is_dir():
        raise MissingData(f"{VARIABLE} names {folder}, which is not a folder")
    return folder


def _of_photos(folder: Path, name: str) -> Subject:
    weights = folder / "models" / PHOTO_NETWORKS[name]
    if name == "squeezenet":
        model = load_model("torchvision:squeezenet1_0", weights, folder / "imagenet-classes.txt")
    else:
        model = _from(folder / "models", f"{name}:imagenet")
    photos = folder / "imagenet-sample"
    return Subject(
        name=name,
        module=model.module,
        fast=fast(model.module, torch.zeros(2, 3, 224, 224)),
        weights=digest_of(weights),
        preprocess=model.preprocess,
        labels=model.labels or (),
        names=_shuffled([file.name for file in photos.glob("*.JPEG")]),
        read=lambda name: load_image(photos / name),
        chunk=16,
        published_steps=200,
    )


def _from(folder: Path, factory: str) -> LoadedModel:
    """A network whose module is in a folder that is not on the Python path."""
    sys.path.append(str(folder))
    try:
        return load_model(factory)
    finally:
        sys.path.remove(str(folder))


def _resnet20(folder: Path, name: str, weights: Path) -> Subject:
    model = load_model(f"benchmarks.cifar_resnet:{name.replace('-', '_')}", weights)
    archive = zipfile.ZipFile(folder / "cifar10-jpeg.zip")
    names = [
        name for name in archive.namelist() if name.startswith("test/") and name[-4:] == ".jpg"
    ]
    return Subject(
        name=name,
        module=model.module,
        fast=fast(model.module, torch.zeros(2, 3, 32, 32)),
        weights=digest_of(weights),
        preprocess=model.preprocess,
        labels=model.labels or (),
        names=_shuffled(names),
        read=lambda name: Image.open(io.BytesIO(archive.read(name))).convert("RGB"),
        chunk=128,
        published_steps=300,
    )


def _shuffled(names: list[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest()))
