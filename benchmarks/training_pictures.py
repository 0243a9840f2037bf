"""Maps of networks that studies train, side by side and against the truth."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import gallery, study_pictures
from benchmarks.gallery import Case, Column
from benchmarks.training_maps import Judged, Keep, called, clean, kept_map
from benchmarks.training_rows import Row
from moreaugrad import Status
from moreaugrad.files.units import Record
from moreaugrad.metrics import five_band_sweep
from moreaugrad.models import Preprocess
from moreaugrad.reports.curves import COLOURS, charts
from moreaugrad.reports.reading import CLEAN, MapsFolder
from moreaugrad.reports.statistics import Mean

STEP, COUNT = 0.005, 56
"""Of the sweep: the experiments' own, of the paper that the cells are from."""
WIDE = 14
"""Letters of a line above a map."""
PICTURES = 3
"""Of those whose maps after an attack are shown."""
CELLS = (0, 1, 2, 5, 6, 8)
"""Classes that are shown."""


def truths(found: Judged) -> Mapping[int, Tensor]:
    """True maps `[H, W]` in [0, 1], by the image's place in the data set."""
    data = found.data
    known = {}
    for record in found.first(found.rows[0]).inputs:
        image = data.load_attention(data.items[record["index"]])
        assert image is not None
        known[record["index"]] = torch.from_numpy(np.array(image, dtype=np.float64) / 255)
    return known


def sweep_curves(
    found: Judged, known: Mapping[int, Tensor], *, keep: Keep, name: str
) -> dict[str, bytes]:
    """NAME.png: what five bands show as the edges of the map fall."""
    shown = Figure(figsize=(8.6, 3.4), layout="constrained")
    left, right = shown.subplots(1, 2)
    for colour, row in zip(COLOURS, found.rows, strict=False):
        run = found.first(row)
        places = [record["index"] for record in clean(run) if keep(record)]
        maps = torch.stack([kept_map(run, index).sum(0) for index in places])
        truth = torch.stack([known[index] for index in places])
        sweep = five_band_sweep(maps, truth, step=STEP, count=COUNT)
        recall, precision, alarms = (
            100 * sweep.measure(each).nanmean(1)
            for each in ("recall", "precision", "false-positive-rate")
        )
        for panel, other in ((left, precision), (right, alarms)):
            panel.plot(recall, other, color=colour, label=called(row))
            panel.plot(recall[0], other[0], "o", color=colour, markersize=4)
    for panel, described in ((left, "precision %"), (right, "false positive rate %")):
        panel.set(xlabel="recall %", ylabel=described)
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = left.get_legend_handles_labels()
    shown.legend(handles, labels, loc="outside right upper", frameon=False)
    file = io.BytesIO()
    shown.savefig(file, format="png", dpi=110)
    return {f"{name}.png": file.getvalue()}


def like_truth(
    found: Judged, known: Mapping[int, Tensor], labels: Sequence[str], *, name: str
) -> dict[str, bytes]:
    """NAME.png: a cell, the truth, and the map of a network of each label."""
    chosen = [next((r for r in found.rows if r.label == label), None) for label in labels]
    rows = [row for row in chosen if row is not None]
    run = found.first(rows[0])
    samples = [
        next((record for record in run.inputs if record["class"] == wanted), None)
        for wanted in CELLS
    ]
    shown = [record for record in samples if record is not None]
    truth = torch.stack([known[record["index"]][None] for record in shown])
    # Few places are a feature: at a lower percentile the object would look like one too.
    known_column = replace(column("truth", truth), percentile=100.0)
    columns = [known_column, *network_columns(found, rows, shown)]
    return {f"{name}.png": gallery.picture(cases(run, shown), columns, photos(run, shown))}


def network_columns(found: Judged, rows: Sequence[Row], shown: Sequence[Record]) -> list[Column]:
    """The gradients of each row's first network."""
    return [
        column(
            fill(called(row), WIDE),
            torch.stack([kept_map(found.first(row), record["index"]) for record in shown]),
        )
        for row in rows
    ]


