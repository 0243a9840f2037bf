"""What a run keeps of the certificates of one image's pixels, for one method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from safetensors.torch import save

from moreaugrad.certificates import PixelCertificate
from moreaugrad.files.units import Record
from moreaugrad.pictures import Picture
from moreaugrad.pictures.plot import figure_bytes
from moreaugrad.reports.folder import csv_bytes
from moreaugrad.reports.pixels import ABSTAINED, IMPORTANT, UNIMPORTANT, pixels_figure
from moreaugrad.runs.directory import json_text
from moreaugrad.runs.engine import Files

COLUMNS = ("method", "radius", "radius_in_pixels_least", "radius_in_pixels_most", "certified",
           IMPORTANT, UNIMPORTANT)  # fmt: skip
"""Of a certificate's table; fractions of all pixels."""


def pixel_record(
    found: PixelCertificate, common: Record, method: str, settings: dict[str, Any]
) -> Record:
    """common: what the record of the curves has too, the radii among it."""
    radii = [*common["radii"], found.within]
    columns = {"certified": None, IMPORTANT: True, UNIMPORTANT: False}
    curves = {name: found.fraction(radii, vote)[0].tolist() for name, vote in columns.items()}
    maps = {n: getattr(found, n)[0] for n in (IMPORTANT, UNIMPORTANT, ABSTAINED)}
    return {
        **common,
        "method": method,
        **{name: curve[:-1] for name, curve in curves.items()},
        "within": found.within,
        "threshold": found.threshold,
        "at_threshold": {name: curve[-1] for name, curve in curves.items()},
        "fractions": {name: float(part.double().mean()) for name, part in maps.items()},
        "confidence": found.confidence,
        "statement": found.statement,
        "top": found.top,
        "votes": found.samples,
        "failed": int(found.failed[0]),
        "short": int(found.short[0]),
        "evaluations": int(found.evaluations[0]),
        "settings": settings,
    }


def pixel_files(unit: str, record: Record, found: PixelCertificate, photo: Picture | None) -> Files:
    """The files of a unit."""
    shown = {name: value for name, value in record.items() if name not in COLUMNS}
    maps = [getattr(found, name)[0].cpu().numpy() for name in (IMPORTANT, UNIMPORTANT)]
    tensors = {name: getattr(found, name)[0].cpu().contiguous() for name in ("votes", "radius")}
    return {
        f"{unit}.csv": csv_bytes(list(pixel_rows(record))),
        f"{unit}.png": figure_bytes(pixels_figure(record, photo, *maps), "png", shown),
        f"{unit}.safetensors": save(tensors),
        f"{unit}.json": json_text(record).encode(),
    }


def pixel_rows(record: Record) -> Iterator[Record]:
    """A row for each radius."""
    curves = [record[name] for name in ("certified", IMPORTANT, UNIMPORTANT)]
    lengths = zip(record["radii"], record["radii_in_pixel_range"], strict=True)
    for (radius, (least, most)), *parts in zip(lengths, *curves, strict=True):
        row = (record["method"], radius, least, most, *parts)
        yield dict(zip(COLUMNS, row, strict=True))
