"""Labelled images to train on, from any data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreaugrad.data.augment import Pixels, keyed
from moreaugrad.data.dataset import IMAGENETTE, DataSet, Item
from moreaugrad.data.images import eight_bits
from moreaugrad.data.source import CELLS, TRAIN, open_source
from moreaugrad.score.noise import KEYS
from moreaugrad.settings import expect

SPLIT = KEYS + 1
"""Keys the random numbers of a split. Ids of examples are below KEYS, which keys their order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Images with a class each and, in some data sets, a map of where attention belongs.

    name: of the data set. classes: names of the classes, in the order of the labels.
    labels: `[N]`, int64. ids: `[N]`, int64, the place of each example in the whole data set, of
    which this may be a part.
    read, title, content: functions of an id, see `pixels`, `describe` and `digest`.
    outputs: the output of an ImageNet network for each class, if all of them are known.
    has_attention: whether `pixels` returns maps.
    unreadable: messages for the images that `prepare` left out.

    >>> examples = mg.data.open_examples("cells", size=32, count=8)
    >>> image, attention = examples.pixels(0)
    """

    name: str
    classes: tuple[str, ...]
    labels: Tensor
    ids: Tensor
    read: Callable[[int], Pixels]
    title: Callable[[int], str]
    content: Callable[[int], str]
    outputs: tuple[int, ...] | None = None
    has_attention: bool = False
    unreadable: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: DataSet, name: str, classes: Sequence[str] | None = None) -> Examples:
        """All images of a data set; the arguments are those of `open_examples`."""
        names, labels = _labelled(data, name, classes or data.classes)
        return cls(
            name=name,
            classes=names,
            labels=torch.tensor(labels, dtype=torch.int64),
            ids=torch.arange(len(labels)),
            read=partial(_read, data),
            title=partial(_title, data),
            content=partial(_content, data),
            outputs=_imagenet_outputs(data, labels, len(names)),
            has_attention=any(item.attention for item in data.items),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, index: int) -> Pixels:
        """The image `[H, W, 3]` and its attention map `[H, W]` (None if there are none), uint8.

        Do not write to them. Errors: ValueError that names the file, if it cannot be read.
        """
        return self.read(int(self.ids[index]))

    def describe(self, index: int) -> str:
        """The name of the example in messages: that of its file."""
        return self.title(int(self.ids[index]))

    def digest(self, index: int) -> str:
        """A digest of the content of its files; for synthetic images, of their settings."""
        return self.content(int(self.ids[index]))

    def subset(self, indices: Iterable[int]) -> Examples:
        """These examples in this order; classes and ids stay the same. Errors: ValueError."""
        rows = [int(index) for index in indices]
        for row in rows:
            expect(0 <= row < len(self), "indices", f"numbers from 0 to {len(self) - 1}", row)
        return replace(self, labels=self.labels[rows], ids=self.ids[rows])


def open_examples(
    source: str | Path, *, classes: Sequence[str] | None = None, split: str = TRAIN, **how: Any
) -> Examples:
    """The labelled images of a data set, see `open_source` for the arguments.

    classes: names of the classes in order; an image of another class is an error. By default all
    classes of the images, in the order of their indices, or else of their names.
    Errors: ValueError as in `open_source`, and for an image without a class.
    """
    data = open_source(source, split=split, **how)
    return Examples.of(data, CELLS if source == CELLS else Path(source).name, classes)


def split_off(examples: Examples, fraction: float, seed: int = 0) -> tuple[Examples, Examples]:
    """Split off a fraction of each class; returns the rest and what was split off.

    Of a class of n examples round(fraction n) are drawn by the seed, at least one and not all.
    Errors: ValueError for a fraction outside of (0, 1) and for a class of one example.

    >>> examples = mg.data.open_examples("cells", size=32, count=100)
    >>> training, validation = mg.data.split_off(examples, 0.1)
    """
    expect(0 < fraction < 1, "fraction", "a number between 0 and 1", fraction)
    rest, off = [], []
    for label in sorted(set(examples.labels.tolist())):
        members = (examples.labels == label).nonzero().flatten().tolist()
        if len(members) < 2:
            raise ValueError(
                f"expected at least two images of each class, one to train on and one to "
                f"validate, but {examples.classes[label]!r} has {len(members)}"
            )
        taken = min(max(round(fraction * len(members)), 1), len(members) - 1)
        shuffled = keyed(seed, label, SPLIT).permutation(members).tolist()
        off += shuffled[:taken]
        rest += shuffled[taken:]
    return examples.subset(sorted(rest)), examples.subset(sorted(off))


def _read(data: DataSet, place: int) -> Pixels:
    item = data.items[place]
    image, attention = data.load(item), data.load_attention(item)
    return np.asarray(eight_bits(image)), None if attention is None else np.asarray(attention)


def _title(data: DataSet, place: int) -> str:
    return data.items[place].name


def _content(data: DataSet, place: int) -> str:
    return data.digest(data.items[place])


def _labelled(
    data: DataSet, name: str, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], list[int]]:
    """Names of the classes in order, and each item's place among them."""
    unlabelled = [item for item in data.items if not item.label and item.index is None]
    if unlabelled:
        raise ValueError(
            f"{name}: expected a class for every image (a folder for each of two classes or "
            f"more, or one of the known layouts), but {len(unlabelled)} have none; the first is "
            f"{unlabelled[0].name}"
        )
    if classes is not None:
        places = {label: place for place, label in enumerate(classes)}
        other = [item for item in data.items if item.class_name not in places]
        if other:
            raise ValueError(
                f"{other[0].name}: expected one of the {len(places)} classes "
                f"({', '.join(list(places)[:4])}, ...), got {other[0].class_name!r}; "
                f"{len(other)} images have another class"
            )
        return tuple(classes), [places[item.class_name] for item in data.items]
    names = {_key(item): item.class_name for item in data.items}
    order = {key: place for place, key in enumerate(sorted(names))}
    return tuple(names[key] for key in order), [order[_key(item)] for item in data.items]


def _key(item: Item) -> tuple[int, str]:
    """Identifies the item's class, and sorts it by index or else by name."""
    return (-1 if item.index is None else item.index, item.label)


def _imagenet_outputs(data: DataSet, labels: Sequence[int], classes: int) -> tuple[int, ...] | None:
    if data.layout not in ("imagenet", "listed"):
        return None
    known = {
        label: item.index if item.index is not None else IMAGENETTE.get(item.label, (None,))[0]
        for label, item in zip(labels, data.items, strict=True)
    }
    outputs = [known[label] for label in sorted(known)]
    if None in outputs or len(outputs) < classes:  # a class without images has no known output
        return None
    return tuple(output for output in outputs if output is not None)
