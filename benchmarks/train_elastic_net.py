"""Trains the built-in classifier on with the elastic net's penalty, for the package to carry.

    python -m benchmarks.train_elastic_net --runs runs \
        --out src/moreaugrad/weights/builtin-elastic-net.safetensors

runs `moreaugrad train` twice from the built-in weights, with the penalty and, to compare with,
without (protocol `plain`), and measures the three networks on cells that none has learnt from and
nothing was chosen by: accuracy, and of the predicted class's gradient the Gini index and how well
it finds the true map. Trainings go on where they were stopped. The last epoch is kept.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.command import moreaugrad
from moreaugrad.data.cells import FEATURE, Cells
from moreaugrad.metrics import auroc, average_precision, gini
from moreaugrad.models import LoadedModel, load_model
from moreaugrad.models.sources import SIZE

TRAIN = (
    "train", "--data", "cells", "--model", "builtin", "--size", str(SIZE), "--batch-size", "64",
    "--lr", "1e-3", "--schedule", "cosine", "--amp", "bfloat16", "--threads", "1",
)  # fmt: skip
PENALTY = ("--protocol", "fast", "--penalty", "elastic-net", "--epsilon", "0.2,4")
PLAIN = ("--protocol", "plain")
FRESH_SEED = 4
"""Of the cells that are measured on; those of seed 3 were looked at to choose epsilon."""


Fresh = list[tuple[Tensor, Tensor, Tensor]]
"""Batches of images, their labels, and what gives away their class."""


def batches(count: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Cells of another seed, as images hold them."""
    cells = Cells(size=SIZE, seed=FRESH_SEED, count=count)
    for rows in torch.arange(count).split(128):
        images, labels, truth = zip(*(cells[int(row)] for row in rows), strict=True)
        feature = torch.stack(truth) == np.float32(FEATURE).item()
        yield (torch.stack(images) * 255).round() / 255, torch.tensor(labels), feature


def measure(model: LoadedModel, cells: Fresh) -> dict[str, float]:
    """Means over the cells; those of the truth leave out what has none (empty, plain colours)."""
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (model.preprocess.mean, model.preprocess.std)
    )
    found: dict[str, list[Tensor]] = {}
    for pixels, labels, feature in cells:
        x = ((pixels - mean) / std).requires_grad_()
        top, predicted = model.module(x).max(1)
        map_ = torch.autograd.grad(top.sum(), x)[0]
        known = feature.flatten(1).any(1)
        size = map_.abs().sum(1)[known]
        for name, values in {
            "accuracy": (predicted == labels).double(),
            "gini": gini(map_),
            "auroc": auroc(size, feature[known]),
            "average_precision": average_precision(size, feature[known]),
        }.items():
            found.setdefault(name, []).append(values)
    return {name: float(torch.cat(values).nanmean()) for name, values in found.items()}


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    lines = ["| network | accuracy | Gini | AUROC | AP |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        figures = [f"{100 * row['accuracy']:.1f} %", *(f"{v:.3f}" for v in list(row.values())[1:])]
        lines.append(f"| {' | '.join([name, *figures])} |")
    return "\n".join(lines)


def main(
    out: Annotated[Path, typer.Option(help="the safetensors file to write")],
    runs: Annotated[Path, typer.Option(help="folder of the trainings")],
    count: Annotated[int, typer.Option(help="cells to train on")] = 4096,
    epochs: int = 4,
    fresh: Annotated[int, typer.Option(help="cells to measure on")] = 2048,
) -> None:
    """Train the built-in classifier on, with and without a penalty."""
    torch.set_num_threads(1)
    scale = ("--images", str(count), "--epochs", str(epochs))
    cells = list(batches(fresh))
    rows = {"builtin": measure(load_model("builtin"), cells)}
    for name, protocol in {"plain": PLAIN, "elastic-net": PENALTY}.items():
        moreaugrad(*TRAIN, *scale, *protocol, "--out", str((runs / name).resolve()))
        trained = load_model("builtin", weights=runs / name / "last.safetensors")
        rows[name] = measure(trained, cells)
    run = runs / "elastic-net"
    settings = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    metadata = {
        "settings": json.dumps(settings),
        "fresh_cells": str(fresh),
        **{name: f"{value:.4f}" for name, value in rows["elastic-net"].items()},
        "torch": torch.__version__,
    }
    partial = out.with_name(out.name + ".partial")
    save_file(load_file(run / "last.safetensors"), partial, metadata=metadata)
    partial.replace(out)
    print(table(rows))
    print(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
