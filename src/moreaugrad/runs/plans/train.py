"""What `train` is asked for: data, network, protocol, and how the weights are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from moreaugrad.data import LAYOUTS
from moreaugrad.penalties.catalogue import TRAINING
from moreaugrad.runs.plans.common import CELLS, SEED, THREADS, ModelPlan, Size, layout_option
from moreaugrad.runs.plans.option import Plan, filled, option, part, unkept
from moreaugrad.runs.plans.text import Settings, read_settings
from moreaugrad.settings import expect
from moreaugrad.training import PROTOCOLS


@dataclass(frozen=True, kw_only=True)
class TrainDataPlan(Plan):
    """source: cells, a folder or a zip of one. validation: the fraction of the training images that
    the best epoch is chosen by. test: a part of the data (test, val) that the finished network is
    measured on, and nothing is chosen by.

    images, test_images, seed: of the cells. split_seed: of the choice of the validation images, by
    default the training's. max_unreadable: with more the training does not begin.
    """

    GROUP: ClassVar[str] = "Data"

    source: str | None = option(
        None, "cells, the built-in synthetic cells; a folder of images, or a zip archive of one "
        "(also ImageNet, Imagenette, CIFAR-10 and CUB-200-2011 as they are distributed).",
        "--data", path="digest", shown="required",
    )  # fmt: skip
    layout: str = option(
        "auto", "Layout of the data set: cub, cifar10, tiny-imagenet, listed, imagenet or folders."
    )
    split: str = option("train", "Part of the data to train on.")
    validation: float = option(
        0.1, "Fraction of the training images held out to choose the best epoch.", within="(0, 1)"
    )
    test: str | None = option(
        None, "Part of the data that the finished network is measured on: test or val.",
        "--test-split", shown="none",
    )  # fmt: skip
    # The second names of options are those that they had in 0.1.
    images: int | None = option(
        None, "Number of cells to train on.", "--images", "--count", shown="4096"
    )
    test_images: int | None = option(
        None, "Number of cells to test on.", "--test-images", "--test-count", shown="1024"
    )
    seed: int = option(0, "Random seed of synthetic cells.", "--data-seed")
    split_seed: int | None = option(
        None, "Random seed of the choice of the validation images.", shown="that of the training",
        within=SEED,
    )  # fmt: skip
    max_unreadable: float = option(
        0.01, "Fraction of images that may be unreadable; with more the training does not begin.",
        within="[0, 1]",
    )  # fmt: skip
    digest: str = filled()

    def __post_init__(self) -> None:
        from moreaugrad.files.foreign import check_named

        super().__post_init__()
        if self.source is not None:
            check_named("data", self.source)
        LAYOUTS.check(self.layout, also=["auto"])
        if self.source not in (None, CELLS) and (self.images, self.test_images) != (None, None):
            raise ValueError(
                f"images and test_images: expected none with {self.source}, of which all images "
                f"are taken; they are of {CELLS}"
            )
        if self.test is not None and self.test == self.split:
            raise ValueError(
                f"test: expected another part than {self.split!r}, which is trained on"
            )

    def with_paths(self, move: Callable[[str], str]) -> Self:
        return self if self.source == CELLS else super().with_paths(move)


@dataclass(frozen=True, kw_only=True)
class AugmentPlan(Plan):
    """Settings of `data.augment.Augment`; None is its default, for size the network's."""

    GROUP: ClassVar[str] = "Augmentation"

    size: int | None = option(None, "Side of the images in pixels.", shown="the network's")
    resize: Size | None = option(
        None, "Shorter side in pixels before the crop, or HEIGHT,WIDTH.", shown="the size"
    )
    crop: str | None = option(
        None, "Crop: random, centre or resized (random area and aspect).", "--augment-crop",
        shown="random",
    )  # fmt: skip
    pad: int | None = option(None, "Black pixels added on each side.", shown="0")
    flip: bool | None = option(
        None, "Mirror half of the images.", negative="--no-flip", shown="flip"
    )
    rotate: float | None = option(None, "Largest angle of a rotation, in degrees.", shown="0")
    blur: float | None = option(
        None, "Largest standard deviation of a Gaussian blur, in pixels.", shown="0"
    )
    brightness: float | None = option(
        None, "Largest change b of the brightness, by a factor from 1 - b to 1 + b.", shown="0"
    )
    contrast: float | None = option(
        None, "Largest change of the contrast, as for --brightness.", shown="0"
    )
    saturation: float | None = option(
        None, "Largest change of the saturation, as for --brightness.", shown="0"
    )


@dataclass(frozen=True, kw_only=True)
class StartPlan(ModelPlan):
    """The network that the training begins with. from_scratch: with fresh weights."""

    from_scratch: bool = option(False, "Begin with fresh weights.", group="Model")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.from_scratch and self.weights is not None:
            raise ValueError("from_scratch: expected no weights with it, got both")


