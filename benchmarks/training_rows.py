"""What the studies of training train: each row of a table is one setting of `moreaugrad train`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.command import moreaugrad
from benchmarks.context import Context
from benchmarks.subjects import data_folder
from moreaugrad.runs.plans.train import (
    AugmentPlan,
    OptimiserPlan,
    ProtocolPlan,
    StartPlan,
    TrainDataPlan,
    TrainPlan,
)

SEEDS = (0, 1, 2)
SCRATCH = OptimiserPlan(name="adamw", lr=4e-3, weight_decay=0.05, schedule="one-cycle")
CELLS = 48
"""Side in pixels of the synthetic cells."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to train. replays: an epoch of the free protocol counts as so many."""

    label: str
    protocol: ProtocolPlan
    seeds: Sequence[int] = SEEDS
    replays: int = 1

    @property
    def stem(self) -> str:
        chosen = self.protocol
        numbers = [*chosen.epsilon, *chosen.settings.values()]
        return "-".join([chosen.name, *filter(None, [chosen.penalty]), *map(str, numbers)])

    @property
    def described(self) -> str:
        """The penalty's weights, and what else is set."""
        settings = self.protocol.settings.items()
        return ", ".join(
            [f"{value:g}" for value in self.protocol.epsilon]
            + [f"{name} {value:g}" for name, value in settings]
        )


@dataclass(frozen=True, kw_only=True)
class Study:
    """plan: of plain training. The first row is plain training too."""

    title: str
    plan: Callable[[Context], TrainPlan]
    rows: Sequence[Row]
    notes: Sequence[str] = field(default=())


def _row(
    label: str, name: str, penalty: str | None = None, *epsilon: float,
    seeds: Sequence[int] = SEEDS, group: int = 14, **settings: Any,
) -> Row:  # fmt: skip
    chosen = ProtocolPlan(
        name=name, penalty=penalty, epsilon=epsilon, group=group, settings=settings
    )
    return Row(
        label=label, protocol=chosen, seeds=seeds,
        replays=int(settings.get("replays", 4)) if name == "free" else 1,
    )  # fmt: skip


def _cifar10(_: Context) -> TrainPlan:
    data = data_folder()
    return TrainPlan(
        epochs=2, batch=128,
        data=TrainDataPlan(source=str(data / "cifar10-jpeg.zip"), test="test", validation=0.02),
        model=StartPlan(
            name="benchmarks.cifar_resnet:resnet20",
            weights=str(data / "models" / "resnet20-cifar10.safetensors"),
        ),
        augment=AugmentPlan(size=32, pad=4, crop="random", flip=True),
        optimiser=OptimiserPlan(name="adam", lr=1e-3, schedule="cosine"),
    )  # fmt: skip


def _imagenette(_: Context) -> TrainPlan:
    data = data_folder()
    return TrainPlan(
        epochs=1, batch=32,
        data=TrainDataPlan(source=str(data / "imagenette-128.zip"), test="val", validation=0.02),
        model=StartPlan(
            name="torchvision:squeezenet1_0",
            weights=str(data / "models" / "squeezenet1_0-imagenet.safetensors"),
            labels=str(data / "imagenet-classes.txt"),
        ),
        augment=AugmentPlan(size=128, resize=128, crop="random", flip=True),
        optimiser=OptimiserPlan(name="adam", lr=2e-5),
    )  # fmt: skip


def _scratch(_: Context) -> TrainPlan:
    """Channels last, and float32: bfloat16 was slower for this network."""
    return TrainPlan(
        epochs=16, batch=64,
        data=TrainDataPlan(
            source=str(data_folder() / "imagenette-128.zip"), test="val", validation=0.02
        ),
        model=StartPlan(name="benchmarks.cifar_resnet:resnet20_imagenette", from_scratch=True),
        augment=AugmentPlan(size=64, crop="resized", flip=True),
        optimiser=SCRATCH,
    )  # fmt: skip


def _cells(context: Context) -> TrainPlan:
    return TrainPlan(
        epochs=16, batch=64,
        data=TrainDataPlan(source=str(cells_folder(context)), test="test", validation=0.1),
        model=StartPlan(name="benchmarks.train_builtin:network", from_scratch=True),
        augment=AugmentPlan(size=CELLS, flip=True),
        optimiser=SCRATCH,
    )  # fmt: skip


def _gaze(_: Context) -> TrainPlan:
    data = data_folder()
    return TrainPlan(
        epochs=5, batch=16, freeze_statistics=True,
        data=TrainDataPlan(source=str(data / "cub-gha.zip"), split="train", test="test"),
        model=StartPlan(name="mobilenetv2:birds"),
        augment=AugmentPlan(size=224, resize=256, crop="random", flip=True),
        optimiser=OptimiserPlan(name="adam", lr=2e-4, schedule="cosine"),
    )  # fmt: skip


