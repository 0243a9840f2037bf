"""An explanation in a notebook: images, predictions and statuses as one piece of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from moreaugrad.explainers.batch import ExplainedBatch, as_tuple
from moreaugrad.explainers.rows import Entries
from moreaugrad.explainers.summary import answer, named, statuses
from moreaugrad.pictures import Picture, as_photo, draw, photo
from moreaugrad.pictures.html import templates
from moreaugrad.pictures.wording import count, duration, percent

SHOWN = 12
"""Samples of a batch that are shown."""
LIKELIEST = 5
"""Classes of a prediction that are shown, besides the target."""
ENTRIES, FEW = 10, 3
"""Entries of a map that are listed, of one sample and of each of several."""
STRIP = 8
"""An input whose sides differ by more than this factor is no image that one could look at."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Listed:
    """An entry of a map. level: its size as a fraction of the largest."""

    place: str
    value: float
    map: float
    level: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The map of one of several inputs: images, or its largest entries. total: of its entries."""

    name: str
    images: Sequence[Picture] = ()
    rows: Sequence[Listed] = ()
    total: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Bar:
    """A class with its probability."""

    label: str
    probability: float
    target: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Card:
    """One sample. state: "good", "fair" or "bad"."""

    name: str
    answer: str
    status: str
    state: str
    parts: Sequence[Part]
    bars: Sequence[Bar]
    facts: Sequence[tuple[str, str]]


def rendered(batch: ExplainedBatch) -> str:
    """One sample in full; of several the first `SHOWN`, each with its map, and how many are left
    out."""
    size = len(batch)
    cards = [
        _card(batch.select(torch.tensor([row], device="cpu")), row, alone=size == 1)
        for row in range(min(size, SHOWN))
    ]
    return templates("moreaugrad.explainers").get_template("explanation.html.j2").render(
        method=batch.method, size=size, cards=cards, statuses=statuses(batch) if size else "",
        left_out=size - len(cards),
    )  # fmt: skip


def _card(one: ExplainedBatch, row: int, *, alone: bool) -> Card:
    status, error = one.status[0], float(one.error[0])
    facts = [("zeros", percent(float(one.zeros[0])))]
    if torch.isfinite(one.error[0]):
        facts.insert(0, ("estimated error", percent(error)))
    facts.append(("evaluations", count(int(one.evaluations[0]))))
    if one.seconds is not None:
        facts.append(("time", duration(float(one.seconds[0]))))
    inputs = as_tuple(one.inputs)
    return Card(
        name=f"sample {row}",
        answer=answer(one, 0),
        status=statuses(one) if alone else status.value,
        state="good" if status.ok else "bad" if status.failed else "fair",
        parts=[_part(one, part, alone, len(inputs)) for part in range(len(inputs))],
        bars=_bars(one) if alone else (),
        facts=facts if alone else facts[:1],
    )


def _part(one: ExplainedBatch, part: int, alone: bool, several: int) -> Part:
    name = f"input {part}" if several > 1 else ""
    values, given = one.parts[part][0], as_tuple(one.inputs)[part][0]
    if not bool(values.isfinite().all()) or not values.numel():
        return Part(name=name)
    image = photo(given)
    if image is not None and max(given.shape[-2:]) <= STRIP * min(given.shape[-2:]):
        over = draw(values, image.pixels)["overlay"]
        return Part(name=name, images=[as_photo(image.pixels), over] if alone else [over])
    found = Entries.of(one, 0, part)
    largest = found.largest(ENTRIES if alone else FEW)
    top = max(abs(largest.maps), default=0.0) or 1.0
    rows = [
        Listed(place=", ".join(map(str, place)), value=value, map=level, level=abs(level) / top)
        for place, value, level in zip(
            largest.places.tolist(), largest.inputs.tolist(), largest.maps.tolist(), strict=True
        )
        if level
    ]
    return Part(name=name, rows=rows, total=len(found.maps))


def _bars(one: ExplainedBatch) -> list[Bar]:
    """The likeliest classes, and the target."""
    if one.probabilities is None:
        return []
    chances, target = one.probabilities[0].cpu(), int(one.target[0])
    order = chances.argsort(descending=True, stable=True)[:LIKELIEST].tolist()
    classes = order if target in order else [*order, target]
    return [
        Bar(label=named(one, k), probability=float(chances[k]), target=k == target) for k in classes
    ]
