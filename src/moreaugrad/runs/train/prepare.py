"""A plan with everything loaded: what cannot work is told before anything is written."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from moreaugrad.data.augment import Augment
from moreaugrad.data.dataset import files_digest
from moreaugrad.data.examples import CELLS, Examples, open_examples, split_off
from moreaugrad.data.loading import Batch, Loader
from moreaugrad.data.prepare import PreparedExamples as Readable
from moreaugrad.data.prepare import prepare
from moreaugrad.models import LoadedModel, load_model
from moreaugrad.models.heads import Head, fit_head, last_layer
from moreaugrad.models.trained import Trained
from moreaugrad.runs.config import from_table, to_table
from moreaugrad.runs.network import resolved_device, weights_digest
from moreaugrad.runs.pace import Unwatched, Watch
from moreaugrad.runs.results import Failure
from moreaugrad.runs.team import Team
from moreaugrad.runs.train.optimisers import make_optimiser
from moreaugrad.runs.train.plan import TrainPlan
from moreaugrad.runs.train.protocols import check_attention, check_fits, make_protocol
from moreaugrad.score.pixels import InputSpace
from moreaugrad.training.loop import Piece
from moreaugrad.training.protocol import Protocol

EVALUATED = 128
"""Samples of a batch when nothing is learnt."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a training may use of the machine; its result does not depend on it.

    workers: processes that read pictures and make batches. memory: bytes of decoded pictures that
    are kept. checkpoint_every: batches between checkpoints; None is one an epoch.
    """

    workers: int = 0
    memory: float = 4e9
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("memory", 0), ("checkpoint_every", 1)):
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise ValueError(f"{name}: expected a number of at least {least}, got {value}")


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedTrain:
    """`plan` has every choice made. protocols: of this process's pieces, by their numbers.

    builder: the name that the network is built by, whatever it begins with. notes: choices that a
    user should know of.
    """

    plan: TrainPlan
    means: Means
    model: LoadedModel
    builder: str
    optimiser: torch.optim.Optimizer
    protocols: dict[int, Protocol]
    loader: Loader
    validation: Loader
    test: Loader | None
    space: InputSpace
    team: Team
    head: Head | None
    notes: Sequence[str]

    @property
    def module(self) -> nn.Module:
        return self.model.module

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def steps(self) -> int:
        return self.plan.epochs * len(self.loader)

    def input(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1] as what the network takes in."""
        mean, std = (
            torch.tensor(v, device=self.device).view(-1, 1, 1)
            for v in (self.model.preprocess.mean, self.model.preprocess.std)
        )
        return (x.to(self.device) - mean) / std

    def piece(self, number: int, batch: Batch) -> Piece:
        attention = batch.attention
        return Piece(
            number=number,
            x=self.input(batch.x),
            y=batch.y.to(self.device),
            ids=batch.ids,
            attention=None if attention is None else attention.to(self.device),
        )


def prepare_train(
    plan: TrainPlan,
    team: Team | None = None,
    means: Means | None = None,
    watch: Watch | None = None,
) -> PreparedTrain:
    """Reads every picture once; those that cannot be read are told and left out.

    Errors: ValueError or TypeError for whatever cannot work; nothing is written.
    """
    team, means, watch = team or Team(), means or Means(), watch or Unwatched()
    shards = plan.shards or team.size
    if shards % team.size or shards > plan.batch:
        raise ValueError(
            f"shards: expected a multiple of the {team.size} processes, and at most the "
            f"{plan.batch} samples of a batch; got {shards}"
        )
    device = resolved_device(plan.device)
    own = team.own(device)
    model = load_model(
        **plan.model.arguments(), device=own, pretrained=not plan.model.from_scratch, seed=plan.seed
    )
    augment = _augment(plan, model)
    held = Augment.evaluation(augment.size, augment.resize)
    model = replace(model, preprocess=replace(model.preprocess, resize=held.first, crop=held.size))
    space = InputSpace(mean=model.preprocess.mean, std=model.preprocess.std)
    pieces = team.share(range(shards))
    protocols = {number: make_protocol(plan, space) for number in pieces}
    # Before the pictures are read, which may take a while.
    check_fits(model, protocols[pieces[0]], augment.size)
    reader = _Reader(plan, augment, means, team.size, watch)
    examples = reader.read(plan.data.split, plan.data.count)
    check_attention(plan.protocol, protocols[pieces[0]], examples)
    head, model, notes = _headed(model, examples, plan)
    if examples.unreadable:
        notes.append(f"{len(examples.unreadable)} pictures cannot be read and are left out")
    model.module.requires_grad_(True)
    drawn_by = plan.seed if plan.data.split_seed is None else plan.data.split_seed
    training, validation = split_off(examples, plan.data.validation, drawn_by)
    test = None
    if plan.data.test is not None:
        test = reader.read(plan.data.test, plan.data.test_count, examples.classes)
        _check_apart(examples, test)
    loaders = [
        Loader(part, held, batch=EVALUATED, shuffle=False, workers=means.workers)
        for part in (validation, test)
        if part is not None
    ]
    return PreparedTrain(
        plan=replace(
            plan, shards=shards, device=device, threads=plan.threads or torch.get_num_threads(),
            augment=to_table(augment),
            start=weights_digest(model.module), pictures=_pictures(examples),
            files=_files([examples, test]),
            model=plan.model.resolved(model.preprocess),
        ),
        means=means, model=model, builder=Trained.builder(plan.model.name),
        optimiser=make_optimiser(plan.optimiser, model.module), protocols=protocols,
        loader=Loader(
            training, augment, batch=plan.batch, seed=plan.seed, workers=means.workers,
            pin=torch.device(own).type == "cuda",
        ),
        validation=loaders[0], test=loaders[1] if test is not None else None,
        space=space, team=team, head=head, notes=notes,
    )  # fmt: skip


