"""What a network achieves on images that it has not learnt from: numbers, tables, its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import torch
from torch import Tensor

from moreaugrad.data.examples import Examples
from moreaugrad.data.loading import Loader
from moreaugrad.files.foreign import shown
from moreaugrad.files.units import Record
from moreaugrad.metrics import gini
from moreaugrad.models.loading import TRAINED, own_code
from moreaugrad.penalties import L1
from moreaugrad.reports.content import Entry, Table
from moreaugrad.reports.studies import escaped, table_lines
from moreaugrad.runs.directory import number
from moreaugrad.runs.plans.toml import plan_toml
from moreaugrad.runs.train.prepare import PreparedTrain
from moreaugrad.score.forward import forward
from moreaugrad.training import LOSSES, Fast
from moreaugrad.training.adversaries import one_step
from moreaugrad.training.loop import Piece

USUAL = 0.01
"""Of the sign perturbation that every network is measured under, in the network's units."""
MEANING = (
    "Gini: of the gradient of the true class's logit with respect to the network's input, over all "
    "its entries; the mean over images. One step: of the loss, in the network's input units, not "
    "clipped to valid pixels, but that of the training's own penalty as in the training; a network "
    "that withstands one step need not withstand more."
)


class _Validation:
    """Accuracy and mean loss, in evaluation mode. A loss that is not finite is None."""

    def __init__(self, prepared: PreparedTrain) -> None:
        self.module, self.loss_of = prepared.module.eval(), LOSSES[prepared.plan.loss]
        self.right, self.total, self.count = 0, 0.0, 0

    @torch.no_grad()
    def add(self, piece: Piece) -> None:
        output = forward(self.module, piece.x)
        self.right += int((output.argmax(1) == piece.y).sum())
        self.total += float(self.loss_of(output, piece.y).double().sum())
        self.count += len(piece.y)

    def record(self) -> Record:
        loss = number(self.total / self.count)
        return {"accuracy": self.right / self.count, "loss": loss, "count": self.count}


def validate(prepared: PreparedTrain, loader: Loader) -> Record:
    """Accuracy and mean loss, in evaluation mode. A loss that is not finite is None."""
    found = _Validation(prepared)
    for piece in prepared.pieces(loader):
        found.add(piece)
    return found.record()


def measure(prepared: PreparedTrain, examples: Examples) -> Record:
    """`validate`; and for `measured` images, spread evenly, the mean Gini index of the true class's
    logit's gradient, over all entries, and the accuracy under one-step perturbations: the signs of
    the loss's gradient times .01, and the penalty's own where the training has one."""
    found = _Validation(prepared)
    attacks = {f"sign {USUAL:g}": Fast(L1(USUAL), space=prepared.network.space)}
    own = one_step(next(iter(prepared.protocols.values())))
    if own is not None:
        attacks["own penalty"] = own
    indices: list[Tensor] = []
    right = dict.fromkeys(attacks, 0)
    count = 0
    for whole in prepared.pieces(prepared.evaluated(examples)):
        chosen = spread(found.count, len(whole.y), prepared.plan.measured, len(examples))
        found.add(whole)
        for piece in _in_batches(prepared, whole, chosen):
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
    defined = int((~values.isnan()).sum())
    return {
        **found.record(),
        "gini": {"mean": number(float(values.nanmean())), "count": defined},
        "robustness": {name: {"accuracy": n / count, "count": count} for name, n in right.items()},
    }


def spread(start: int, length: int, wanted: int, total: int) -> Tensor:
    """Which of the places from `start` on are among `wanted` of all: images lie class by class, so
    that the first ones would be of few classes."""
    places = torch.arange(start - 1, start + length) * min(wanted, total)
    return places.div(total, rounding_mode="floor").diff() > 0


