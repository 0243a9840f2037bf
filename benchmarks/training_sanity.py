"""Maps of trained networks whose weights are redrawn: the AdvGrad paper's figures 11 and 15."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from benchmarks import gallery
from benchmarks.command import moreaugrad
from benchmarks.context import Context
from benchmarks.gallery import Case, Column
from benchmarks.results import Result, Table
from benchmarks.training_maps import called, firsts
from benchmarks.training_pictures import column
from benchmarks.training_rows import ONE, STUDIES, Row
from benchmarks.training_runs import trained
from moreaugrad import SimpleGradient
from moreaugrad.data.examples import open_examples
from moreaugrad.metrics.sanity import CASCADING, MODES, redraw
from moreaugrad.models import LoadedModel, load_model
from moreaugrad.reports.curves import COLOURS

NETWORKS = ("plain", "elastic net")
DATA = {"cells": "synthetic cells", "cifar10": "CIFAR-10"}
PICTURES, SEEDS = 64, (0, 1, 2)
METRICS = ("ssim", "spearman", "spearman-signed")
PLACES, SHOWN = (3, 5), 7
"""Classes, of each the first test image, and stages of the redrawing that are shown."""
Figures = Mapping[str, Any]


def run(context: Context) -> Result:
    found: dict[str, dict[str, Figures]] = {}
    tables, pictures = [], {}
    for study, described in list(DATA.items())[: 1 if context.quick else None]:
        rows = [replace(row, seeds=ONE) for row in firsts(study, *NETWORKS)]
        networks = trained(context, study, rows)
        folders = {row.label: networks[row.stem][0] for row in rows}
        found[study] = {row.label: _sanity(context, study, row, folders[row.label]) for row in rows}
        tables += [_table(found[study], mode, described, rows) for mode in MODES]
        pictures[f"training-sanity-{study}.png"] = _maps(context, study, folders, found[study])
    return Result(
        title="Maps of networks with redrawn weights, the AdvGrad paper's figures 11 and 15",
        settings={"images": _count(context), "seeds": SEEDS, "target": "label",
                  "method": "simple-gradient"},
        figures=found,
        tables=tables,
        notes=[
            (
                f"means over {_count(context)} test images and {len(SEEDS)} draws of the "
                "weights; maps of the label's logit. ssim: of magnitudes from their least to their "
                "largest; spearman: of magnitudes; signed: of the entries themselves"
            ),
            (
                "batch normalisation is redrawn as a layer of its own: weight 1, bias 0, mean 0, "
                "variance 1, and keeps its statistics of before until its turn comes"
            ),
            "images of the maps: cascading from left to right, draw 0; " + gallery.READING,
        ],
        pictures={"training-sanity.png": _curves(found), **pictures},
    )  # fmt: skip


def _count(context: Context) -> int:
    return 4 if context.quick else PICTURES


def _sanity(context: Context, study: str, row: Row, network: Path) -> Figures:
    out = context.cache.folder / f"sanity-{study}{'-quick' if context.quick else ''}" / row.stem
    out.parent.mkdir(exist_ok=True)
    data = STUDIES[study].plan(context).data
    moreaugrad(
        "sanity", "--data", str(data.source), "--split", str(data.test), "--target", "label",
        "--images", str(_count(context)), "--seeds", ",".join(map(str, SEEDS)),
        "--metrics", ",".join(METRICS), "--model", f"trained:{network}", "--trust",
        "--out", str(out), "--overwrite", "--quiet",
    )  # fmt: skip
    found: Figures = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return found


def similarity(found: Figures, mode: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Rows of results by block (in the order of the redrawing) and metric."""
    blocks: dict[str, dict[str, dict[str, Any]]] = {}
    for row in found["similarity"]:
        if row["mode"] == mode:
            blocks.setdefault(row["block"], {})[row["metric"]] = row
    return blocks


def _table(found: Mapping[str, Figures], mode: str, described: str, rows: list[Row]) -> Table:
    networks = {row.label: similarity(found[row.label], mode) for row in rows}
    blocks = list(networks[rows[0].label])
    what = "each layer and all after it are" if mode == CASCADING else "one layer alone is"
    return Table(
        caption=f"{described}, {mode}: similarity to the network's own maps when {what} redrawn; "
        "in brackets how many maps have no value.",
        header=["redrawn", *(f"{metric}, {called(row)}" for metric in METRICS for row in rows)],
        rows=[
            [block, *(_cell(networks[row.label][block][metric])
                      for metric in METRICS for row in rows)]
            for block in blocks
        ],
    )  # fmt: skip


def _cell(row: Mapping[str, Any]) -> str:
    lost = f" ({row['undefined']})" if row["undefined"] else ""
    return ("–" if row["mean"] is None else f"{row['mean']:.3f}") + lost


def _curves(found: Mapping[str, Mapping[str, Figures]]) -> bytes:
    """Cascading: a panel for each data set, SSIM full and Spearman dashed."""
    figure = Figure(figsize=(4.6 * len(found), 3.4), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (study, networks) in zip(panels, found.items(), strict=True):
        for colour, (label, each) in zip(COLOURS, networks.items(), strict=False):
            blocks = similarity(each, CASCADING)
            for metric, style in (("ssim", "-"), ("spearman", "--")):
                line = [1.0, *(_number(cells[metric]["mean"]) for cells in blocks.values())]
                axes.plot(line, style, color=colour, marker=".", label=f"{label}, {metric}")
        axes.set(xlabel="layers redrawn, from the output on", title=DATA[study])
        axes.locator_params(axis="x", integer=True)
        axes.axhline(0, color="0.6", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("similarity to the network's own maps")
    panels[-1].legend(frameon=False, fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _maps(
    context: Context, study: str, folders: Mapping[str, Path], found: Mapping[str, Figures]
) -> bytes:
    """Columns: stages of the cascade. Rows: images by each network."""
    plan = STUDIES[study].plan(context).data
    examples = open_examples(str(plan.source), layout=plan.layout, split=str(plan.test))
    labels = examples.labels.tolist()
    shown = [Image.fromarray(examples.pixels(labels.index(place))[0]) for place in PLACES]
    rows, maps = [], []
    for label, folder in folders.items():
        model = load_model(f"trained:{folder}", trust=True)
        x = torch.stack([model.preprocess(picture) for picture in shown])
        target = torch.tensor(PLACES)
        with torch.no_grad():
            chances = model.module(x).softmax(1)
        maps.append(cascade(model, x, target, list(similarity(found[label], CASCADING))))
        rows += [
            Case(name=label, target=place, label=examples.classes[place],
                 probability=float(chances[line, place]))
            for line, place in enumerate(PLACES)
        ]  # fmt: skip
    order = sorted(range(len(rows)), key=lambda at: rows[at].target)
    stages = maps[0]
    columns: list[Column] = [
        column(title, torch.cat([each[title] for each in maps])[order]) for title in stages
    ]
    return gallery.picture([rows[at] for at in order], columns)


def cascade(model: LoadedModel, x: Tensor, target: Tensor, blocks: list[str]) -> dict[str, Tensor]:
    """The network's maps, and those of some stages of the cascade to its end, by caption."""
    module = copy.deepcopy(model.module)
    stages = {round(at * len(blocks) / (SHOWN - 1)) for at in range(SHOWN)}
    found = {}
    for number in range(len(blocks) + 1):
        if number:
            redraw(module.get_submodule(blocks[number - 1]), SEEDS[0], number - 1)
        if number in stages:
            title = f"{number} redrawn" if number else "network"
            maps = SimpleGradient(module).attribute(x, target)
            assert isinstance(maps, Tensor)
            found[title] = maps
    return found