def cells_folder(context: Context) -> Path:
    """Cells of the size that studies use, with their true maps; few for a trial."""
    folder = context.cache.folder / f"cells-{CELLS}{'-quick' if context.quick else ''}"
    count, test = (256, 64) if context.quick else (4096, 1024)
    moreaugrad(
        "data", "cells", "--images", str(count), "--test-images", str(test), "--size", str(CELLS),
        "--out", str(folder), "--quiet",
    )  # fmt: skip
    return folder


ONE = SEEDS[:1]
PLAIN = _row("plain", "plain")
STUDIES = {
    "cifar10": Study(
        title="Norm-regularised training on CIFAR-10 (ResNet-20, fine-tuned for 2 epochs)",
        plan=_cifar10,
        rows=(
            PLAIN,
            _row("L1", "fast", "l1", 0.01),
            _row("elastic net", "fast", "elastic-net", 0.01, 0.01),
            _row("elastic net", "fast", "elastic-net", 0.015, 0.01),
            _row("L1", "fast", "l1", 0.02, seeds=ONE),
            _row("elastic net", "fast", "elastic-net", 0.01, 0.05, seeds=ONE),
            _row("elastic net", "fast", "elastic-net", 0.02, 0.1, seeds=ONE),
            _row("L1", "penalised", "l1", 0.02, seeds=ONE),
            _row("noise", "gaussian-noise", sigma=0.1, seeds=ONE),
            _row("L1", "free", "l1", 0.02, seeds=ONE),
            _row("group", "fast", "group", 0.05, group=4, seeds=ONE),
            _row("L1", "iterative", "l1", 0.02, seeds=ONE),
            _row("squared L2", "fast", "squared-l2", 1.0, seeds=ONE),
            _row("L1", "momentum", "l1", 0.02, seeds=ONE, steps=5),
        ),
    ),
    "imagenette": Study(
        title="Norm-regularised training on Imagenette (SqueezeNet, fine-tuned for one epoch)",
        plan=_imagenette,
        rows=(
            replace(PLAIN, seeds=ONE),
            _row("L1", "fast", "l1", 0.01, seeds=ONE),
            _row("elastic net", "fast", "elastic-net", 0.01, 0.05, seeds=ONE),
            _row("L1", "fast", "l1", 0.02, seeds=ONE),
            _row("group", "fast", "group", 0.1, group=16, seeds=ONE),
            _row("noise", "gaussian-noise", sigma=0.1, seeds=ONE),
        ),
    ),
    "scratch": Study(
        title="Norm-regularised training on Imagenette at 64 pixels (ResNet-20, from scratch)",
        plan=_scratch,
        rows=tuple(
            replace(row, seeds=ONE)
            for row in (
                PLAIN,
                *(_row("L1", "fast", "l1", weight) for weight in (0.01, 0.05, 0.1)),
                *(_row("group", "fast", "group", weight, group=4) for weight in (0.1, 0.5, 1.0)),
                *(
                    _row("elastic net", "fast", "elastic-net", l1, square)
                    for l1 in (0.01, 0.05) for square in (0.01, 0.05, 0.1)
                ),
            )
        ),
        notes=("The settings of the paper's table 3.",),
    ),
    "gaze": Study(
        title="Training on birds with human gaze (MobileNetV2, fine-tuned for ten species)",
        plan=_gaze,
        rows=(
            PLAIN,
            _row("harmonisation", "fast", "harmonisation", 0.5),
            _row("harmonisation", "fast", "harmonisation", 0.1),
            _row("published harmonisation", "fast", "published-harmonisation", 0.5),
            _row("squared L2", "fast", "squared-l2", 0.5),
            _row("squared L2", "fast", "squared-l2", 0.1),
            _row("L1", "fast", "l1", 0.002),
        ),
    ),
    "cells": Study(
        title=f"Norm-regularised training on synthetic cells ({CELLS} pixels, from scratch)",
        plan=_cells,
        rows=(
            PLAIN,
            _row("L1", "fast", "l1", 0.02),
            _row("group", "fast", "group", 0.06, group=4),
            _row("elastic net", "fast", "elastic-net", 0.01, 0.5),
            _row("harmonisation", "fast", "harmonisation", 10.0),
            _row("published harmonisation", "fast", "published-harmonisation", 1.0),
            _row("L1", "fast", "l1", 0.1, seeds=ONE),
            _row("harmonisation", "fast", "harmonisation", 1.0, seeds=ONE),
            _row("published harmonisation", "fast", "published-harmonisation", 0.1, seeds=ONE),
            _row("squared L2", "fast", "squared-l2", 10.0, seeds=ONE),
        ),
    ),
}  # fmt: skip