def _in_batches(prepared: PreparedTrain, piece: Piece, chosen: Tensor) -> Iterator[Piece]:
    """The chosen samples, as many at once as are learnt from: their gradients fit into memory."""
    most = -(-prepared.plan.batch // (prepared.plan.shards or 1))
    for places in torch.split(chosen.nonzero()[:, 0], most):
        attention, rows = piece.attention, places.to(piece.y.device)
        if len(rows):
            yield Piece(
                number=piece.number, x=piece.x[rows], y=piece.y[rows], ids=piece.ids[places],
                attention=None if attention is None else attention[rows],
            )  # fmt: skip


def _gradient(prepared: PreparedTrain, piece: Piece) -> Tensor:
    x = piece.x.clone().requires_grad_()
    logits = forward(prepared.module, x).gather(1, piece.y[:, None])
    gradient: Tensor = torch.autograd.grad(logits.sum(), x)[0]
    return gradient


def measured_table(results: Record) -> Table:
    """Accuracy, Gini index and robustness on each part of the data."""
    parts = [part for part in ("validation", "test") if part in results]
    rows = [
        ("accuracy", [_accuracy(results[part]) for part in parts]),
        ("Gini", [_gini(results[part]["gini"]) for part in parts]),
    ]
    for name in results["validation"]["robustness"]:
        found = [_accuracy(results[part]["robustness"][name]) for part in parts]
        rows.append((f"accuracy, one step, {name}", found))
    return Table(title="", columns=parts, rows=rows)


def _accuracy(found: Record) -> Entry:
    return Entry(text=f"{100 * found['accuracy']:.1f} % of {found['count']}")


def _gini(found: Record) -> Entry:
    mean = found["mean"]
    return Entry(text="undefined" if mean is None else f"{mean:.3f} of {found['count']}")


def epochs_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each epoch."""
    rows = []
    for record in records:
        found, loss = record["validation"], record["training"].get("loss")
        losses = ("" if loss is None else f"{loss:.4g}", f"{found['loss']:.4g}")
        accuracy = Entry(text=f"{100 * found['accuracy']:.1f} %", best=record["best"])
        rows.append((str(record["epoch"]), [*(Entry(text=one) for one in losses), accuracy]))
    columns = ["training loss", "validation loss", "validation accuracy"]
    return Table(title="Epochs", head="epoch", columns=columns, rows=rows)


def chosen_words(prepared: PreparedTrain, results: Record) -> str:
    return (
        f"Of epoch {results['epoch']} of {prepared.plan.epochs}, the best by accuracy on the "
        "held-out images, which makes the figures on these optimistic."
    )


def card_text(prepared: PreparedTrain, results: Record, folder: Path) -> str:
    """The card in Markdown."""
    model, data = prepared.model, prepared.plan.data
    classes, test, examples = model.labels or (), prepared.test, prepared.training
    code = prepared.builder if own_code(prepared.builder) else ""
    trust = f" --trust lets the code be run that builds it, {escaped(code)}." if code else ""
    tested = "no test images" if test is None else f"{len(test)} of the part `{data.test}` to test"
    table = "\n".join(table_lines(measured_table(results)))
    notes = "".join(f"- {escaped(note)}\n" for note in prepared.notes)
    notes += "\n" if notes else ""
    # As in `config.toml`: where the images lie on one machine is nobody's business.
    settings = indent(shown(plan_toml(prepared.plan, folder)).removesuffix("\n"), "    ")
    return f"""# {escaped(model.name)}, trained by moreaugrad

A classifier of {len(classes)} classes: {", ".join(map(escaped, classes))}.

## Use

    moreaugrad explain IMAGE --model {TRAINED}:FOLDER{" --trust" if code else ""}

with the folder that this card lies in.{trust}

## Data

{escaped(examples.name)}: {len(examples)} images to train on, {len(prepared.validation)} held out \
of the same part (`{data.split}`) to choose the epoch by, {tested}.

## Results

{chosen_words(prepared, results)}

{table}

{MEANING}

## Settings

{notes}{settings}

Versions: {", ".join(f"{name} {version}" for name, version in results["versions"].items())}.
"""
