"""DiffROAR: networks trained on what an explanation ranks first, and on what it ranks last."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.data.augment import Augment, Pixels
from moreaugrad.data.examples import Examples
from moreaugrad.files.atomic import write_atomically
from moreaugrad.files.foreign import number_name, percent_name
from moreaugrad.files.units import Record
from moreaugrad.metrics import diffroar, importance_ranks, keep
from moreaugrad.metrics.roar import ENDS, TOP
from moreaugrad.models.weights import load_weights
from moreaugrad.reports.content import Entry, Table
from moreaugrad.reports.studies import Findings
from moreaugrad.runs.directory import RunDirectory, json_text, number
from moreaugrad.runs.engine import Observer
from moreaugrad.runs.plans.retrain import ALL, FILL, IDS, RANDOM, DiffRoarPlan
from moreaugrad.runs.plans.toml import read_plan, to_table
from moreaugrad.runs.plans.train import ProtocolPlan, TrainPlan
from moreaugrad.runs.retrain.run import (
    RECORDS,
    RetrainRun,
    accuracy,
    explainers,
    settled_training,
    tested,
)
from moreaugrad.runs.train.prepare import PreparedTrain
from moreaugrad.runs.train.protocols import make_penalty
from moreaugrad.runs.train.run import BEST
from moreaugrad.training.harmonisation import GuidedPenalty

EXPLAINED = f"{RECORDS}/explained"
RANKS, TRAIN, TEST = "ranks", "train", "test"
APART = 2**40
"""Between the ids of training and test images: their random orders must not be the same."""


@dataclass(frozen=True)
class Masking:
    """A training: on whole images (`order` is ALL), or on a fraction of them."""

    order: str
    end: str
    level: float
    seed: int

    @property
    def name(self) -> str:
        if self.order == ALL:
            return f"{ALL}-seed{self.seed}"
        return f"{self.order}-{self.end}-{number_name(self.level)}-seed{self.seed}"


class DiffRoarRun(RetrainRun[DiffRoarPlan]):
    """A unit is a network that learns from masked images."""

    command = "retrain diffroar"

    def settled(self, plan: DiffRoarPlan) -> DiffRoarPlan:
        weights = Path(plan.explained) / BEST
        if not weights.is_file():
            raise ValueError(
                f"{plan.explained}: expected the folder of a finished training, but it holds no "
                f"{BEST}"
            )
        trust = plan.training.model.trust
        explained = read_plan(TrainPlan, weights.with_name("config.toml"), trust=trust)
        explained.model.check_trust()
        if explained.augment.size is None:
            raise ValueError(
                f"{plan.explained}: expected the folder of a finished training, but its "
                "configuration does not say the size of the images (augment.size)"
            )
        training = plan.training
        if training == TrainPlan():
            training = replace(explained, protocol=ProtocolPlan(), shards=None)
        test = explained.data.test or training.data.test
        data = replace(explained.data, test=test)
        # An image is one set of entries: data and size are those of the explained network.
        size, resize = explained.augment.size, explained.augment.resize
        augment = replace(training.augment, size=size, resize=resize)
        training = settled_training(plan, replace(training, data=data, augment=augment))
        if isinstance(make_penalty(training.protocol), GuidedPenalty):
            raise ValueError(
                "training: expected a penalty that takes no attention maps, because masked images "
                f"have none, got {training.protocol.penalty}"
            )
        self.held = Augment.evaluation(size, resize)
        self.explained = replace(
            explained, data=training.data, device=training.device, shards=None, measured=1,
            threads=explained.threads or 1, loading=plan.loading,
        )  # fmt: skip
        about = repr([to_table(explained.augment), to_table(explained.model.preprocess)])
        digest = hashlib.sha256(weights.read_bytes() + about.encode()).hexdigest()[:16]
        maskings = [
            Masking(*how, seed)
            for seed in plan.seeds
            for how in ((ALL, TOP, 1.0), *(
                (order, end, level)
                for order, level, end in product(plan.orders, plan.levels, ENDS)
            ))
        ]  # fmt: skip
        self.units = {f"{RECORDS}/{masking.name}": masking for masking in maskings}
        return replace(plan, training=training, epochs=None, device=None, digest=digest)

    def begin(self, directory: RunDirectory) -> None:
        """Ranks every image's entries, once for all trainings."""
        place = directory.path / RANKS
        if directory.finished(EXPLAINED) and ranked(place, self.plan):
            return
        prepared = self.prepared(self.explained)
        weights = Path(self.plan.explained) / BEST
        load_weights(prepared.module, weights, prepared.model.name)
        prepared.module.eval()
        for part in (TRAIN, TEST):
            rank(self.plan, prepared, part, place, self.watch)
        record = {"accuracy": accuracy(prepared, tested(prepared))}
        directory.write(EXPLAINED, {f"{EXPLAINED}.json": json_text(record).encode()})

    def change(
        self, wanted: Masking, begun: PreparedTrain, directory: RunDirectory
    ) -> PreparedTrain:
        place = directory.path / RANKS
        # What is removed has the training images' colour in the test images too.
        fill = torch.from_numpy(np.load(rank_file(place, TRAIN, FILL)))
        order = self.plan.orders[0] if wanted.order == ALL else wanted.order

        def masked(examples: Examples, part: str) -> Examples:
            ranks = load_ranks(place, part, order)
            return masked_examples(examples, self.held, ranks, wanted.level, wanted.end, fill)

        # Masked images are of the network's size already.
        plan = replace(begun.plan, augment=replace(begun.plan.augment, resize=None))
        return replace(
            begun, plan=plan, training=masked(begun.training, TRAIN),
            validation=masked(begun.validation, TRAIN), test=masked(tested(begun), TEST),
        )  # fmt: skip

    def results(self, directory: RunDirectory) -> Record:
        """Accuracies by order, level and seed; of a finished study."""
        if not all(map(directory.finished, self.units)):
            return {}
        found = {masking: directory.json(unit) for unit, masking in self.units.items()}
        plan, orders = self.plan, {}

        def accuracies(order: str, end: str, level: float) -> list[float]:
            return [found[Masking(order, end, level, seed)]["accuracy"] for seed in plan.seeds]

        for order in plan.orders:
            top, bottom = ([accuracies(order, end, level) for level in plan.levels] for end in ENDS)
            gap = diffroar(top, bottom)
            orders[order] = {
                "top": top, "bottom": bottom,
                "by_level": gap.by_level.tolist(),
                "deviation": [number(float(value)) for value in gap.deviation],
                "mean": gap.mean, "low": number(gap.low), "high": number(gap.high),
            }  # fmt: skip
        return {
            "explained": directory.json(EXPLAINED),
            "levels": list(plan.levels), "seeds": list(plan.seeds),
            "count": next(iter(found.values()))["count"],
            "all": accuracies(ALL, TOP, 1.0), "orders": orders,
        }  # fmt: skip

    def findings(self, results: Record) -> Findings:
        plan, seeds = self.plan, len(results["seeds"])
        unit = "the sum over channels" if plan.unit == "pixel" else "entry"
        levels, gaps = [], []
        for order, found in results["orders"].items():
            for row, level in enumerate(results["levels"]):
                spread = found["deviation"][row]
                cells = [_percent(fmean(found[end][row])) for end in ENDS]
                note = "" if spread is None else f"sd {percent(spread)}"
                cells.append(replace(_percent(found["by_level"][row]), note=note))
                levels.append((f"{order}, {percent_name(level)} % kept", cells))
            low, high = percent(found["low"]), percent(found["high"])
            span = "one seed" if found["low"] is None else f"{low} to {high}"
            gaps.append((order, [_percent(found["mean"]), Entry(text=span)]))
        return Findings(
            title="DiffROAR",
            lead=f"Accuracy in percent on {results['count']} test images after the last epoch, "
            f"means over {seeds} seed{'s' * (seeds > 1)}; ranked by {unit}, for the {plan.target}. "
            f"The explained network: {percent(results['explained']['accuracy'])}; trained on whole "
            f"images: {percent(fmean(results['all']))}.",
            tables=[
                Table(title="", head="order", columns=[*ENDS, "top - bottom"], rows=levels),
                Table(
                    title="", head="order", columns=["DiffROAR", "95 % interval over seeds"],
                    rows=gaps,
                ),
            ],
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranks:
    """Ranks of each image's entries, `[N, C or 1, S, S]`, by its id (in order)."""

    ids: NDArray[np.int64]
    values: NDArray[np.integer]

    def of(self, key: int) -> Tensor:
        row = int(np.searchsorted(self.ids, key))
        return torch.from_numpy(self.values[row].astype(np.int32))[None]


def masked_examples(
    whole: Examples, held: Augment, ranks: Ranks, ratio: float, end: str, fill: Tensor
) -> Examples:
    """Examples with the top or bottom fraction `ratio` of their entries kept.

    held: resize and crop, so that the entries are those that were ranked. end: "top" or "bottom".
    fill: `[3]`, uint8, what the other entries become.
    """
    return replace(
        whole, read=partial(_masked, whole, held, ranks, ratio, end, fill), has_attention=False,
        title=partial(_masked_title, whole, f"the {end} {percent_name(ratio)}% kept"),
    )  # fmt: skip


def _masked(
    whole: Examples, held: Augment, ranks: Ranks, ratio: float, end: str, fill: Tensor, key: int
) -> Pixels:
    """An image as it is evaluated, with a part of its entries kept."""
    image, _ = held(whole.read(key), seed=0, epoch=0, key=key)
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    found = keep(pixels, ranks.of(key), ratio, end=end, fill=fill.view(3, 1, 1))
    return found[0].permute(1, 2, 0).numpy(), None


def _masked_title(whole: Examples, what: str, key: int) -> str:
    return f"{whole.title(key)}, {what}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _percent(value: float) -> Entry:
    return Entry(text=percent(value))


def whole(prepared: PreparedTrain) -> Examples:
    """The images that are trained on, and those held out of them, with the ids they have."""
    parts = (prepared.training, prepared.validation)
    labels, ids = (torch.cat([getattr(part, name) for part in parts]) for name in ("labels", "ids"))
    return replace(prepared.training, labels=labels, ids=ids)


def rank(
    plan: DiffRoarPlan, prepared: PreparedTrain, part: str, folder: Path, watch: Observer
) -> None:
    """Writes, by the maps of one network, the ranks of the images of a part of the data, their ids
    in order, and the mean colour of those that are trained on."""
    examples = tested(prepared) if part == TEST else whole(prepared)
    methods = explainers(plan, prepared)
    found: dict[str, list[np.ndarray]] = {order: [] for order in plan.orders}
    colours, done = torch.zeros(3, dtype=torch.float64), 0
    for place, batch in enumerate(prepared.evaluated(examples).epoch(0)):
        piece = prepared.piece(place, batch)
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
