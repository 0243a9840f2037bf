"""A training with everything loaded, and what it would take.

What cannot work is refused before anything is written.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import count, islice

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from moreaugrad.data.augment import Augment
from moreaugrad.data.dataset import files_digest
from moreaugrad.data.examples import Examples, open_examples, split_off
from moreaugrad.data.loading import Batch, Loader, prepare
from moreaugrad.models import LoadedModel, load_model
from moreaugrad.models.fast import lay_channels_last
from moreaugrad.models.loading import Trained
from moreaugrad.models.weights import fit_head, last_layer
from moreaugrad.registry import choose
from moreaugrad.runs.cost import Cost, Estimate
from moreaugrad.runs.engine import Failure, Observer
from moreaugrad.runs.network import Network, computing, resolved_device, resolved_layout
from moreaugrad.runs.plans.common import ComputePlan
from moreaugrad.runs.plans.train import AugmentPlan, OptimiserPlan, TrainPlan
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.train.protocols import check_attention, check_fits, make_protocol
from moreaugrad.score.inputs import InputSpace
from moreaugrad.settings import expect
from moreaugrad.training import LOSSES
from moreaugrad.training.loop import SCHEDULES, Piece, Trainer, folded
from moreaugrad.training.protocol import Protocol

EVALUATED = 128
"""Samples of a batch when nothing is learnt."""
TIMED = 4
"""Batches that an estimate is made of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedTrain:
    """`plan` has every choice made. protocols: of this process's pieces, by their numbers.

    builder: the name that the network is built by, whatever it begins with. notes: choices that a
    user should know of.
    """

    plan: TrainPlan
    network: Network
    builder: str
    optimiser: Optimizer
    protocols: dict[int, Protocol]
    training: Examples
    validation: Examples
    test: Examples | None
    notes: Sequence[str]

    @property
    def model(self) -> LoadedModel:
        return self.network.model

    @property
    def module(self) -> nn.Module:
        return self.network.model.module

    @property
    def augment(self) -> Augment:
        return Augment(**self.plan.augment.given())

    @cached_property
    def loader(self) -> Loader:
        """Of what is learnt. Errors: ValueError where a batch is larger than that."""
        return Loader(
            self.training, self.augment, batch=self.plan.batch, seed=self.plan.seed,
            workers=self.plan.loading.workers, pin=self.network.device.type == "cuda",
        )  # fmt: skip

    @cached_property
    def held_out(self) -> Loader:
        """Of the validation images."""
        return self.evaluated(self.validation)

    def evaluated(self, examples: Examples) -> Loader:
        """As they lie, resized and cropped, and nothing random."""
        return Loader(
            examples, _still(self.augment), batch=EVALUATED, shuffle=False,
            workers=self.plan.loading.workers,
        )  # fmt: skip

    @property
    def steps(self) -> int:
        return self.plan.epochs * len(self.loader)

    def input(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1] as what the network takes in."""
        return self.model.preprocess.normalised(x.to(self.network.device))

    def batches(self, epoch: int, start: int = 0) -> Iterator[list[Piece]]:
        """This process's pieces of each batch of an epoch."""
        numbers = list(self.protocols)
        for parts in self.loader.pieces(epoch, numbers, self.plan.shards or 1, start=start):
            yield list(map(self.piece, numbers, parts))

    def pieces(self, loader: Loader) -> Iterator[Piece]:
        """All batches of a loader that nothing is random in."""
        yield from map(self.piece, count(), loader.epoch(0))

    def piece(self, number: int, batch: Batch) -> Piece:
        device, attention = self.network.device, batch.attention
        return Piece(
            number=number, x=self.input(batch.x), y=batch.y.to(device), ids=batch.ids,
            attention=None if attention is None else attention.to(device),
        )  # fmt: skip


def _still(augment: Augment) -> Augment:
    return Augment.evaluation(augment.size, augment.resize)


def make_optimiser(plan: OptimiserPlan, model: nn.Module) -> Optimizer:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if plan.name == "sgd":
        return SGD(weights, lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay)
    kind = AdamW if plan.name == "adamw" else Adam
    return kind(weights, lr=plan.lr, betas=plan.betas, weight_decay=plan.weight_decay)


