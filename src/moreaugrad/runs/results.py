"""One map of one input: its pictures, its numbers, its files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import Tensor

from moreaugrad.explainers.explanation import Explanation
from moreaugrad.metrics import auroc, average_precision, gini
from moreaugrad.pictures import Picture, Style, draw
from moreaugrad.runs.cases import Sample
from moreaugrad.runs.records import map_record
from moreaugrad.runs.variants import Variant


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """map: signed, like the input, on the processor. seconds: its share of the clock's time."""

    variant: Variant
    target: int
    map: Tensor
    record: Mapping[str, Any]
    scores: Mapping[str, float]
    notes: Sequence[str]
    seconds: float
    pictures: Mapping[str, Picture] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What could not be done: an input (no method), or one map of it."""

    title: str
    message: str
    method: str = ""

    def __str__(self) -> str:
        what = f"{self.title}, {self.method}" if self.method else self.title
        # The messages of the readers of files begin with the file's path.
        return (
            self.message
            if not self.method and self.title in self.message
            else f"{what}: {self.message}"
        )


def result(
    variant: Variant,
    sample: Sample,
    explanation: Explanation,
    seconds: float,
    notes: Sequence[str],
    photo: Tensor | None,
    style: Style,
) -> Result:
    """Of an explanation of one sample; `photo` `[H, W, 3]` in [0, 1] lies under the overlay."""
    values = explanation.parts[0][0].cpu()
    scores = _scores(values, sample.feature)
    finite = bool(values.isfinite().all())
    under = photo if photo is not None and values.shape[-2:] == photo.shape[:2] else None
    return Result(
        variant=variant,
        target=int(explanation.target[0]),
        map=values,
        record=map_record(explanation, float(gini(values[None])), scores, list(notes)),
        scores=scores,
        notes=notes,
        seconds=seconds,
        pictures=draw(values, under, style) if finite and values.ndim <= 3 else {},
    )


def map_files(found: Result, about: Mapping[str, Any], export: Sequence[str]) -> dict[str, bytes]:
    """The map as safetensors, in the other formats asked for, and its images: files by name."""
    key = found.variant.key
    # One entry of metadata: the order of several is not fixed, and the bytes have to be.
    told = json.dumps({**about, **found.record}, sort_keys=True, ensure_ascii=False)
    data = save({"map": found.map.contiguous()}, metadata={"moreaugrad": told})
    settings = {**about, "settings": found.record["settings"]}
    return {
        f"{key}.safetensors": data,
        **{f"{key}.{name}": EXPORTERS[name](found.map) for name in export},
        **{f"{key}.{view}.png": shown.png(settings) for view, shown in found.pictures.items()},
    }


def _npy(values: Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, values.numpy(), allow_pickle=False)
    return file.getvalue()


def _csv(values: Tensor) -> bytes:
    """A row for each entry: its indices (channel, row, column for a picture) and its value."""
    names = {3: ("channel", "row", "column"), 2: ("row", "column"), 1: ("index",)}
    header = (*names.get(values.ndim, tuple(f"axis_{i}" for i in range(values.ndim))), "value")
    array = values.numpy()
    lines = [",".join(header)]
    lines += [f"{','.join(map(str, at))},{value}" for at, value in np.ndenumerate(array)]
    return ("\n".join(lines) + "\n").encode()


EXPORTERS = {"npy": _npy, "csv": _csv}


def _scores(values: Tensor, feature: Tensor | None) -> dict[str, float]:
    """How well the map's magnitude finds what tells the class, where that is known."""
    size = values.abs().sum(0) if values.ndim == 3 else values.abs()
    if feature is None or size.shape != feature.shape:
        return {}
    return {
        "AUROC": float(auroc(size[None], feature[None])),
        "AP": float(average_precision(size[None], feature[None])),
    }