def column(title: str, maps: Tensor) -> Column:
    """Of maps that need no word about how they came about."""
    return Column(
        title=title,
        maps=maps,
        status=(Status.DIRECT,) * len(maps),
        error=torch.full((len(maps),), torch.nan),
        evaluations=torch.ones(len(maps)),
    )


def cases(run: MapsFolder, shown: Sequence[Record]) -> list[Case]:
    """Rows of a gallery: the label, and what the run's network gives it (0: not its likeliest)."""
    targets = {r["index"]: r["target"] for r in clean(run)}
    return [_case(record, targets[record["index"]]) for record in shown]


def _case(sample: Record, target: Mapping[str, Any]) -> Case:
    given = {each["class"]: each["probability"] for each in sample["prediction"]}
    label = str(target["label"])
    words = label.partition("-")[2].replace("-", " ") if label[0].isdigit() else label
    return Case(
        name=Path(sample["input"]).name,
        target=target["class"],
        label=words,
        probability=given.get(target["class"], 0.0),
    )


def photos(run: MapsFolder, shown: Sequence[Record]) -> list[Any]:
    """What the network was shown, `[H, W, 3]` in [0, 1]."""
    table: dict[str, Any] = run.config["model"]["preprocess"]
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in table.items()
    }
    preprocess = Preprocess(**given)
    return [
        np.asarray(preprocess.pixels(run.input_tensors(record["index"])["input"]))
        for record in shown
    ]


def robustness_curves(
    numbers: Sequence[Mean], lines: Sequence[tuple[str, str]], metrics: Sequence[str], *, name: str
) -> dict[str, bytes]:
    """NAME-ATTACK.svg: metrics against the budget, a line for each (network, method)."""
    chosen = [
        replace(cell, run=name, method=f"{cell.run}: {cell.method}")
        for line in lines
        for cell in numbers
        if (cell.run, cell.method) == line
    ]
    return {
        f"{name}-{chart.title.replace(' ', '-')}.svg": chart.svg.encode()
        for chart in charts(chosen, metrics, "budget")
    }


def post_processed(found: Judged, methods: Sequence[str], *, name: str) -> dict[str, bytes]:
    """NAME.png: columns are methods, rows the networks on the first images."""
    runs = [found.first(row) for row in found.rows]
    shown = _first(runs[0])
    rows = [
        replace(case, label=run.label)
        for places in zip(*(cases(run, shown) for run in runs), strict=True)
        for run, case in zip(runs, places, strict=True)
    ]
    columns = [
        column(
            fill(method, WIDE),
            torch.stack([kept_map(run, r["index"], method) for r in shown for run in runs]),
        )
        for method in methods
    ]
    return {f"{name}.png": gallery.picture(rows, columns)}


def attacked(
    runs: Sequence[MapsFolder],
    lines: Sequence[tuple[str, str]],
    attacks: Sequence[str],
    *,
    name: str,
) -> dict[str, bytes]:
    """NAME.png: columns are (network, method), rows the first images before and after attacks,
    each at its largest budget."""
    shown = _first(runs[0])
    after: list[tuple[str, float | None]] = [(CLEAN, None)]
    after += [(attack, runs[0].budgets(attack)[-1]) for attack in attacks]
    rows = [
        replace(case, label=attack if budget is None else f"{attack} {budget:g}")
        for case in cases(runs[0], shown)
        for attack, budget in after
    ]
    columns = []
    for network, method in lines:
        run = next(run for run in runs if run.label == network)
        made = study_pictures.column(run, method, shown, after)
        if made is not None:
            columns.append(replace(made, title=f"{network}\n{method}"))
    return {f"{name}.png": gallery.picture(rows, columns)}


def _first(run: MapsFolder) -> list[Record]:
    """Images that are shown, of those whose maps are kept."""
    return [record for record in run.inputs if "problem" not in record][:PICTURES]
