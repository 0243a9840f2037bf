"""A training set with something changed: entries removed, labels shuffled, images exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.data.augment import Augment, Pixels, keyed
from moreaugrad.data.examples import Examples
from moreaugrad.files.names import percent_name
from moreaugrad.metrics import keep
from moreaugrad.score.noise import KEYS

SHUFFLE, EXCHANGE = KEYS + 2, KEYS + 3
"""Keys of the draws here; examples have the ids below, their order and split the two before."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranks:
    """Ranks of each image's entries, `[N, C or 1, S, S]`, by its id (in order)."""

    ids: NDArray[np.int64]
    values: NDArray[np.integer]

    def of(self, key: int) -> Tensor:
        row = int(np.searchsorted(self.ids, key))
        return torch.from_numpy(self.values[row].astype(np.int32))[None]


class Masked(Examples):
    """Images as they are evaluated, with the top or bottom fraction of their entries kept."""

    def __init__(
        self, whole: Examples, held: Augment, ranks: Ranks, ratio: float, end: str, fill: Tensor
    ) -> None:
        """held: resize and crop, so that entries are those that were ranked. fill: `[3]` uint8."""
        self.whole, self.held, self.ranks = whole, held, ranks
        self.ratio, self.end, self.fill = ratio, end, fill.view(3, 1, 1)
        self.name, self.classes, self.outputs = whole.name, whole.classes, whole.outputs
        self.labels, self.ids = whole.labels, whole.ids

    def pixels(self, index: int) -> Pixels:
        key = int(self.ids[index])
        image, _ = self.held(self.whole.pixels(index), seed=0, epoch=0, key=key)
        whole = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        found = keep(whole, self.ranks.of(key), self.ratio, end=self.end, fill=self.fill)
        return found[0].permute(1, 2, 0).numpy(), None

    def describe(self, index: int) -> str:
        return f"{self.whole.describe(index)}, the {self.end} {percent_name(self.ratio)}% kept"


class Joined(Examples):
    """Two sets of the same classes, one after the other; ids of the second follow the first's."""

    def __init__(self, first: Examples, second: Examples) -> None:
        self.parts, self.name = (first, second), first.name
        self.classes, self.outputs = first.classes, first.outputs
        self.labels = torch.cat([first.labels, second.labels])
        beyond = int(first.ids.max()) + 1
        self.ids = torch.cat([first.ids, second.ids + beyond])
        self.has_attention = first.has_attention and second.has_attention

    def pixels(self, index: int) -> Pixels:
        part, place = self._place(index)
        image, attention = part.pixels(place)
        return image, attention if self.has_attention else None

    def describe(self, index: int) -> str:
        part, place = self._place(index)
        return part.describe(place)

    def _place(self, index: int) -> tuple[Examples, int]:
        first, second = self.parts
        return (first, index) if index < len(first) else (second, index - len(first))


def shuffled(examples: Examples, seed: int) -> Examples:
    """Labels in an order drawn by the seed: as many of each class, of the wrong images."""
    found = examples.subset(range(len(examples)))
    found.labels = examples.labels[keyed(seed, 0, SHUFFLE).permutation(len(examples))]
    return found


def exchange(examples: Examples, reserve: Examples, count: int, seed: int) -> Examples:
    """`count` examples removed and as many of `reserve` instead, both drawn by the seed."""
    if not count:
        return examples
    gone = set(drawn(len(examples), count, seed, 0))
    kept = [place for place in range(len(examples)) if place not in gone]
    return Joined(examples.subset(kept), reserve.subset(drawn(len(reserve), count, seed, 1)))


def drawn(total: int, count: int, seed: int, number: int) -> Sequence[int]:
    """`count` of `total` places, in order; draw 0 leaves a set and draw 1 comes into it."""
    places = keyed(seed, number, EXCHANGE).permutation(total)[:count]
    found: list[int] = np.sort(places).tolist()
    return found
