"""Which images of a data set a run takes."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moreaugrad.data.dataset import DataSet, Item
from moreaugrad.data.examples import class_name


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """An image that was chosen. index: its place in the data set, which keys its noise."""

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
    """Images at these indices, or the first `count` of an order that `seed` draws (so that more
    images contain the fewer), in the order of the data set; all of them by default.

    labels: of the network. Where they hold the names of all of the data's classes, indices of
    classes are those of the outputs with these names.
    Errors: ValueError for indices that the data set does not have.
    """
    total = len(data.items)
    outside = [index for index in indices if not 0 <= index < total]
    if outside:
        raise ValueError(f"indices: expected numbers from 0 to {total - 1}, got {outside[0]}")
    order = np.random.default_rng(seed).permutation(total)[: min(total, count or total)]
    outputs = _outputs(data, labels or ())
    chosen = []
    for index in sorted(set(indices)) or sorted(order.tolist()):
        item = data.items[index]
        output = outputs.get(class_name(item).casefold(), item.index)
        chosen.append(Chosen(index=index, item=replace(item, index=output)))
    return chosen


def _outputs(data: DataSet, labels: Sequence[str]) -> dict[str, int]:
    """The network's output for each of the data's classes, by name; none where it lacks some.

    The classes of folders are then numbered in alphabetical order, and a warning says so where the
    network knows none of them by name.
    """
    places = {label.casefold(): place for place, label in enumerate(labels)}
    # Two of ImageNet's names stand for two classes each.
    alone = {name for name, times in Counter(map(str.casefold, labels)).items() if times == 1}
    names = {class_name(item).casefold() for item in data.items}
    if names <= alone:
        return {name: places[name] for name in names}
    indexed = data.items[0].index is not None
    if labels and indexed and data.layout == "folders" and not names & alone:
        shown, others = ", ".join(sorted(names)[:3]), ", ".join(labels[:3])
        warnings.warn(
            f"the network knows none of the data's classes ({shown}, ...) by name: its outputs "
            f"({others}, ...) are taken for them in alphabetical order",
            stacklevel=3,
        )
    return {}


def known_classes(chosen: Sequence[Chosen]) -> list[int]:
    """The data set's class of each image. Errors: ValueError where it is not known."""
    found = [one.item.index for one in chosen]
    if None in found:
        raise ValueError(
            f"{chosen[found.index(None)].item.name}: expected a class index, which this layout "
            "does not have; explain the predictions instead"
        )
    return [index for index in found if index is not None]
