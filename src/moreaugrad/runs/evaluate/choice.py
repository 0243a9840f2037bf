"""Which pictures are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moreaugrad.data.dataset import DataSet, Item


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A picture to evaluate. index: its place in the data set, which keys its noise."""

    index: int
    item: Item


def choice(data: DataSet, samples: int | None, seed: int) -> list[Chosen]:
    """The first of an order that `seed` draws, so that more samples contain the fewer."""
    count = len(data.items)
    wanted = min(count, samples or count)
    order = np.random.default_rng(seed).permutation(count)[:wanted]
    return [Chosen(index=index, item=data.items[index]) for index in sorted(order.tolist())]


def known_classes(chosen: Sequence[Chosen]) -> list[int]:
    """The data set's class of each picture. Errors: ValueError where it is not known."""
    found = [one.item.index for one in chosen]
    if None in found:
        raise ValueError(
            f"{chosen[found.index(None)].item.name}: expected a class index, which this layout "
            "does not tell; explain the predictions instead"
        )
    return [index for index in found if index is not None]
