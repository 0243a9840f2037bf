"""Which pictures are evaluated."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moreaugrad.data.dataset import DataSet, Item
from moreaugrad.data.examples import class_name


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


def by_name(
    chosen: Sequence[Chosen], data: DataSet, labels: Sequence[str] | None
) -> Sequence[Chosen]:
    """With the indices that a network's labels give the classes, where it has all of their names.

    Else they are the data's own, which of folders are places in alphabetical order: told where the
    network knows none of their names.
    """
    known = [label.casefold() for label in labels or ()]
    names = {class_name(item).casefold() for item in data.items}
    if known and all(known.count(name) == 1 for name in names):
        return [
            replace(one, item=replace(one.item, index=known.index(class_name(one.item).casefold())))
            for one in chosen
        ]
    indexed = chosen[0].item.index is not None
    if known and indexed and data.layout == "folders" and not names & set(known):
        shown, others = (", ".join(list(each)[:3]) for each in (sorted(names), labels or ()))
        warnings.warn(
            f"the network knows none of the data's classes ({shown}, ...) by name: its outputs "
            f"({others}, ...) are taken for them in alphabetical order",
            stacklevel=2,
        )
    return chosen


def known_classes(chosen: Sequence[Chosen]) -> list[int]:
    """The data set's class of each picture. Errors: ValueError where it is not known."""
    found = [one.item.index for one in chosen]
    if None in found:
        raise ValueError(
            f"{chosen[found.index(None)].item.name}: expected a class index, which this layout "
            "does not tell; explain the predictions instead"
        )
    return [index for index in found if index is not None]
