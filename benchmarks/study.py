"""The robustness study: the MoreauGrad paper's figures 5 to 8 by published and by honest attacks.

Each plan in `studies/` is a run of `moreaugrad evaluate` in two processes, which resumes where an
earlier one was interrupted. Its page, with images, is written next to it; results hold numbers.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence

from benchmarks.command import moreaugrad
from benchmarks.context import Context
from benchmarks.machine import ROOT
from benchmarks.results import Result, Table
from benchmarks.study_pictures import curves, maps
from benchmarks.subjects import data_folder
from moreaugrad.reports.maps import CSV
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.runs.engine import execute
from moreaugrad.runs.plans.explain import ReportPlan
from moreaugrad.runs.report import ReportRun

PLANS = ROOT / "benchmarks" / "studies"
PROCESSES = 2
CLEAN = "clean"
ABOUT_ATTACKS = ("top-k", "top-4-percent", "normalised-distance", "ssim")
ABOUT_MAPS = ("gini", "zeros", "aopc")
Row = dict[str, str]
NOTE = """Means over images with 95 % intervals (Student's t). failed: images on which the
attack found no gradient, or nothing to change; they say nothing of robustness and are not in the
mean. In parentheses, the mean that counts them as unchanged, as published studies do."""


def run(context: Context, name: str) -> Result:
    data_folder()
    plan = PLANS / f"{name}.toml"
    out = context.cache.folder / f"study-{name}{'-quick' if context.quick else ''}"
    out.parent.mkdir(parents=True, exist_ok=True)
    few = ["--images", "2"] if context.quick else []
    command = ["evaluate", "--config", str(plan), "--trust", "--out", str(out), *few]
    moreaugrad(*command, processes=PROCESSES)
    page = out.with_name(f"{out.name}-page")
    made = execute(ReportRun(ReportPlan(runs=(str(out),))), page)
    print(f"  {page / 'index.html'}", flush=True)
    summary = (page / CSV).read_text(encoding="utf-8")
    rows = list(csv.DictReader(summary.splitlines()))
    finished = MapsFolder.read(out, name)
    return Result(
        title=f"Robustness study: {name}",
        settings={"plan": plan.read_text(encoding="utf-8")},
        figures={"complete": made.complete, "summary.csv": summary},
        tables=[of_maps(rows), *(_of_attack(rows, *found) for found in _attacks(rows))],
        notes=[" ".join(NOTE.split()), *map(str, made.failures)],
        pictures={**curves(finished, ABOUT_ATTACKS), **maps(finished)},
    )


def _attacks(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Attacks and budgets, in their order."""
    found = dict.fromkeys((row["attack"], row["epsilon"]) for row in rows)
    return [pair for pair in found if pair[0] != CLEAN]


def of_maps(rows: Sequence[Row], names: Sequence[str] = ABOUT_MAPS) -> Table:
    """Of the clean images, the metrics of these names that there are."""
    clean = [row for row in rows if row["attack"] == CLEAN]
    metrics = [name for name in names if any(row["metric"] == name for row in clean)]
    return Table(
        caption="Maps of the clean images.",
        header=["method", *metrics],
        rows=[
            [method, *(cell(only(clean, method, metric)) for metric in metrics)]
            for method in dict.fromkeys(row["method"] for row in clean)
        ],
    )


def _of_attack(rows: Sequence[Row], attack: str, epsilon: str) -> Table:
    chosen = [row for row in rows if (row["attack"], row["epsilon"]) == (attack, epsilon)]
    metrics = [name for name in ABOUT_ATTACKS if any(row["metric"] == name for row in chosen)]
    lines: list[list[object]] = []
    for method in dict.fromkeys(row["method"] for row in chosen):
        cells = [only(chosen, method, metric) for metric in metrics]
        failed = cells[0]["failed"] if cells and cells[0] else ""
        lines.append([method, *map(cell, cells), failed])
    return Table(
        caption=f"{attack}, {epsilon}." if epsilon else f"{attack}.",
        header=["method", *metrics, "failed"],
        rows=lines,
    )


def only(rows: Iterable[Row], method: str, metric: str) -> Row | None:
    wanted = (method, metric)
    return next((row for row in rows if (row["method"], row["metric"]) == wanted), None)


def cell(row: Row | None) -> str:
    """`mean [low, high]`, and the mean with what failed; fewer than ten images have no interval."""
    if row is None:
        return "–"
    found = f"{float(row['mean']):.3f}" if row["mean"] else ""
    if row["low"]:
        found += f" [{float(row['low']):.3f}, {float(row['high']):.3f}]"
    if row["failed"] not in ("", "0") and row["mean_with_failed"]:
        found += f" ({float(row['mean_with_failed']):.3f})"
    return found.strip() or "–"
