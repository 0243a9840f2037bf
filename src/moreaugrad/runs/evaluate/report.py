"""Runs as one page, with their tables as CSV and LaTeX beside it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w
from torch import Tensor

from moreaugrad.files.names import number_name
from moreaugrad.models import Preprocess
from moreaugrad.pictures import Style, draw, photo
from moreaugrad.report import Page, Section, Tile, page_files
from moreaugrad.runs.cases import unique_names
from moreaugrad.runs.config import relative
from moreaugrad.runs.directory import CONFIG, RunDirectory
from moreaugrad.runs.evaluate.curves import charts
from moreaugrad.runs.evaluate.drops import bases, drops, drops_csv, drops_table
from moreaugrad.runs.evaluate.intervals import Intervals
from moreaugrad.runs.evaluate.judges import BY_PAIR
from moreaugrad.runs.evaluate.plan import CLEAN
from moreaugrad.runs.evaluate.reading import Run, failed, read_run, why
from moreaugrad.runs.evaluate.statistics import WORST, Cell, cells
from moreaugrad.runs.evaluate.tables import blocks, csv_text, latex, page_table
from moreaugrad.runs.evaluate.work import tensor_name
from moreaugrad.runs.folder import PAGE
from moreaugrad.runs.records import Record

CSV, LATEX, DROPS = "summary.csv", "tables.tex", "drops.csv"
FINISHED = "report"
"""The unit of all that is written."""
REASONS = 12
"""Kinds of failures that the page tells one by one."""


class ReportFolder(RunDirectory):
    """Holds `report.toml`, the page (with `index_files/` where it is large) and the tables."""

    command = "report"
    config = "report.toml"
    units = (FINISHED,)


@dataclass(frozen=True, kw_only=True)
class Report:
    """complete: of all runs. notes: what a reader has to know first."""

    page: Path
    complete: bool
    notes: list[str] = field(default_factory=list)


def report(
    runs: Sequence[Path],
    out: Path,
    *,
    confidence: float = 0.95,
    gallery: int = 4,
    overwrite: bool = False,
    base: Sequence[str] = (),
) -> Report:
    """Writes `index.html`, `summary.csv` and `tables.tex` into `out`, and `report.toml`, which says
    what they are of.

    base: which method each is made of (`METHOD=BASE`, or `BASE` for all others): the page and
    `drops.csv` then tell the faithfulness that is lost.
    Errors: ValueError for what `evaluate` did not make, for runs without any finished map, and for
    a folder that holds something else.
    """
    if gallery < 0:
        raise ValueError(f"gallery: expected at least 0 pictures, got {gallery}")
    intervals = Intervals(confidence=confidence)
    names = unique_names([path.resolve().name for path in runs])
    found = [read_run(path, name) for path, name in zip(runs, names, strict=True)]
    for run in found:
        if not run.records:
            raise ValueError(f"{run.folder.path}: expected finished maps, but there are none yet")
    every = [cell for run in found for cell in cells(run, intervals)]
    tables, several = blocks(every), len(found) > 1
    lost = [drop for run in found for drop in drops(run, bases(run, base), intervals)]
    notes = [*_states(found), *(line for run in found for line in _failures(run))]
    pairs = [name for run in found for name in run.plan.metrics
             if run.metric(name).kind == BY_PAIR]  # fmt: skip
    page = Page(
        title=_title(found),
        lead="How maps change under attacks that keep the class, and what the maps are like. "
        f"Means over pictures; after them {100 * confidence:g} % intervals (Student's t) where "
        "there are ten values or more.",
        sections=[section for run in found for section in _gallery(run, gallery, several)],
        facts=_facts(found),
        notes=[*notes, *_explained(every)],
        settings="\n".join(f"# {run.folder.path.name}/{CONFIG}\n{run.text}" for run in found),
        tables=[page_table(block, several=several) for block in tables]
        + ([drops_table(lost)] if lost else []),
        charts=charts(every, pairs, "budget"),
    )
    texts = {
        CSV: csv_text(every), LATEX: latex(tables, confidence, several=several),
        **({DROPS: drops_csv(lost)} if lost else {}),
    }  # fmt: skip
    settings = {
        "runs": [relative(str(path), out) for path in runs], "confidence": confidence,
        "gallery": gallery, "base": list(base),
    }  # fmt: skip
    folder = ReportFolder(out)
    with folder.opened(tomli_w.dumps(settings), overwrite=overwrite):
        files = {name: text.encode() for name, text in texts.items()}
        folder.write(FINISHED, files | page_files(page, PAGE))
    return Report(page=out / PAGE, complete=all(run.complete for run in found), notes=notes)


def _title(runs: Sequence[Run]) -> str:
    methods = list(dict.fromkeys(name for run in runs for name in run.plan.methods))
    what = f"{len(methods)} methods" if len(methods) > 1 else methods[0]
    pictures = max(len(run.samples) - len(run.unreadable) for run in runs)
    where = f"{len(runs)} runs" if len(runs) > 1 else f"{pictures} pictures"
    return f"Robustness of {what} on {where}"


def _facts(runs: Sequence[Run]) -> dict[str, str]:
    first = runs[0]
    used = first.folder.environments()
    facts = {
        "model" if len(runs) == 1 else f"model of {run.label}": run.plan.model.name for run in runs
    }
    facts["pictures"] = ", ".join(
        f"{len(run.samples) - len(run.unreadable)} of {run.plan.samples}" for run in runs
    )
    if used:
        versions = used[0]["versions"]
        facts["versions"] = f"moreaugrad {versions['moreaugrad']}, torch {versions['torch']}"
        facts["device"] = used[0].get("accelerator", used[0]["device"])
    return facts


def _states(runs: Sequence[Run]) -> list[str]:
    """What is missing, and what does not belong together."""
    found = [
        f"{run.label} is not complete: {run.finished} of {run.units} units are finished, and the "
        "figures are of these alone. The command that began it goes on with it."
        for run in runs
        if not run.complete
    ]
    for run in runs:
        if run.unreadable:
            names = ", ".join(record["sample"] for record in run.unreadable[:5])
            more = ", ..." if len(run.unreadable) > 5 else ""
            found.append(
                f"{run.label}: {len(run.unreadable)} of {len(run.samples)} pictures could not be "
                f"read and are left out ({names}{more})."
            )
        if len(run.folder.environments()) > 1:
            found.append(f"{run.label} was computed with several versions or on several machines.")
    if len({tuple(record["sample"] for record in run.samples) for run in runs}) > 1:
        found.append("The runs are of different pictures.")
    return found


def _failures(run: Run) -> list[str]:
    """Methods and attacks without a result, alike ones counted together."""
    counted = Counter(
        (record["method"], record["attack"], why(record))
        for record in run.records
        if failed(record)
    )
    told = [
        f"{run.label}, {method}" + ("" if attack == CLEAN else f" under {attack}")
        + f": {count} without a result: {reason}"
        for (method, attack, reason), count in counted.items()
    ]  # fmt: skip
    more = len(told) - REASONS
    return told[:REASONS] + ([f"{run.label}: {more} more kinds of failures."] if more > 0 else [])


def _explained(every: Sequence[Cell]) -> list[str]:
    failing = (
        "An attack that failed on a picture says nothing about its robustness: such pictures are "
        "counted as failed and are not in the mean (the mean with their unchanged maps, as "
        "published studies have it, stands behind). Metrics without a value there (a zero map, "
        "say) are counted as undefined."
    )
    found = [failing]
    if any(cell.attack == WORST for cell in every):
        found.append(
            f"“{WORST}” takes for each picture, budget and metric the attack with the worst value: "
            "what a method is robust against only by hiding its gradient does not count there."
        )
    return found


def _gallery(run: Run, count: int, several: bool) -> list[Section]:
    """The first pictures with their maps before and after, at each attack's largest budget."""
    told = run.plan.model.preprocess
    preprocess = Preprocess() if told is None else told.of(Preprocess())
    found = []
    for sample in [record for record in run.samples if "problem" not in record][:count]:
        index = sample["index"]
        x = run.tensors(index).get(str(index))
        if x is None:
            continue
        tiles = [
            tile for method in run.plan.methods for tile in _tiles(run, method, index, preprocess)
        ]
        title = f"{run.label}: {sample['sample']}" if several else sample["sample"]
        found.append(
            Section(
                title=title,
                tiles=tiles,
                photo=photo(preprocess.pixels(x).permute(2, 0, 1)),
                prediction=[(p["label"], p["probability"]) for p in sample["prediction"]],
                target=_target(run, index),
                note=f"Class in the data set: {sample['label']}." if "label" in sample else "",
            )
        )
    return found


