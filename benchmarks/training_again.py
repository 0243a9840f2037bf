"""Networks trained again on changed data, by `moreaugrad retrain`; finished trainings are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.command import moreaugrad
from benchmarks.context import Context
from benchmarks.training_maps import firsts
from benchmarks.training_rows import ONE, Row

STUDY, GRADIENT = "cells", "simple-gradient"
SEEDS = "0,1"


def rows(*labels: str) -> list[Row]:
    """The first setting of each penalty, with its first seed."""
    return [replace(row, seeds=ONE) for row in firsts(STUDY, *labels)]


def kept(context: Context) -> Path:
    """Where the studies' folders are."""
    folder = context.cache.folder / f"retrain-{STUDY}{'-quick' if context.quick else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def again(context: Context, study: str, row: Row, *arguments: str) -> dict[str, Any]:
    """The results of a study; a folder of other settings is replaced."""
    out = kept(context) / f"{study}-{row.stem}"
    moreaugrad(
        "retrain", study, *arguments, "--trust", "--out", str(out), "--overwrite", "--quiet",
        processes=context.threads,
    )  # fmt: skip
    print(f"  {out.name}: done", flush=True)
    found: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return found


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def similarity(row: dict[str, Any]) -> str:
    """Mean and interval of a row of results, and how many maps have no value."""
    if row["mean"] is None:
        return f"none of {row['undefined']}"
    span = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
    lost = f", {row['undefined']} without" if row["undefined"] else ""
    return f"{row['mean']:.3f}{span}{lost}"
