"""The ranks of every image's entries, kept in files while networks are trained on masks."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moreaugrad.data.examples import Examples
from moreaugrad.files.atomic import write_atomically
from moreaugrad.metrics import importance_ranks
from moreaugrad.runs.plans.retrain import FILL, IDS, RANDOM, DiffRoarPlan
from moreaugrad.runs.progress import Watch
from moreaugrad.runs.retrain.examples import Ranks
from moreaugrad.runs.retrain.run import explainers
from moreaugrad.runs.train.prepare import PreparedTrain

RANKS, TRAIN, TEST = "ranks", "train", "test"
APART = 2**40
"""Between the ids of training and test images: their random orders must not be the same."""


def whole(prepared: PreparedTrain) -> Examples:
    """The images that are trained on, and those held out of them, with the ids they have."""
    parts = (prepared.training, prepared.validation)
    labels, ids = (torch.cat([getattr(part, name) for part in parts]) for name in ("labels", "ids"))
    return replace(prepared.training, labels=labels, ids=ids)


def rank(
    plan: DiffRoarPlan, prepared: PreparedTrain, part: str, folder: Path, watch: Watch
) -> None:
    """Writes, by the maps of one network, the ranks of the images of a part of the data, their ids
    in order, and the mean colour of those that are trained on."""
    examples = prepared.test if part == TEST else whole(prepared)
    assert examples is not None
    methods = explainers(plan, prepared)
    found: dict[str, list[np.ndarray]] = {order: [] for order in plan.orders}
    colours, done = torch.zeros(3, dtype=torch.float64), 0
    for number, batch in enumerate(prepared.evaluated(examples).epoch(0)):
        piece = prepared.piece(number, batch)
        keys = piece.ids + (0 if part == TRAIN else APART)
        target = piece.y if plan.target == "label" else None
        for order, blocks in found.items():
            maps = torch.zeros_like(piece.x)
            if order != RANDOM:
                made = methods[order].attribute(piece.x, target, ids=keys)
                assert isinstance(made, Tensor)
                maps = made
            ranks = importance_ranks(maps, unit=plan.unit, ids=keys).cpu().numpy()
            blocks.append(ranks.astype(np.uint16) if ranks[0].size <= 2**16 else ranks)
        colours += batch.x.double().mean((2, 3)).sum(0)
        done += len(batch)
        watch.pace(done, len(examples), f"ranking {part}")
    rows = np.argsort(examples.ids.numpy())
    files = {IDS: examples.ids.numpy()[rows]}
    if part == TRAIN:
        fill = colours / done if plan.fill is None else torch.full((3,), plan.fill)
        files[FILL] = (fill * 255).round().byte().numpy()
    files |= {order: np.concatenate(blocks)[rows] for order, blocks in found.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for what, values in files.items():
        file = io.BytesIO()
        np.save(file, values, allow_pickle=False)
        write_atomically(rank_file(folder, part, what), file.getvalue())


def ranked(folder: Path, plan: DiffRoarPlan) -> bool:
    """All files are there and whole."""
    needed = [(TRAIN, FILL), *((p, what) for p in (TRAIN, TEST) for what in (*plan.orders, IDS))]
    try:
        for part, what in needed:
            np.load(rank_file(folder, part, what), mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True


def rank_file(folder: Path, part: str, what: str) -> Path:
    return folder / f"{part}-{what}.npy"


def load_ranks(folder: Path, part: str, order: str) -> Ranks:
    return Ranks(
        ids=np.load(rank_file(folder, part, IDS)),
        values=np.load(rank_file(folder, part, order), mmap_mode="r"),
    )
