"""Maps of several images side by side: a row for each image, a column for each method."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from benchmarks.cache import Piece, digest_of
from benchmarks.canvas import Bytes, Canvas
from benchmarks.context import Context
from benchmarks.references import PACKAGE, SOLVER
from benchmarks.results import Result, Table
from benchmarks.subjects import Subject
from moreaugrad import METHODS, Status, build
from moreaugrad.pictures import Style, as_photo, heatmap, palette
from moreaugrad.pictures.render import NEUTRAL
from moreaugrad.pictures.wording import percent

STATUSES = list(Status)
SOURCES = [*SOLVER, PACKAGE / "curvature"]
CELL, GAP, MARGIN, LABEL = 112, 6, 10, 128
"""Pixels: about a map's width, between maps, around the image, and for a row's words."""
HEADER, FOOTER = 34, 28
WARNING = "#b3261e"
READING = (
    "magnitude of the map, summed over the channels and averaged over as many pixels as one of the "
    "image stands for; the last colour is each map's own 99th percentile; a grey map is zero "
    "everywhere"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An image and the class that is explained. `name` is the file's, `label` the class's.

    A probability that is not known is NaN.
    """

    name: str
    target: int
    label: str
    probability: float

    @property
    def key(self) -> str:
        return f"{self.name}:{self.target}"

    @property
    def words(self) -> tuple[str, str, str]:
        stem = Path(self.name).stem.partition("_")[0]
        known = "" if math.isnan(self.probability) else f"p = {self.probability:.2f}"
        return self.label, known, stem


class Ended(Protocol):
    """How a map came about: a `Status`, or that of an attack on it."""

    @property
    def value(self) -> str: ...

    @property
    def ok(self) -> bool: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """Maps `[R, C, H, W]`, one for each case, and a note on each. `title` has lines.

    percentile: of a map's magnitudes, which gets the last colour.
    """

    title: str
    maps: Tensor
    status: tuple[Ended, ...]
    error: Tensor
    evaluations: Tensor
    percentile: float = Style().percentile

    @property
    def name(self) -> str:
        return self.title.replace("-\n", "-").replace("\n", " ")

    @property
    def zeros(self) -> Tensor:
        return (self.maps == 0).flatten(1).double().mean(1)

    def described(self, row: int) -> tuple[str, str]:
        """Below a map: its share of zeros, and its status where that is a failure."""
        share = float(self.zeros[row])
        # Borders that the network does not look at are no sparsity.
        zeros = "" if share < 0.02 else f"{percent(share)} zero"
        return zeros, "" if self.status[row].ok else self.status[row].value


def cases(subject: Subject, wanted: Sequence[tuple[str, int]]) -> list[Case]:
    """Of (file, rank): rank 0 is the class that the network predicts, 1 the next likely one."""
    found = []
    for name, rank in wanted:
        with torch.no_grad():
            probabilities = subject.fast(subject.inputs([name])).softmax(1)[0]
        target = int(probabilities.argsort(descending=True)[rank])
        found.append(
            Case(
                name=name,
                target=target,
                label=subject.labels[target],
                probability=float(probabilities[target]),
            )
        )
    return found


def column(
    context: Context,
    subject: Subject,
    rows: Sequence[Case],
    method: str,
    title: str = "",
    **settings: Any,
) -> Column:
    """The maps of a method of the registry; finished ones are taken from the cache.

    A method that works in pixel units (`std`) is given what the preprocessing divides by.
    """
    if "std" in METHODS[method].defaults():
        settings = {"std": list(subject.preprocess.std), **settings}
    explainer = build(method, subject.fast, batch_size=subject.chunk, **settings)
    by_key = {row.key: row for row in rows}

    def compute(keys: Sequence[str]) -> list[Piece]:
        some = [by_key[key] for key in keys]
        found = explainer.explain(
            subject.inputs([row.name for row in some]), [row.target for row in some]
        )
        return [
            {
                "map": found.parts[0][i].float(),
                "status": torch.tensor(STATUSES.index(found.status[i])),
                "error": found.error[i].double(),
                "evaluations": found.evaluations[i],
            }
            for i in range(len(found))
        ]

    key = {
        "network": subject.name, "weights": subject.weights, "method": method,
        "settings": explainer.settings(), "sources": digest_of(*SOURCES),
    }  # fmt: skip
    pieces = context.cache.fetch(
        f"{subject.name}-{method}", key, list(by_key), compute, at_once=len(rows)
    )
    return Column(
        title=title or method,
        maps=pieces["map"],
        status=tuple(STATUSES[int(index)] for index in pieces["status"]),
        error=pieces["error"],
        evaluations=pieces["evaluations"],
    )