def _target(run: Run, index: int) -> str:
    targets = (r["target"]["label"] for r in run.records if r["index"] == index and "target" in r)
    return next(targets, "")


def _tiles(run: Run, method: str, index: int, preprocess: Preprocess) -> list[Tile]:
    tensors = run.tensors(index, method)
    shown = [(CLEAN, None), *((a, run.plan.budgets(a)[-1]) for a in run.plan.attacks)]
    found = []
    for attack, epsilon in shown:
        records = run.by_key[method, attack, epsilon]
        record = next((r for r in records if r["index"] == index), None)
        values = tensors.get(tensor_name(index, attack, epsilon, "map"))
        if record is None or (values is None and "problem" not in record):
            continue
        under = tensors.get(tensor_name(index, attack, epsilon, "input"))
        if under is None:
            under = run.tensors(index).get(str(index))
        budget = "" if epsilon is None else f" {number_name(epsilon)}"
        title = method if attack == CLEAN else f"{method}, {attack}{budget}"
        found.append(_tile(title, record, values, under, preprocess))
    return found


def _tile(
    title: str, record: Record, values: Tensor | None, under: Tensor | None, preprocess: Preprocess
) -> Tile:
    if values is None:
        return Tile(title=title, pictures={}, status="no map", ok=False, warning=why(record))
    over = None if under is None else preprocess.pixels(under)
    if over is not None and values.shape[-2:] != over.shape[:2]:
        over = None
    attacked, lost = record.get("attacked"), failed(record)
    status = record["map"]["status"] if attacked is None else attacked["status"]
    metrics = {name: math.nan if v is None else v for name, v in record["metrics"].items()}
    distance = {} if attacked is None else {"distance": f"{attacked['distance'] or 0:.3g}"}
    return Tile(
        title=title,
        pictures=draw(values, over, Style()) if bool(values.isfinite().all()) else {},
        status=status,
        ok=record["map"]["ok"] and not lost,
        warning=attacked["message"] if attacked is not None and lost else None,
        scores=metrics,
        extra=distance,
    )
