"""Maps of networks that have learnt permuted labels: the AdvGrad paper's figure 9."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks import gallery
from benchmarks.command import moreaugrad
from benchmarks.context import Context
from benchmarks.gallery import Case
from benchmarks.results import Result, Table
from benchmarks.training_again import SEEDS, STUDY, again, kept, percent, rows, similarity
from benchmarks.training_pictures import column
from benchmarks.training_rows import CELLS, STUDIES, Row
from moreaugrad.data.examples import Examples, open_examples
from moreaugrad.files.atomic import write_atomically
from moreaugrad.runs.plans.toml import plan_toml
from moreaugrad.runs.plans.train import AugmentPlan, TrainPlan
from moreaugrad.runs.retrain.pairs import LEARNT

COUNT, EPOCHS = 512, 80
"""Few enough cells for their permuted labels to be learnt by heart."""
METRICS = ("ssim", "spearman", "spearman-signed")
ARMS = {"exchanged0-seed0": "true labels", "permuted-seed0": "permuted"}
SHOWN = 4
GRADIENT = "simple-gradient"
Figures = Mapping[str, Any]


def run(context: Context) -> Result:
    chosen = rows("plain", "elastic net")
    found: dict[str, dict[str, Any]] = {}
    for row in chosen:
        file = kept(context) / f"labels-{row.stem}.toml"
        write_atomically(file, plan_toml(_plan(context, row), file.parent).encode())
        found[row.label] = again(
            context, "labels", row, "--training", str(file), "--seeds", SEEDS,
            "--metrics", ",".join(METRICS), "--images", str(_count(context)),
        )  # fmt: skip
        for network in found[row.label]["networks"]:
            network |= _sizes(_maps(context, row, _arm(network)))
    examples = open_examples(str(_plan(context, chosen[0]).data.source), split="test")
    return Result(
        title="Maps of networks that learnt permuted labels of synthetic cells, the AdvGrad "
        "paper's figure 9",
        settings={"seeds": SEEDS, "cells": _count(context), "epochs": EPOCHS,
                  "rows": [row.stem for row in chosen]},
        figures=found,
        tables=[_networks(found), _similarity(found)],
        notes=[
            (
                f"{_count(context)} cells, a tenth of them held out, without augmentation, "
                f"{EPOCHS} epochs; maps of the label's logit of as many test cells"
            ),
            (
                "permuted labels: against a network of another seed on the true labels; another "
                "seed: two networks on the true ones, what the seed alone takes from the similarity"
            ),
            *weak(found),
            gallery.READING,
        ],
        pictures={"training-labels.png": _picture(context, chosen, examples)},
    )  # fmt: skip


def _count(context: Context) -> int:
    return 128 if context.quick else COUNT


def _plan(context: Context, row: Row) -> TrainPlan:
    """Of networks that can learn any labels by heart."""
    folder = context.cache.folder / f"cells-{CELLS}-few{'-quick' if context.quick else ''}"
    count = str(_count(context))
    moreaugrad(
        "data", "cells", "--images", count, "--test-images", count, "--size", str(CELLS),
        "--out", str(folder), "--quiet",
    )  # fmt: skip
    plan = STUDIES[STUDY].plan(context)
    return replace(
        plan, data=replace(plan.data, source=str(folder)), protocol=row.protocol,
        augment=AugmentPlan(size=CELLS, flip=False), epochs=2 if context.quick else EPOCHS,
    )  # fmt: skip


def weak(found: Mapping[str, Figures]) -> list[str]:
    """A note on each protocol whose networks do not know their permuted labels."""
    notes = []
    for label, each in found.items():
        known = [n["training_accuracy"] for n in each["networks"] if n["permuted"]]
        if min(known) < LEARNT:
            notes.append(
                f"{label}: permuted labels were not learnt by heart ({LEARNT:.0%} of the training "
                f"cells is asked for, {', '.join(map(percent, known))} % were): its row says how "
                "such training fails as much as what its maps show"
            )
    return notes


def _arm(network: Figures) -> str:
    return f"{'permuted' if network['permuted'] else 'exchanged0'}-seed{network['seed']}"


def _maps(context: Context, row: Row, arm: str) -> torch.Tensor:
    file: Path = kept(context) / f"labels-{row.stem}" / "records" / f"{arm}.safetensors"
    return load_file(file)[GRADIENT]


def _sizes(maps: torch.Tensor) -> dict[str, float]:
    """Mean length of the maps, and the share of them that are zero everywhere."""
    lengths = maps.flatten(1).double().norm(dim=1)
    return {"length": float(lengths.mean()), "blank": float((lengths == 0).double().mean())}


def _networks(found: Mapping[str, Figures]) -> Table:
    return Table(
        caption="Networks, and how long their maps are (mean length of the gradient; how many are "
        "zero everywhere).",
        header=["training", "labels", "seed", "on its training cells %", "on test cells %",
                "length", "blank %"],
        rows=[
            [label, "permuted" if n["permuted"] else "true", n["seed"],
             percent(n["training_accuracy"]), percent(n["accuracy"]), n["length"],
             percent(n["blank"])]
            for label, each in found.items()
            for n in each["networks"]
        ],
    )  # fmt: skip


def _similarity(found: Mapping[str, Figures]) -> Table:
    lines: dict[tuple[str, str], list[object]] = {}
    for label, each in found.items():
        for row in each["similarity"]:
            lines.setdefault((label, row["group"]), []).append(similarity(row))
    return Table(
        caption="Mean similarity of the maps of the same test cells, with 95 % intervals "
        "(Student's t).",
        header=["training", "between", *METRICS],
        rows=[[*key, *values] for key, values in lines.items()],
    )


def _picture(context: Context, chosen: list[Row], examples: Examples) -> bytes:
    """A cell of some classes, and its maps by each kind of network."""
    labels = examples.labels.tolist()
    places = [labels.index(each) for each in sorted(set(labels))[1 : 2 * SHOWN : 2]]
    cases = [
        Case(name=f"{place}_", target=labels[place], label=examples.classes[labels[place]],
             probability=float("nan"))
        for place in places
    ]  # fmt: skip
    columns = [
        column(f"{row.label}\n{described}", _maps(context, row, arm)[places])
        for row in chosen
        for arm, described in ARMS.items()
    ]
    return gallery.picture(cases, columns, [examples.pixels(p)[0] / 255.0 for p in places])