def result(
    context: Context,
    subject: Subject,
    rows: Sequence[Case],
    columns: Sequence[Column],
    *,
    name: str,
    title: str,
    settings: dict[str, Any],
    notes: Sequence[str] = (),
    band: int = 8,
) -> Result:
    """The images NAME.png, or NAME-1.png on where there are more columns than `band`, and what
    is known of the maps, as figures and as a table.
    """
    bands = [columns[at : at + band] for at in range(0, len(columns), band)]
    numbers = [f"-{i}" for i in range(1, len(bands) + 1)] if len(bands) > 1 else [""]
    photos = None
    if context.photos:
        inputs = subject.inputs([row.name for row in rows])
        photos = [np.asarray(subject.preprocess.pixels(each)) for each in inputs]
    return Result(
        title=title,
        settings={"network": subject.name, **settings},
        figures={
            "rows": [
                {"image": row.name, "class": row.label, "probability": row.probability}
                for row in rows
            ],
            "columns": {
                each.name: {
                    "zeros": each.zeros.tolist(),
                    "status": [status.value for status in each.status],
                    "error": each.error.tolist(),
                    "evaluations": each.evaluations.tolist(),
                }
                for each in columns
            },
        },
        tables=[
            Table(
                caption=f"Means over {len(rows)} maps of {subject.name}.",
                header=["column", "zeros", "stated error", "evaluations", "status"],
                rows=[_row(each) for each in columns],
            )
        ],
        notes=[READING, *notes],
        pictures={
            f"{name}{number}.png": picture(rows, shown, photos)
            for number, shown in zip(numbers, bands, strict=True)
        },
    )


def _row(each: Column) -> list[object]:
    statuses = Counter(status.value for status in each.status)
    return [
        each.name,
        float(each.zeros.mean()),
        float(each.error.mean()),
        float(each.evaluations.double().mean()),
        ", ".join(f"{status} ({count})" for status, count in statuses.items()),
    ]


def picture(
    rows: Sequence[Case], columns: Sequence[Column], photos: Sequence[Any] | None = None
) -> bytes:
    """A PNG; `photos` `[H, W, 3]`, one for each case, stand before the maps."""
    cells = [
        [_cell(each.maps[line], each.percentile) for each in columns] for line in range(len(rows))
    ]
    tall, wide = cells[0][0].shape[:2]
    step, first = wide + GAP, MARGIN + LABEL
    if photos is not None:
        cells = [[_photo(shown), *line] for shown, line in zip(photos, cells, strict=True)]
        first += step
    canvas = Canvas(
        first + len(columns) * step + MARGIN, 2 * MARGIN + HEADER + len(rows) * (tall + FOOTER)
    )
    middles = [first + place * step + wide / 2 for place in range(len(columns))]
    for middle, each in zip(middles, columns, strict=True):
        canvas.words(middle, MARGIN + HEADER / 2, each.title, size=8)
    for line, case in enumerate(rows):
        y = MARGIN + HEADER + line * (tall + FOOTER)
        _label(canvas, case, y + tall / 2)
        for place, pixels in enumerate(cells[line]):
            canvas.image(MARGIN + LABEL + place * step, y, pixels)
        for middle, each in zip(middles, columns, strict=True):
            zeros, failure = each.described(line)
            below = y + tall + 7
            canvas.words(middle, below, zeros, size=6.5, colour="0.35")
            canvas.words(middle, below + 11 * bool(zeros), failure, size=6.5, colour=WARNING)
    colours = _few_colours()
    if photos is not None:
        shown = np.concatenate([line[0] for line in cells])
        colours = np.concatenate([colours, _main_colours(shown, 256 - len(colours))])
    return canvas.png(colours)


def _label(canvas: Canvas, case: Case, middle: float) -> None:
    label, probability, stem = case.words
    end = MARGIN + LABEL - 10
    canvas.words(end, middle - 13, label, size=8, align="right")
    canvas.words(end, middle, probability, size=7.5, align="right", colour="0.35")
    canvas.words(end, middle + 13, stem, size=6.5, align="right", colour="0.55")


def _few_colours() -> Bytes:
    """Those of heat maps and words: noise then costs little more than half a byte a pixel."""
    shades = np.linspace(0, 1, 24)[:, None]
    warning = np.array([int(WARNING[at : at + 2], 16) for at in (1, 3, 5)])
    words = np.concatenate([255 * shades + 0 * warning, 255 + shades[::3] * (warning - 255)])
    heat = palette(Style().palette)[::4]
    return np.concatenate([heat, [NEUTRAL], words.round().astype(np.uint8)]).astype(np.uint8)


def _main_colours(pixels: Bytes, count: int) -> Bytes:
    found = Image.fromarray(pixels).quantize(count).getpalette()
    return np.array(found, dtype=np.uint8).reshape(-1, 3)


def _cell(values: Tensor, percentile: float) -> Bytes:
    """The heat map; grey where it is not finite, as where it is zero."""
    shown = values if torch.isfinite(values).all() else torch.zeros_like(values)
    magnitude = shown.double().abs().sum(0, keepdim=True)
    style = Style(percentile=percentile)
    return _zoomed(heatmap(_pooled(magnitude)[0], style=style).pixels)


def _photo(pixels: Any) -> Bytes:
    values = torch.as_tensor(np.array(pixels)).double().movedim(-1, 0)
    return _zoomed(as_photo(_pooled(values).movedim(0, -1).clamp(0, 1)).pixels)


def _pooled(values: Tensor) -> Tensor:
    """Means over squares, so that about `CELL` of them are left."""
    return avg_pool2d(values, max(1, round(values.shape[-1] / CELL)))


def _zoomed(pixels: Bytes) -> Bytes:
    """Each pixel as a square, so that about `CELL` are there."""
    zoom = max(1, round(CELL / pixels.shape[1]))
    return pixels.repeat(zoom, 0).repeat(zoom, 1)
