"""Which pictures are evaluated."""

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
    """A picture to evaluate. index: its place in the data set, which keys its noise."""

    index: int
    item: Item


def choice(
    data: DataSet, samples: int | None, seed: int, labels: Sequence[str] | None = None
) -> list[Chosen]:
    """The first of an order that `seed` draws, so that more samples contain the fewer.

    labels: of the network. Where they hold the names of all of the data's classes, indices of
    classes are those of the outputs with these names.
    """
    count = len(data.items)
    wanted = min(count, samples or count)
    order = np.random.default_rng(seed).permutation(count)[:wanted]
    outputs = _outputs(data, labels or ())
    chosen = []
    for index in sorted(order.tolist()):
        item = data.items[index]
        output = outputs.get(class_name(item).casefold(), item.index)
        chosen.append(Chosen(index=index, item=replace(item, index=output)))
    return chosen


def _outputs(data: DataSet, labels: Sequence[str]) -> dict[str, int]:
    """The network's output for each of the data's classes, by name; none where it lacks some.

    Folders then count by their place in alphabetical order, which is told where all are strange.
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
    """The data set's class of each picture. Errors: ValueError where it is not known."""
    found = [one.item.index for one in chosen]
    if None in found:
        raise ValueError(
            f"{chosen[found.index(None)].item.name}: expected a class index, which this layout "
            "does not tell; explain the predictions instead"
        )
    return [index for index in found if index is not None]