def _augment(plan: TrainPlan, model: LoadedModel) -> Augment:
    table = {**plan.augment}
    shape = model.preprocess.input_shape
    if "size" not in table:
        if shape is None or shape[1] != shape[2]:
            raise ValueError(
                f"size: expected the side of the pictures, because {model.name} does not tell it"
            )
        table["size"] = shape[1]
    resize = table.get("resize")
    if isinstance(resize, tuple):
        table["resize"] = list(resize)
    return from_table(Augment, table, "augment.")


@dataclass(frozen=True)
class _Reader:
    """Opens parts of the data, and reads every picture once."""

    plan: TrainPlan
    augment: Augment
    means: Means
    processes: int
    watch: Watch

    def read(self, split: str, count: int | None, classes: Sequence[str] | None = None) -> Readable:
        data = self.plan.data
        if data.source == CELLS:
            side = self.augment.size
            opened = open_examples(CELLS, split=split, size=side, seed=data.seed, count=count)
        else:
            opened = open_examples(data.source, layout=data.layout, split=split, classes=classes)
        found = prepare(
            opened, resize=self.augment.first, memory=self.means.memory / self.processes,
            max_unreadable=data.unreadable, workers=self.means.workers,
            progress=lambda done, total: self.watch.pace(done, total, "reading pictures"),
        )  # fmt: skip
        for problem in found.unreadable:
            self.watch.failed(Failure(title=opened.name, message=problem))
        return found


def _headed(
    model: LoadedModel, examples: Examples, plan: TrainPlan
) -> tuple[Head | None, LoadedModel, list[str]]:
    """The model with an output for each class of the data, and what was done for it."""
    classes, labels = examples.classes, model.labels
    last = last_layer(model.module)
    outputs = 0 if last is None else len(model.module.get_parameter(f"{last}.weight"))
    told = replace(model, labels=classes)
    words = [name.casefold() for name in labels or ()]
    wanted = [name.casefold() for name in classes]
    if words == wanted:
        return None, told, []
    if labels is None and outputs == len(classes):
        note = (
            f"{model.name} has no labels: its {outputs} outputs are taken for "
            f"{', '.join(classes[:3])}, ... in this order"
        )
        return None, told, [note]
    rows = None
    if all(words.count(name) == 1 for name in wanted):
        rows = [words.index(name) for name in wanted]
    elif examples.outputs is not None and outputs == 1000:
        rows = list(examples.outputs)
    if plan.model.from_scratch:
        rows = None
    head = fit_head(model.module, len(classes), rows=rows, seed=plan.seed, name=model.name)
    what = (
        f"keeps its rows for the {len(classes)} classes of the data"
        if rows is not None
        else f"is a new one, for the {len(classes)} classes of the data"
    )
    return head, told, [f"the last layer of {model.name} ({head.name}) {what}"]


def _check_apart(examples: Examples, test: Examples) -> None:
    """Errors: ValueError for test pictures that are trained on: parts of two names may be one."""
    known = set(map(examples.describe, range(len(examples))))
    shared = [name for name in map(test.describe, range(len(test))) if name in known]
    if shared:
        raise ValueError(
            f"test: expected other pictures than those trained on, but {len(shared)} of "
            f"{len(test)} are among them, {shared[0]} the first"
        )


def _files(parts: Sequence[Examples | None]) -> str:
    return files_digest(
        (part.describe(index), part.digest(index))
        for part in parts
        if part is not None
        for index in range(len(part))
    )


def _pictures(examples: Examples) -> str:
    """A digest of which pictures there are, and of their classes."""
    told = [(examples.describe(i), label) for i, label in enumerate(examples.labels.tolist())]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
