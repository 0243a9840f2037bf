"""A training set with something changed: entries removed, labels shuffled, images exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.data.augment import Augment, Pixels, keyed
from moreaugrad.data.examples import Examples
from moreaugrad.files.foreign import percent_name
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


def masked_examples(
    whole: Examples, held: Augment, ranks: Ranks, ratio: float, end: str, fill: Tensor
) -> Examples:
    """Examples with the top or bottom fraction `ratio` of their entries kept.

    held: resize and crop, so that the entries are those that were ranked. end: "top" or "bottom".
    fill: `[3]`, uint8, what the other entries become.
    """
    return replace(
        whole, read=partial(_masked, whole, held, ranks, ratio, end, fill), has_attention=False,
        title=partial(_masked_title, whole, f"the {end} {percent_name(ratio)}% kept"),
    )  # fmt: skip


def _masked(
    whole: Examples, held: Augment, ranks: Ranks, ratio: float, end: str, fill: Tensor, key: int
) -> Pixels:
    """An image as it is evaluated, with a part of its entries kept."""
    image, _ = held(whole.read(key), seed=0, epoch=0, key=key)
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    found = keep(pixels, ranks.of(key), ratio, end=end, fill=fill.view(3, 1, 1))
    return found[0].permute(1, 2, 0).numpy(), None


def _masked_title(whole: Examples, what: str, key: int) -> str:
    return f"{whole.title(key)}, {what}"


def shuffled(examples: Examples, seed: int) -> Examples:
    """Labels in an order drawn by the seed: as many of each class, of the wrong images."""
    order = keyed(seed, 0, SHUFFLE).permutation(len(examples))
    return replace(examples, labels=examples.labels[order])


def exchange(examples: Examples, reserve: Examples, count: int, seed: int) -> Examples:
    """`count` examples removed and as many of `reserve` instead, both drawn by the seed. Ids of
    these follow those of the others."""
    if not count:
        return examples
    gone = set(drawn(len(examples), count, seed, 0))
    first = examples.subset(place for place in range(len(examples)) if place not in gone)
    second = reserve.subset(drawn(len(reserve), count, seed, 1))
    two = (first, second, int(first.ids.max()) + 1)
    return replace(
        first, labels=torch.cat([first.labels, second.labels]),
        ids=torch.cat([first.ids, second.ids + two[2]]), read=partial(_read_of_two, *two),
        title=partial(_of_two, "title", *two),
        has_attention=first.has_attention and second.has_attention,
    )  # fmt: skip


def _of_two(what: str, first: Examples, second: Examples, beyond: int, key: int) -> Any:
    """What a function of the set with this id gives; ids of the second begin at `beyond`."""
    part, own = (first, key) if key < beyond else (second, key - beyond)
    return getattr(part, what)(own)


def _read_of_two(first: Examples, second: Examples, beyond: int, key: int) -> Pixels:
    image, attention = _of_two("read", first, second, beyond, key)
    return image, attention if first.has_attention and second.has_attention else None


def drawn(total: int, count: int, seed: int, number: int) -> Sequence[int]:
    """`count` of `total` places, in order; draw 0 leaves a set and draw 1 comes into it."""
    places = keyed(seed, number, EXCHANGE).permutation(total)[:count]
    found: list[int] = np.sort(places).tolist()
    return found
