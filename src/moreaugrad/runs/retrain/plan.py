"""What studies train and compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moreaugrad.metrics import METRICS
from moreaugrad.metrics.roar import UNITS
from moreaugrad.registry import choose
from moreaugrad.runs.evaluate.plan import LABEL, Settings
from moreaugrad.runs.train import TrainPlan

RANDOM, ALL = "random", "all"
"""The control, whose order is drawn; and networks trained on whole pictures."""
IDS, FILL = "ids", "fill"
"""Files beside those of ranks, which are named by the methods."""
TARGETS = ("label", "prediction")


@dataclass(frozen=True, kw_only=True)
class DiffRoarPlan:
    """explained: the folder of a training, whose best network is explained on its own data.

    training: of the networks that learn from masked pictures. levels: shares that are kept.
    unit: "element" ranks every entry, "pixel" the sum over channels. methods: settings of
    explainers by label. control: a random order besides. target: explain each picture's label, as
    published (masks then tell of the label, also at the test), or the network's prediction.
    fill: the value of what is removed, in [0, 1]; None is the training pictures' mean colour.
    """

    explained: Path
    training: TrainPlan
    levels: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    seeds: tuple[int, ...] = (0, 1, 2)
    unit: str = "element"
    methods: Mapping[str, Settings] = field(default_factory=lambda: {"simple-gradient": {}})
    control: bool = True
    target: str = "label"
    fill: float | None = None

    def __post_init__(self) -> None:
        choose("unit", self.unit, UNITS)
        choose("target", self.target, TARGETS)
        if not self.levels or not all(0 < level < 1 for level in self.levels):
            raise ValueError(f"levels: expected shares between 0 and 1, got {list(self.levels)}")
        _check_seeds(self.seeds, 1)
        if self.fill is not None and not 0 <= self.fill <= 1:
            raise ValueError(f"fill: expected a pixel value in [0, 1], got {self.fill!r}")
        _check_labels(self.methods)

    @property
    def orders(self) -> list[str]:
        return [*self.methods, *([RANDOM] if self.control else [])]


@dataclass(frozen=True, kw_only=True)
class StabilityPlan:
    """Networks of several seeds, each with a share of its training pictures exchanged for test
    pictures; their maps are compared on test pictures that none has learnt from.

    exchanged: the shares; 0 leaves the seed alone. images: that are compared at most. metrics: of
    pairs of maps.
    """

    training: TrainPlan
    seeds: tuple[int, ...] = (0, 1)
    exchanged: tuple[float, ...] = (0.0, 0.1)
    images: int = 500
    methods: Mapping[str, Settings] = field(default_factory=lambda: {"simple-gradient": {}})
    metrics: tuple[str, ...] = ("ssim", "dice", "spearman")

    def __post_init__(self) -> None:
        _check_seeds(self.seeds, 2)
        if not self.exchanged or not all(0 <= share < 1 for share in self.exchanged):
            raise ValueError(
                f"exchanged: expected shares from 0 to below 1, got {list(self.exchanged)}"
            )
        _check_compared(self.images, self.methods, self.metrics)


@dataclass(frozen=True, kw_only=True)
class LabelsPlan:
    """Networks trained on their labels, and on labels in an order drawn by the seed.

    Those of one seed begin with the same weights, and would look alike for that: a network on
    permuted labels is compared with those of the other seeds, as these are with each other. A map
    that hardly differs between the two does not show what a network has learnt. The second
    network should know its labels by heart (more than 95 %); the table tells whether it does.
    """

    training: TrainPlan
    seeds: tuple[int, ...] = (0, 1)
    images: int = 500
    methods: Mapping[str, Settings] = field(default_factory=lambda: {"simple-gradient": {}})
    metrics: tuple[str, ...] = ("ssim", "spearman", "spearman-signed")

    def __post_init__(self) -> None:
        _check_seeds(self.seeds, 2)
        _check_compared(self.images, self.methods, self.metrics)


def _check_compared(images: int, methods: Mapping[str, Settings], metrics: Sequence[str]) -> None:
    if images < 1:
        raise ValueError(f"images: expected at least 1, got {images}")
    _check_labels(methods)
    pairs = [name for name, metric in METRICS.items() if metric.kind == "pair"]
    if not metrics:
        raise ValueError(f"metrics: expected some of {', '.join(pairs)}, got none")
    for name in metrics:
        choose("metrics", name, pairs)


def _check_seeds(seeds: Sequence[int], least: int) -> None:
    if len(seeds) < least or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"seeds: expected {least} or more different numbers >= 0, got {list(seeds)}"
        )


def _check_labels(methods: Mapping[str, Settings]) -> None:
    for label in methods:
        if LABEL.fullmatch(label) is None or label in (RANDOM, ALL, IDS, FILL):
            raise ValueError(f"methods: {label!r} cannot be a label; give it another")
