"""What trained networks look for: the AdvGrad paper's figure 3."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.canvas import Bytes, Canvas
from benchmarks.command import moreaugrad
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.training_again import mean
from benchmarks.training_maps import called, firsts
from benchmarks.training_rows import ONE, Row
from benchmarks.training_runs import trained

LABELS = ("plain", "L1", "group", "elastic net")
CLASSES = {"cells": range(9), "imagenette": range(0, 10, 2)}
"""Of the cells all but the empty one."""
ASCENT = {"steps": 256, "step": 0.01, "jitter": 2, "blur": 0.5, "decay": 0.1}
"""For all networks alike; pixels from 0 to 1."""
GAP, MARGIN, LABEL, HEADER, SIDE = 4, 8, 110, 34, 96
COLOURS = 64
Figures = Mapping[str, Any]


def run(context: Context) -> Result:
    found: dict[str, dict[str, Figures]] = {}
    tables, pictures = [], {}
    for study in list(CLASSES)[: 1 if context.quick else None]:
        rows = [replace(row, seeds=ONE) for row in firsts(study, *LABELS)]
        rows = rows[: 2 if context.quick else None]
        networks = trained(context, study, rows)
        runs = [_looks(context, study, row, networks[row.stem][0]) for row in rows]
        found[study] = {row.label: _results(run) for row, run in zip(rows, runs, strict=True)}
        tables.append(_table(study, rows, found[study]))
        pictures[f"training-features-{study}.png"] = sheet(
            [f"{row.label}\n{row.described}".strip() for row in rows],
            [each["label"] for each in found[study][rows[0].label]["classes"]],
            [[_picture(run, each["class"]) for each in found[study][row.label]["classes"]]
             for row, run in zip(rows, runs, strict=True)],
        )  # fmt: skip
    return Result(
        title="What trained networks look for, the AdvGrad paper's figure 3",
        settings={"ascent": ASCENT, "score": "logit", "seed": 0},
        figures=found,
        tables=tables,
        notes=[
            (
                "each image climbs the logit of its class from the same noise, by the same "
                "steps; logits of different networks have different scales"
            ),
            "made by the networks alone; no image of the data is in them",
        ],
        pictures=pictures,
    )


def _looks(context: Context, study: str, row: Row, network: Path) -> Path:
    out = context.cache.folder / f"features-{study}{'-quick' if context.quick else ''}" / row.stem
    out.parent.mkdir(exist_ok=True)
    ascent = ASCENT | ({"steps": 8} if context.quick else {})
    moreaugrad(
        "visualise", "--model", f"trained:{network}", "--trust",
        "--classes", ",".join(map(str, CLASSES[study])),
        *(f"--set={name}={value}" for name, value in ascent.items()),
        "--out", str(out), "--overwrite", "--quiet",
    )  # fmt: skip
    return out


def _results(run: Path) -> Figures:
    found: Figures = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return found


def _picture(run: Path, place: int) -> Bytes:
    return np.asarray(Image.open(run / "images" / f"class-{place:04d}-0.png").convert("RGB"))


def _table(study: str, rows: Sequence[Row], found: Mapping[str, Figures]) -> Table:
    lines = []
    for row in rows:
        classes = found[row.label]["classes"]
        right = [each["prediction"][0] == each["class"] for each in classes]
        lines.append(
            [called(row), *(mean([each[name][0] for each in classes])
                            for name in ("before", "after", "probability")),
             f"{sum(right)} of {len(right)}"]
        )  # fmt: skip
    return Table(
        caption=f"{study}: means over {len(found[rows[0].label]['classes'])} classes, an image "
        "each.",
        header=["training", "logit before", "after", "probability after", "predicted"],
        rows=lines,
    )


def sheet(
    rows: Sequence[str], columns: Sequence[str], pictures: Sequence[Sequence[Bytes]]
) -> bytes:
    """A PNG of few colours: a row for each network, a column for each class."""
    shown = [[_zoomed(each) for each in line] for line in pictures]
    side = shown[0][0].shape[0]
    step = side + GAP
    canvas = Canvas(LABEL + len(columns) * step + MARGIN, HEADER + len(rows) * step + MARGIN)
    for place, title in enumerate(columns):
        words = title.lstrip("0123456789-").replace("-", " ")
        canvas.words(LABEL + place * step + side / 2, HEADER / 2, _broken(words), size=6.5)
    for line, label in enumerate(rows):
        y = HEADER + line * step
        canvas.words(LABEL - 8, y + side / 2, label, size=8, align="right")
        for place, pixels in enumerate(shown[line]):
            canvas.image(LABEL + place * step, y, pixels)
    return canvas.png(_colours(shown))


def _zoomed(pixels: Bytes) -> Bytes:
    zoom = max(1, SIDE // len(pixels))
    return pixels.repeat(zoom, 0).repeat(zoom, 1)


def _broken(words: str) -> str:
    """On two lines where it is long."""
    at = words.rfind(" ", 0, 14)
    return words if len(words) <= 14 or at < 0 else f"{words[:at]}\n{words[at + 1 :]}"


def _colours(shown: Sequence[Sequence[Bytes]]) -> Bytes:
    """Those that the images have most of, and greys for the words."""
    whole = Image.fromarray(np.concatenate([np.concatenate(line, 1) for line in shown], 0))
    found = whole.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    greys = np.linspace(0, 255, 16).round().astype(np.uint8)[:, None].repeat(3, 1)
    return np.concatenate([np.array(found, dtype=np.uint8).reshape(-1, 3), greys])
