"""The networks and inputs that are measured on, from the folder named by MOREAUGRAD_DATA."""

from __future__ import annotations

import copy
import hashlib
import importlib
import io
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.cache import digest_of
from benchmarks.cifar_resnet import SMOOTH_WEIGHTS
from benchmarks.context import CPU
from moreaugrad.data.images import load_image
from moreaugrad.models import LoadedModel, Preprocess, load_model, optimise

T = TypeVar("T")

VARIABLE = "MOREAUGRAD_DATA"
LARGER = 16
"""Rows at once on an accelerator, over those on a CPU."""
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
    layer: str | None = None
    """The module whose output is explained, for inputs that have no gradient."""

    def inputs(self, names: Sequence[str]) -> Tensor:
        """On the network's device."""
        return torch.stack([self.input(name) for name in names]).to(self.device)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def input(self, name: str) -> Tensor:
        return self.preprocess(self.read(name))

    def reduced(self, dtype: torch.dtype) -> nn.Module:
        """The fast network in another precision."""
        return copy.deepcopy(self.fast).to(dtype)

    def predictions(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return self.fast(inputs).argmax(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded(Subject):
    """A network whose inputs are not images."""

    tensor: Callable[[str], Tensor]

    def input(self, name: str) -> Tensor:
        return self.tensor(name)


def fast(module: nn.Module, example: Tensor) -> nn.Module:
    """Batch normalisation folded, weights channels-last: the quickest exact passes."""
    return optimise(module, example).model


def load(name: str, device: torch.device = CPU) -> Subject:
    """A network on a device, where it computes more rows at once than on a CPU."""
    found = _load(name)
    if device == CPU:
        return found
    fast = copy.deepcopy(found.fast).to(device)
    return replace(found, module=found.module.to(device), fast=fast, chunk=LARGER * found.chunk)


def _load(name: str) -> Subject:
    """`squeezenet`, `mobilenetv2` (ImageNet photos); `resnet20`, `resnet20-softplus`, `vit-gelu`,
    `vit-relu` (CIFAR-10); `kws` (spoken words), `bytes` (files)."""
    folder = data_folder()
    if name in PHOTO_NETWORKS:
        return _of_photos(folder, name)
    if name.startswith("vit-"):
        kind = name.removeprefix("vit-")
        model = with_modules_in(folder / "models", lambda: load_model(f"vit_cifar10:{kind}"))
        weights = folder / "models" / f"vit-cifar10-{kind}.safetensors"
        return _of_cifar10(folder, name, model, weights)
    if name in OTHERS:
        return OTHERS[name](folder)
    weights = {
        "resnet20": folder / "models" / "resnet20-cifar10.safetensors",
        "resnet20-softplus": SMOOTH_WEIGHTS,
    }[name]
    model = load_model(f"benchmarks.cifar_resnet:{name.replace('-', '_')}", weights)
    return _of_cifar10(folder, name, model, weights)


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
        model = with_modules_in(folder / "models", lambda: load_model(f"{name}:imagenet"))
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


def with_modules_in(folder: Path, work: Callable[[], T]) -> T:
    """The result of work with modules in a folder that is not on the Python path."""
    sys.path.append(str(folder))
    try:
        return work()
    finally:
        sys.path.remove(str(folder))


def _of_cifar10(folder: Path, name: str, model: LoadedModel, weights: Path) -> Subject:
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


def _spoken_words(folder: Path) -> Subject:
    """Two recordings of one second, each begun at twelve places."""
    kws = with_modules_in(folder / "models", lambda: importlib.import_module("kws_res8"))
    words = {word: kws.read_wav(folder / "sounds" / f"{word}_1000ms.wav") for word in ("yes", "no")}
    shifts = range(-1100, 1300, 200)  # in 16000ths of a second

    def tensor(name: str) -> Tensor:
        word, shift = name.split()
        return words[word].roll(int(shift))

    names = [f"{word} {shift}" for word in words for shift in shifts]
    weights = folder / "models" / "kws-res8.safetensors"
    return _recorded("kws", kws.network(), weights, names, tensor, chunk=64)


def _files(folder: Path) -> Subject:
    """Files of this folder, by what they contain."""
    magika = with_modules_in(folder / "models", lambda: importlib.import_module("bytes_magika"))
    here = Path(__file__).parent
    found = sorted(file.name for file in here.iterdir() if file.suffix == ".py")

    def tensor(name: str) -> Tensor:
        read: Tensor = magika.read_bytes((here / name).read_bytes())
        return read

    weights = folder / "models" / "bytes-magika.safetensors"
    return _recorded("bytes", magika.network(), weights, found, tensor, chunk=16, layer="embed")


OTHERS = {"kws": _spoken_words, "bytes": _files}


def _recorded(
    name: str,
    module: nn.Module,
    weights: Path,
    names: list[str],
    tensor: Callable[[str], Tensor],
    chunk: int,
    layer: str | None = None,
) -> Subject:
    def read(_: str) -> Image.Image:
        raise TypeError(f"the inputs of {name} are no images")

    return Recorded(
        name=name, module=module, fast=module, weights=digest_of(weights), layer=layer,
        preprocess=Preprocess(), labels=(), names=_shuffled(names), read=read, tensor=tensor,
        chunk=chunk, published_steps=300,
    )  # fmt: skip


def _shuffled(names: list[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest()))