def prepare_train(plan: TrainPlan, processes: Processes, watch: Observer) -> PreparedTrain:
    """Reads every image once; those that cannot be read are reported and left out.

    Errors: ValueError or TypeError for a plan that cannot be run; nothing is written.
    """
    shards, device = _shards(plan, processes.size), resolved_device(plan.device)
    own = processes.own(device)
    model, augment = _loaded(plan, own)
    space = InputSpace(mean=model.preprocess.mean, std=model.preprocess.std)
    protocols = {piece: make_protocol(plan, space) for piece in processes.share(range(shards))}
    first = next(iter(protocols.values()))
    # Before the images are read, which may take a while.
    check_fits(model, first, augment.size)

    def read(split: str, images: int | None, classes: Sequence[str] | None = None) -> Examples:
        return _read(plan, augment, processes.size, watch, split, images, classes)

    examples, test = read(plan.data.split, plan.data.images), None
    check_attention(plan.protocol, first, examples)
    model, notes = _headed(model, examples, plan)
    if not plan.freeze_statistics and folded(model.module):
        notes.append(
            f"the running statistics of {model.name} are those of a new network, but not its "
            "weights: if they were folded into these, train with --freeze-statistics"
        )
    if examples.unreadable:
        notes.append(f"{len(examples.unreadable)} images cannot be read and are left out")
    model.module.requires_grad_(True)
    channels_last = resolved_layout(plan.channels_last, device)
    if channels_last:
        lay_channels_last(model.module)
    drawn_by = plan.seed if plan.data.split_seed is None else plan.data.split_seed
    training, validation = split_off(examples, plan.data.validation, drawn_by)
    if plan.data.test is not None:
        test = read(plan.data.test, plan.data.test_images, examples.classes)
        _check_apart(examples, test)
    threads = plan.threads or torch.get_num_threads()
    network = Network(
        model=model, compute=ComputePlan(device=device, threads=threads), device=torch.device(own)
    )
    plan = replace(
        plan, shards=shards, device=device, threads=threads, channels_last=channels_last,
        augment=AugmentPlan(**asdict(augment)), model=network.resolved(plan.model),
        data=replace(plan.data, digest=examples_digest([examples, *([test] if test else [])])),
    )  # fmt: skip
    prepared = PreparedTrain(
        plan=plan, network=network, builder=Trained.builder(plan.model.name),
        optimiser=make_optimiser(plan.optimiser, model.module), protocols=protocols,
        training=training, validation=validation, test=test, notes=notes,
    )  # fmt: skip
    len(prepared.loader)  # refuses too large a batch
    return prepared


def _shards(plan: TrainPlan, processes: int) -> int:
    """Errors: ValueError, also for what the plan cannot check without torch."""
    if plan.data.source is None:
        raise ValueError(
            "data: expected cells, or a folder of images to train on or a zip archive of one "
            "(--data); got none"
        )
    choose("loss", plan.loss, LOSSES)
    choose("schedule", plan.optimiser.schedule, SCHEDULES)
    shards = plan.shards or processes
    most = f"and at most the {plan.batch} samples of a batch"
    expected = f"a multiple of the {processes} processes, {most}"
    expect(shards % processes == 0 and shards <= plan.batch, "shards", expected, shards)
    return shards


def _loaded(plan: TrainPlan, device: str) -> tuple[LoadedModel, Augment]:
    """The network that the training begins with, for images of the size that it crops to."""
    model = load_model(
        **plan.model.arguments(), device=device, pretrained=not plan.model.from_scratch,
        seed=plan.seed,
    )  # fmt: skip
    size, shape = plan.augment.size, model.preprocess.input_shape
    if size is None:
        if shape is None or shape[1] != shape[2]:
            raise ValueError(
                f"size: expected the side of the images, because {model.name} does not say it"
            )
        size = shape[1]
    augment = Augment(**replace(plan.augment, size=size).given())
    still = _still(augment)
    preprocess = replace(model.preprocess, resize=still.first, crop=still.size)
    return replace(model, preprocess=preprocess), augment