@dataclass(frozen=True, kw_only=True)
class ProtocolPlan(Plan):
    """name, settings: of `training.PROTOCOLS`. penalty: of `training.PENALTIES`, with its weights
    `epsilon`, and for groups the side and the channels of a block."""

    GROUP: ClassVar[str] = "Protocol"

    name: str = option(
        "plain", f"Protocol: {', '.join(PROTOCOLS)}, or package.module:Class.", "--protocol",
        offers=tuple(PROTOCOLS),
    )  # fmt: skip
    penalty: str | None = option(
        None, f"Penalty: {', '.join(TRAINING)}, or package.module:Class.", shown="none",
        offers=tuple(TRAINING),
    )  # fmt: skip
    epsilon: tuple[float, ...] = option(
        (), "Weight of the penalty on the gradient; two of the elastic net: l1,l2. In the "
        "network's input units, or in pixel values from 0 to 1 with --set units=pixel.",
    )  # fmt: skip
    group: int = option(14, "Side of the group penalty's blocks, in pixels.")
    channels: str = option("separate", "Channels of a block: separate or joint.")
    settings: Settings = option(
        {}, "A setting of the protocol, such as steps=7.", "--set", repeated=True,
        read=read_settings, metavar="NAME=VALUE",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OptimiserPlan(Plan):
    """lr: the largest, which the schedule takes fractions of. betas: of Adam; momentum: of SGD."""

    GROUP: ClassVar[str] = "Optimisation"

    name: str = option(
        "adam", "Optimiser: adam, adamw or sgd.", "--optimiser", choices=("adam", "adamw", "sgd")
    )
    lr: float = option(1e-3, "Largest learning rate.", within="(0, inf)")
    weight_decay: float = option(0.0, "Weight decay.", within="[0, inf)")
    betas: tuple[float, float] = option(
        (0.9, 0.999), "Decay rates of Adam's moments.", within="[0, 1)"
    )
    momentum: float = option(0.9, "Momentum of SGD.", within="[0, 1)")
    schedule: str = option(
        "constant", "Schedule of the learning rate: constant, cosine or one-cycle."
    )


@dataclass(frozen=True, kw_only=True)
class LoadingPlan(Plan):
    """What a training may use of the machine; its result does not depend on it.

    workers: processes that read images and make batches. memory: bytes of decoded images that are
    kept. checkpoint_every: batches between checkpoints; None is one an epoch.
    """

    GROUP: ClassVar[str] = "Computation"

    workers: int = option(
        0, "Processes that read images and make batches; 0 is this one.", within="[0, inf)"
    )
    memory: float = option(
        4e9, "Bytes of decoded images that are kept in memory.", within="[0, inf)"
    )
    checkpoint_every: int | None = option(
        None, "Batches between checkpoints.", shown="one checkpoint an epoch", within="[1, inf)"
    )


@dataclass(frozen=True, kw_only=True)
class TrainPlan(Plan):
    """epochs over the data in batches of `batch`, each cut into `shards` pieces.

    loss: one of `training.LOSSES`. model: has to be named, but for cells, which are learnt by the
    built-in network. seed: of the order, the augmentation, the split, fresh weights and whatever
    protocols draw. amp: the type of the passes where it is safe, or None. measured: on how many
    images at most, spread evenly, Gini and robustness are measured. ddp: has no effect with one
    process.
    """

    GROUP: ClassVar[str] = "Optimisation"

    epochs: int = option(10, "Epochs over the data.", within="[1, inf)")
    batch: int = option(
        32, "Images in each update of the weights.", "--batch-size", "--batch", within="[1, inf)"
    )
    shards: int | None = option(
        None, "Pieces that each batch is cut into. The weights depend on it, not on how many "
        "processes share them.", shown="the number of processes", group="Computation",
        within="[1, inf)",
    )  # fmt: skip
    ddp: bool = option(
        False, "Average gradients over torchrun's processes by torch's DistributedDataParallel: "
        "the same weights up to rounding. Without it the bytes are the same for any number of "
        "processes, which takes more messages and waiting.", group="Computation",
    )  # fmt: skip
    seed: int = option(
        0, "Random seed of weights, order, augmentation, split and protocol.", within=SEED
    )
    loss: str = option("cross-entropy", "Loss: cross-entropy or hinge.")
    freeze_statistics: bool = option(
        False, "Normalise by the running statistics of batch normalisation, and keep them as they "
        "are: for small batches, and for networks that were made of others whose statistics were "
        "folded into their weights.",
    )  # fmt: skip
    amp: str | None = option(
        None, "Mixed precision: bfloat16.", shown="none", group="Computation",
        choices=("bfloat16",),
    )  # fmt: skip
    channels_last: bool | None = layout_option()
    device: str | None = option(
        None, "Device: cpu, cuda, cuda:1, mps or auto.", shown="auto", group="Computation"
    )
    threads: int | None = option(
        None, "CPU threads of each process.", group="Computation", within=THREADS
    )
    measured: int = option(
        500, "Largest number of images that Gini and robustness are measured on.",
        within="[1, inf)",
    )  # fmt: skip
    data: TrainDataPlan = part(TrainDataPlan)
    augment: AugmentPlan = part(AugmentPlan)
    model: StartPlan = part(StartPlan)
    protocol: ProtocolPlan = part(ProtocolPlan)
    optimiser: OptimiserPlan = part(OptimiserPlan)
    loading: LoadingPlan = unkept(LoadingPlan)

    def __post_init__(self) -> None:
        super().__post_init__()
        most = f"at most the {self.batch} samples of a batch"
        expect(self.shards is None or self.shards <= self.batch, "shards", most, self.shards)
        if not self.model.name and self.data.source == CELLS:
            object.__setattr__(self, "model", replace(self.model, name="builtin"))
