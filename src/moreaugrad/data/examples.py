"""Labelled pictures to train on: data sets on disk and synthetic cells, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreaugrad.data.augment import Pixels, keyed
from moreaugrad.data.dataset import DataSet, Item
from moreaugrad.data.images import eight_bits
from moreaugrad.data.source import CELLS, TRAIN, open_source
from moreaugrad.score.noise import KEYS

SPLIT = KEYS + 1
"""The key of a split's draws; examples have the ids below, and their order has KEYS."""

IMAGENETTE = {
    "n01440764": (0, "tench"),
    "n02102040": (217, "English springer"),
    "n02979186": (482, "cassette player"),
    "n03000684": (491, "chain saw"),
    "n03028079": (497, "church"),
    "n03394916": (566, "French horn"),
    "n03417042": (569, "garbage truck"),
    "n03425413": (571, "gas pump"),
    "n03445777": (574, "golf ball"),
    "n03888257": (701, "parachute"),
}
"""ImageNet's index and name of Imagenette's ten classes by WordNet number."""


class Examples(ABC):
    """Pictures with a class each and, in some sets, a map of where attention belongs.

    name: what the set is called. classes: names, in the order of the labels. labels: `[N]`, int64.
    ids: `[N]`, the place of each example in the whole set that this may be a part of.
    outputs: the output of an ImageNet network for each class, where all of them are known.
    has_attention: whether `attention` gives maps.
    """

    name: str
    classes: tuple[str, ...]
    labels: Tensor
    ids: Tensor
    outputs: tuple[int, ...] | None = None
    has_attention: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def pixels(self, index: int) -> Pixels:
        """The picture, `[H, W, 3]`, and its attention map, `[H, W]`, or None in a set without.

        Both are uint8, and only to be read. Errors: ValueError, naming the file, for what cannot
        be read.
        """

    @abstractmethod
    def describe(self, index: int) -> str:
        """What a message calls the example: the name of its file."""

    def digest(self, index: int) -> str:
        """Of the content of its files, where it has files; empty for what is made on the way."""
        return ""

    def subset(self, indices: Iterable[int]) -> Examples:
        """These examples alone, in this order; classes and ids stay as they are."""
        return Subset(self, indices)


class Subset(Examples):
    """Some of a set's examples."""

    def __init__(self, whole: Examples, indices: Iterable[int]) -> None:
        self.whole, self.indices = whole, [int(index) for index in indices]
        outside = [index for index in self.indices if not 0 <= index < len(whole)]
        if outside:
            raise ValueError(
                f"indices: expected numbers from 0 to {len(whole) - 1}, got {outside[0]}"
            )
        self.name, self.classes, self.outputs = whole.name, whole.classes, whole.outputs
        self.labels, self.ids = whole.labels[self.indices], whole.ids[self.indices]
        self.has_attention = whole.has_attention

    def pixels(self, index: int) -> Pixels:
        return self.whole.pixels(self.indices[index])

    def describe(self, index: int) -> str:
        return self.whole.describe(self.indices[index])

    def digest(self, index: int) -> str:
        return self.whole.digest(self.indices[index])


class Pictures(Examples):
    """The pictures of a data set on disk, and their attention maps where there are such files."""

    def __init__(self, data: DataSet, name: str, classes: Sequence[str] | None = None) -> None:
        self.data, self.name = data, name
        self.classes, labels = _labelled(data, name, classes or data.classes)
        self.labels, self.ids = torch.tensor(labels, dtype=torch.int64), torch.arange(len(labels))
        self.outputs = _imagenet_outputs(data, self.labels)
        self.has_attention = any(item.attention for item in data.items)

    def pixels(self, index: int) -> Pixels:
        item = self.data.items[index]
        picture, attention = self.data.load(item), self.data.load_attention(item)
        return np.asarray(eight_bits(picture)), None if attention is None else np.asarray(attention)

    def describe(self, index: int) -> str:
        return self.data.items[index].name

    def digest(self, index: int) -> str:
        return self.data.digest(self.data.items[index])


def open_examples(
    source: str | Path, *, classes: Sequence[str] | None = None, split: str = TRAIN, **how: Any
) -> Examples:
    """The labelled images of `open_source`.

    classes: those of the training set, in order, for a part that must not have others; by default
    all that are found, in the order of their indices, or else of their names.
    Errors: ValueError also for an image without a class or of none of `classes`.
    """
    data = open_source(source, split=split, **how)
    return Pictures(data, CELLS if source == CELLS else Path(source).name, classes)


def _labelled(
    data: DataSet, name: str, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], list[int]]:
    """Names of the classes in order, and each item's place among them."""
    unlabelled = [item for item in data.items if not item.label and item.index is None]
    if unlabelled:
        raise ValueError(
            f"{name}: expected a class for every picture (a folder for each of two classes or "
            f"more, or one of the known layouts), but {len(unlabelled)} have none, "
            f"{unlabelled[0].name} the first"
        )
    if classes is not None:
        places = {label: place for place, label in enumerate(classes)}
        found = [class_name(item) for item in data.items]
        strange = [
            item for item, label in zip(data.items, found, strict=True) if label not in places
        ]
        if strange:
            raise ValueError(
                f"{strange[0].name}: expected one of the {len(places)} classes "
                f"({', '.join(list(places)[:4])}, ...), got {class_name(strange[0])!r}; "
                f"{len(strange)} pictures are of none of them"
            )
        return tuple(classes), [places[label] for label in found]
    keys = [_key(item) for item in data.items]
    order = {key: place for place, key in enumerate(sorted(set(keys)))}
    names = {key: class_name(item) for key, item in zip(keys, data.items, strict=True)}
    return tuple(names[key] for key in order), [order[key] for key in keys]


def _key(item: Item) -> tuple[int, str]:
    """What classes are told apart and sorted by."""
    return (-1 if item.index is None else item.index, item.label)


def class_name(item: Item) -> str:
    """What the item's class is called; its index where it has no name."""
    return IMAGENETTE[item.label][1] if item.label in IMAGENETTE else item.label or str(item.index)


def _imagenet_outputs(data: DataSet, labels: Tensor) -> tuple[int, ...] | None:
    if data.layout not in ("imagenet", "listed"):
        return None
    known = {
        label: item.index if item.index is not None else IMAGENETTE.get(item.label, (None,))[0]
        for label, item in zip(labels.tolist(), data.items, strict=True)
    }
    outputs = [known[label] for label in sorted(known)]
    return None if None in outputs else tuple(output for output in outputs if output is not None)


def split_off(examples: Examples, share: float, seed: int = 0) -> tuple[Examples, Examples]:
    """The examples without, and with, this share of every class, chosen by the seed.

    Of each class round(share n), at least one and not all, so that both parts know it.
    Errors: ValueError for a share outside of (0, 1) and a class of one example.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: expected a number between 0 and 1, got {share}")
    rest, off = [], []
    for label in sorted(set(examples.labels.tolist())):
        members = (examples.labels == label).nonzero().flatten().tolist()
        if len(members) < 2:
            raise ValueError(
                f"expected at least two pictures of each class, one to train on and one to "
                f"validate, but {examples.classes[label]!r} has {len(members)}"
            )
        taken = min(max(round(share * len(members)), 1), len(members) - 1)
        shuffled = keyed(seed, label, SPLIT).permutation(members).tolist()
        off += shuffled[:taken]
        rest += shuffled[taken:]
    return examples.subset(sorted(rest)), examples.subset(sorted(off))
