"""Pictures with a name each, and for some a map of where attention belongs."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moreaugrad.data.images import Picture, decode_grey, decode_image
from moreaugrad.data.tree import Tree

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Item:
    """A picture of a data set. name: unlike every other's. label: its class in words, where known.

    index: the network's output of that class, where the layout tells it.
    attention: the file of its attention map, where the set has such maps.
    """

    name: str
    label: str = ""
    index: int | None = None
    attention: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet(ABC):
    """Images in an order that does not depend on the machine. classes: all that there may be, in
    order, where the set knows them."""

    layout: str
    items: Sequence[Item]
    classes: tuple[str, ...] | None = None

    @abstractmethod
    def load(self, item: Item) -> Picture:
        """The picture in RGB. Errors: ValueError for what cannot be read."""

    def load_attention(self, item: Item) -> Image | None:
        """Its attention map in shades of grey (mode L), or None where the set has none."""
        return None

    @abstractmethod
    def digest(self, item: Item) -> str:
        """Of the content of its files; empty where they cannot be read."""


def class_index(value: object, where: str, first: int = 0, last: int = 2**31) -> int:
    """A class's index in a list. Errors: ValueError for what is none of `first` to `last`."""
    found = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,10}\s*", value):
        found = int(value)
    if found is None or not first <= found <= last:
        raise ValueError(f"{where}: expected class indices from {first} to {last}, got {value!r}")
    return found


def files_digest(items: Iterable[tuple[str, str]]) -> str:
    """Of names and digests of contents: they tell a data set from another, wherever it lies."""
    return hashlib.sha256(repr(list(items)).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, eq=False)
class Files(DataSet):
    tree: Tree

    def load(self, item: Item) -> Picture:
        with self.tree.open(item.name) as file:
            return decode_image(file, item.name)

    def digest(self, item: Item) -> str:
        return " ".join(self.tree.digest(name) for name in (item.name, item.attention) if name)

    def load_attention(self, item: Item) -> Image | None:
        if item.attention is None:
            return None
        with self.tree.open(item.attention) as file:
            return decode_grey(file, item.attention)