def _read(
    plan: TrainPlan, augment: Augment, processes: int, watch: Observer, split: str,
    images: int | None, classes: Sequence[str] | None,
) -> Examples:  # fmt: skip
    """A part of the data, every image of which is read."""
    data, loading = plan.data, plan.loading
    assert data.source is not None
    opened = open_examples(
        data.source, layout=data.layout, split=split, classes=classes, size=augment.size,
        seed=data.seed, count=images,
    )  # fmt: skip
    found = prepare(
        opened, resize=augment.first, memory=loading.memory / processes, workers=loading.workers,
        max_unreadable=data.max_unreadable,
        progress=lambda done, total: watch.pace(done, total, "reading images"),
    )  # fmt: skip
    for problem in found.unreadable:
        watch.failed(Failure(title=opened.name, message=problem))
    return found


def _check_apart(examples: Examples, test: Examples) -> None:
    """Errors: ValueError for test images that are trained on: parts of two names may be one."""
    known = set(map(examples.describe, range(len(examples))))
    shared = [name for name in map(test.describe, range(len(test))) if name in known]
    if shared:
        raise ValueError(
            f"test: expected other images than those trained on, but {len(shared)} of "
            f"{len(test)} are among them, {shared[0]} the first"
        )


def _headed(
    model: LoadedModel, examples: Examples, plan: TrainPlan
) -> tuple[LoadedModel, list[str]]:
    """The model with an output for each class of the data, and what was done for it."""
    classes, labels = examples.classes, model.labels
    last = last_layer(model.module)
    outputs = 0 if last is None else len(model.module.get_parameter(f"{last}.weight"))
    named = replace(model, labels=classes)
    words = [name.casefold() for name in labels or ()]
    wanted = [name.casefold() for name in classes]
    if words == wanted:
        return named, []
    if labels is None and outputs == len(classes):
        note = (
            f"{model.name} has no labels: its {outputs} outputs are taken for "
            f"{', '.join(classes[:3])}, ... in this order"
        )
        return named, [note]
    rows = None
    if not plan.model.from_scratch:
        if all(words.count(name) == 1 for name in wanted):
            rows = [words.index(name) for name in wanted]
        elif examples.outputs is not None and outputs == 1000:
            rows = list(examples.outputs)
    layer = fit_head(model.module, len(classes), rows=rows, seed=plan.seed, name=model.name)
    what = "is a new one," if rows is None else "keeps its rows"
    note = f"the last layer of {model.name} ({layer}) {what} for the {len(classes)} classes"
    return named, [f"{note} of the data"]


def examples_digest(parts: Sequence[Examples]) -> str:
    """Of names, classes and contents of all images."""
    return files_digest(
        (part.describe(index), f"{label} {part.digest(index)}")
        for part in parts
        for index, label in enumerate(part.labels.tolist())
    )


@dataclass(frozen=True, kw_only=True)
class TrainEstimate(Estimate):
    """batches: of the whole training. updates, passes: of the weights and forward, in each.
    seconds: without the measuring of each epoch."""

    batches: int
    updates: float
    passes: float

    def words(self, duration: Callable[[float], str]) -> str:
        return (
            f"{self.batches} batches, {self.updates:g} updates of the weights and {self.passes:g} "
            f"passes in each: {duration(self.seconds)}, and the measuring of each epoch"
        )


def estimate_train(prepared: PreparedTrain, trainer: Trainer) -> TrainEstimate:
    """Takes a few steps, whose weights are thrown away; nothing is written."""
    counts, times = Counter[str](), []
    hooks = [
        prepared.module.register_forward_hook(lambda *_: counts.update(["passes"])),
        prepared.optimiser.register_step_post_hook(lambda *_: counts.update(["updates"])),
    ]
    try:
        with computing(prepared.network.compute):
            began = time.perf_counter()
            for number, pieces in enumerate(islice(prepared.batches(0), TIMED)):
                trainer.step(pieces, count=prepared.plan.batch, step=number)
                times.append(time.perf_counter() - began)
                began = time.perf_counter()
    finally:
        for hook in hooks:
            hook.remove()
    passes = counts["passes"] / len(times) / len(prepared.protocols)
    # The first one warms up.
    each = statistics.median(times[1:] or times)
    steps, most = prepared.steps, math.ceil(passes)
    return TrainEstimate(
        inputs=len(prepared.training), seconds_per_evaluation=each / passes,
        costs=(Cost(key="training", maps=steps, evaluations=most, seconds=steps * each),),
        batches=steps, updates=counts["updates"] / len(times), passes=passes,
    )  # fmt: skip
