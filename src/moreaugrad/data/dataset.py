"""Data sets: images with a name each and, in some, a class and a map of where attention belongs."""

from __future__ import annotations

import hashlib
import re
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from moreaugrad.data.images import Picture, decode_grey, decode_image
from moreaugrad.data.tree import Tree
from moreaugrad.settings import expect

if TYPE_CHECKING:
    from PIL.Image import Image

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
"""ImageNet's index and name of the ten classes of Imagenette, by WordNet number."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """An image of a data set.

    name: unique in the data set; of a file, its path. label: the class in words, if it is known.
    index: the index of the class, which is the output of a network for it, if it is known.
    attention: the file of the attention map, if there is one.

    >>> item = mg.data.Item(name="train/wren/001.png", label="wren", index=1)
    """

    name: str
    label: str = ""
    index: int | None = None
    attention: str | None = None

    @property
    def class_name(self) -> str:
        """The name of the class, or its index if it has no name."""
        return IMAGENETTE.get(self.label, (0, self.label))[1] or str(self.index)


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet(ABC):
    """Images in an order that does not depend on the machine.

    layout: the name of the layout, see `LAYOUTS`. items: the images. classes: the names of all
    classes in order, if the data set knows them.
    """

    layout: str
    items: Sequence[Item]
    classes: tuple[str, ...] | None = None

    @abstractmethod
    def load(self, item: Item) -> Picture:
        """The image in RGB. Errors: ValueError if it cannot be read."""

    def load_attention(self, item: Item) -> Image | None:
        """The attention map in grey (Pillow's mode L), or None if the image has none."""
        return None

    @abstractmethod
    def digest(self, item: Item) -> str:
        """A digest of the content of the item's files; empty if they cannot be read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Files(DataSet):
    """A data set of files in a folder or an archive.

    >>> data = mg.data.open_dataset("docs")  # a folder of images for each class: docs/images
    >>> found = data.load(data.items[0])
    """

    tree: Tree
    """The folder or archive."""

    def load(self, item: Item) -> Picture:
        with self.tree.open(item.name) as file:
            return decode_image(file, item.name)

    def load_attention(self, item: Item) -> Image | None:
        if item.attention is None:
            return None
        with self.tree.open(item.attention) as file:
            return decode_grey(file, item.attention)

    def digest(self, item: Item) -> str:
        return " ".join(self.tree.digest(name) for name in (item.name, item.attention) if name)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """An image that a run takes. index: its place in the data set, which keys its noise."""

    index: int
    item: Item


def choose_images(
    data: DataSet,
    count: int | None = None,
    *,
    seed: int = 0,
    indices: Sequence[int] = (),
    labels: Sequence[str] | None = None,
) -> list[Chosen]:
    """Choose images of a data set; they are returned in its order.

    count: how many; the first ones of an order that `seed` draws, so that a larger number contains
    a smaller one. By default all.
    indices: places of the images, instead of `count`.
    labels: of the network. If they contain the names of all classes of the data, the class index
    of an image becomes that of the output with the same name.
    Errors: ValueError for indices that the data set does not have.
    """
    total = len(data.items)
    expect(count is None or count >= 1, "count", "at least 1", count)
    for index in indices:
        expect(0 <= index < total, "indices", f"numbers from 0 to {total - 1}", index)
    order = np.random.default_rng(seed).permutation(total)[:count]
    outputs = _outputs(data, labels or ())
    chosen = []
    for index in sorted(set(indices)) or sorted(order.tolist()):
        item = data.items[index]
        output = outputs.get(item.class_name.casefold(), item.index)
        chosen.append(Chosen(index=index, item=replace(item, index=output)))
    return chosen


def _outputs(data: DataSet, labels: Sequence[str]) -> dict[str, int]:
    """The network's output for each class of the data, by name; empty if it lacks one of them.

    Classes of folders then keep their alphabetical numbers, and a warning names those that the
    network does not know.
    """
    places = {label.casefold(): place for place, label in enumerate(labels)}
    # Two of ImageNet's names belong to two classes each.
    unique = {name for name, times in Counter(map(str.casefold, labels)).items() if times == 1}
    names = {item.class_name.casefold() for item in data.items}
    if names <= unique:
        return {name: places[name] for name in names}
    indexed = data.items[0].index is not None
    if labels and indexed and data.layout == "folders":
        unknown, others = ", ".join(sorted(names - unique)[:3]), ", ".join(labels[:3])
        number = "none" if not names & unique else f"only {len(names & unique)}"
        warnings.warn(
            f"the network knows {number} of the data's classes by name, and not {unknown}"
            f"{', ...' if len(names - unique) > 3 else ''}: its outputs ({others}, ...) are taken "
            "for them all in alphabetical order",
            stacklevel=3,
        )
    return {}


def known_classes(chosen: Sequence[Chosen]) -> list[int]:
    """The class index of each image. Errors: ValueError if one is not known."""
    found = [one.item.index for one in chosen]
    if None in found:
        raise ValueError(
            f"{chosen[found.index(None)].item.name}: expected a class index, which this layout "
            "does not have; explain the predictions instead"
        )
    return [index for index in found if index is not None]


def class_index(value: object, where: str, first: int = 0, last: int = 2**31) -> int:
    """A class index from a list. Errors: ValueError for other values than `first` to `last`."""
    found = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,10}\s*", value):
        found = int(value)
    if found is None or not first <= found <= last:
        raise ValueError(f"{where}: expected class indices from {first} to {last}, got {value!r}")
    return found


def files_digest(items: Iterable[tuple[str, str]]) -> str:
    """A digest of names and contents, which identifies a data set wherever it is stored."""
    return hashlib.sha256(repr(list(items)).encode()).hexdigest()[:16]
