"""What the robustness study shows: its curves, and maps before and after the attacks."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import torch

from benchmarks import gallery
from benchmarks.gallery import Case, Column, Ended
from moreaugrad import Status
from moreaugrad.attacks import AttackStatus
from moreaugrad.files.units import Record
from moreaugrad.reports.curves import charts
from moreaugrad.reports.reading import CLEAN, MapsFolder
from moreaugrad.reports.statistics import Intervals, means

PICTURES = 2
Shown = tuple[str, float | None]


class Unsuited(Enum):
    """An attack that does not suit a method."""

    NO_DERIVATIVE = "no derivative"

    @property
    def ok(self) -> bool:
        return False


def curves(run: MapsFolder, metrics: Sequence[str]) -> dict[str, bytes]:
    """Each attack's metrics against its budget, as SVG by file name."""
    found = [cell for cell in means(run, Intervals()) if cell.metric in metrics]
    return {
        f"study-{run.label}-{chart.title.replace(' ', '-')}.svg": chart.svg.encode()
        for chart in charts(found, metrics, "budget")
    }


def maps(run: MapsFolder) -> dict[str, bytes]:
    """A PNG: columns are methods, rows attacks on the first images."""
    samples = [record for record in run.inputs if "problem" not in record][:PICTURES]
    shown: list[Shown] = [(CLEAN, None), *((a, run.budgets(a)[-1]) for a in run.attacks)]
    rows = [_row(sample, each) for sample in samples for each in shown]
    columns = [column(run, method, samples, shown) for method in run.methods]
    made = [each for each in columns if each is not None]
    return {f"study-{run.label}-maps.png": gallery.picture(rows, made)}


def _row(sample: Record, shown: Shown) -> Case:
    attack, epsilon = shown
    best = sample["prediction"][0]
    return Case(
        name=f"{best['label']} {Path(sample['sample']).stem.partition('_')[0]}",
        target=best["class"],
        label=attack if epsilon is None else f"{attack} {epsilon:g}",
        probability=best["probability"],
    )


def column(
    run: MapsFolder, method: str, samples: Sequence[Record], shown: Sequence[Shown]
) -> Column | None:
    """None for a method without maps of these images."""
    found, status, evaluations = [], [], []
    for sample in samples:
        index = sample["index"]
        own = run.by_key[method, CLEAN, None]
        clean = run.map(next(record for record in own if record["index"] == index))
        if clean is None:
            return None
        for attack, epsilon in shown:
            record = next(r for r in run.by_key[method, attack, epsilon] if r["index"] == index)
            # What no attack could be made on stays as it is, and is reported.
            changed = run.map(record)
            found.append(clean if changed is None else changed)
            status.append(_status(record))
            evaluations.append(record.get("attacked", record.get("map", {})).get("evaluations", 0))
    return Column(
        title=method.replace("-", "-\n", 1) if len(method) > 16 else method,
        maps=torch.stack(found),
        status=tuple(status),
        error=torch.full((len(found),), torch.nan),
        evaluations=torch.tensor(evaluations),
    )


def _status(record: Record) -> Ended:
    if "problem" in record:
        return Unsuited.NO_DERIVATIVE
    attacked = record.get("attacked")
    return AttackStatus(attacked["status"]) if attacked else Status(record["map"]["status"])
