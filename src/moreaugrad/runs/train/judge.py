"""What a network is worth on pictures that it has not learnt from."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from moreaugrad.data.loading import Loader
from moreaugrad.metrics import gini
from moreaugrad.penalties import L1
from moreaugrad.runs.records import Record
from moreaugrad.runs.train.prepare import PreparedTrain
from moreaugrad.runs.train.protocols import one_step
from moreaugrad.score.forward import forward
from moreaugrad.training.fast import Fast
from moreaugrad.training.loop import Piece
from moreaugrad.training.losses import LOSSES

USUAL = 0.01
"""Of the sign perturbation that every network is told under, in the network's units."""


@torch.no_grad()
def validate(prepared: PreparedTrain, loader: Loader) -> Record:
    """Accuracy and mean loss, in evaluation mode. A loss that is not finite is None."""
    prepared.module.eval()
    right, total, count = 0, 0.0, 0
    loss_of = LOSSES[prepared.plan.loss]
    for piece in _pieces(prepared, loader):
        output = forward(prepared.module, piece.x)
        right += int((output.argmax(1) == piece.y).sum())
        total += float(loss_of(output, piece.y).double().sum())
        count += len(piece.y)
    loss = total / count
    return {
        "accuracy": right / count,
        "loss": loss if math.isfinite(loss) else None,
        "count": count,
    }


def judge(prepared: PreparedTrain, loader: Loader) -> Record:
    """`validate`; and for `judged` pictures, spread evenly, the mean Gini index of the true class's
    logit's gradient, over all entries, and the accuracy under one-step perturbations: the signs of
    the loss's gradient times .01, and the penalty's own where the training has one."""
    found = validate(prepared, loader)
    attacks = {f"sign {USUAL:g}": Fast(L1(USUAL), space=prepared.space)}
    own = one_step(next(iter(prepared.protocols.values())))
    if own is not None:
        attacks["own penalty"] = own
    indices: list[Tensor] = []
    right = dict.fromkeys(attacks, 0)
    seen, count = 0, 0
    for whole in _pieces(prepared, loader):
        piece = _some(whole, spread(seen, len(whole.y), prepared.plan.judged, found["count"]))
        seen += len(whole.y)
        if not len(piece.y):
            continue
        indices.append(gini(_gradient(prepared, piece)))
        for name, attack in attacks.items():
            moved = attack(
                prepared.module, piece.x, piece.y,
                loss=LOSSES[prepared.plan.loss], attention=piece.attention, ids=piece.ids,
            )  # fmt: skip
            with torch.no_grad():
                output = forward(prepared.module, moved)
            right[name] += int((output.argmax(1) == piece.y).sum())
        count += len(piece.y)
    values = torch.cat(indices).double()
    defined = values[~values.isnan()]
    return {
        **found,
        "gini": {"mean": float(defined.mean()) if len(defined) else None, "count": len(defined)},
        "robustness": {name: {"accuracy": n / count, "count": count} for name, n in right.items()},
    }


def _pieces(prepared: PreparedTrain, loader: Loader) -> Iterator[Piece]:
    for number, batch in enumerate(loader.epoch(0)):
        yield prepared.piece(number, batch)


def spread(start: int, length: int, wanted: int, total: int) -> Tensor:
    """Which of the places from `start` on are among `wanted` of all: pictures lie class by class,
    so that the first ones would be of few classes."""
    places = torch.arange(start - 1, start + length) * min(wanted, total)
    return places.div(total, rounding_mode="floor").diff() > 0


def _some(piece: Piece, chosen: Tensor) -> Piece:
    attention, rows = piece.attention, chosen.to(piece.y.device)
    return Piece(
        number=piece.number, x=piece.x[rows], y=piece.y[rows], ids=piece.ids[chosen],
        attention=None if attention is None else attention[rows],
    )  # fmt: skip


def _gradient(prepared: PreparedTrain, piece: Piece) -> Tensor:
    x = piece.x.clone().requires_grad_()
    logits = forward(prepared.module, x).gather(1, piece.y[:, None])
    gradient: Tensor = torch.autograd.grad(logits.sum(), x)[0]
    return gradient
