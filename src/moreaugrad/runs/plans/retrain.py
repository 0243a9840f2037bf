"""What the retraining studies are asked for: DiffROAR, stability, permuted labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from moreaugrad.registry import labelled
from moreaugrad.runs.plans.maps import methods_option
from moreaugrad.runs.plans.option import Option, Plan, filled, option, unkept, whole
from moreaugrad.runs.plans.parts import LABEL, check_pairs, labelled_setting, with_setting
from moreaugrad.runs.plans.text import Settings
from moreaugrad.runs.plans.train import LoadingPlan, TrainPlan
from moreaugrad.settings import expect

RANDOM, ALL = "random", "all"
"""The control, whose order is drawn; and networks trained on whole images."""
TRAINING = "TOML file of a training, as each folder of train holds one."
IDS, FILL = "ids", "fill"
"""Files next to those of ranks, which are named by the methods."""


@dataclass(frozen=True, kw_only=True)
class RetrainPlan(Plan):
    """training: of the new networks, or `file`, the TOML file of one; epochs, device: instead of
    its own. methods: settings by label."""

    GROUP: ClassVar[str] = "Study"
    EDITS: ClassVar[Mapping[str, Option]] = {
        "set": Option(
            names=("--set",), group="Study", repeated=True, metavar="[METHOD.]NAME=VALUE",
            help="Any setting that `moreaugrad methods` lists; with a label, of that method.",
        ),
    }  # fmt: skip

    training: TrainPlan = whole(TrainPlan)
    file: str | None = option(
        None, TRAINING, "--training", shown="required", metavar="FILE", kept=False
    )
    epochs: int | None = option(
        None, "Epochs of each training.", shown="those of the file of the training",
        within="[1, inf)",
    )  # fmt: skip
    device: str | None = option(
        None, "Device: cpu, cuda, cuda:1, mps or auto.", group="Computation",
        shown="that of the file of the training",
    )  # fmt: skip
    loading: LoadingPlan = unkept(LoadingPlan)
    seeds: tuple[int, ...] = option(
        (0, 1), "Random seeds of the trainings.", within="[0, inf)", distinct=True
    )
    methods: Mapping[str, Settings] = methods_option("simple-gradient", group="Study")
    LEAST: ClassVar[int] = 2
    """Seeds that the study needs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        enough = len(self.seeds) >= self.LEAST
        expect(enough, "seeds", f"{self.LEAST} or more different numbers >= 0", list(self.seeds))
        object.__setattr__(self, "methods", labelled("method", self.methods))
        for label in self.methods:
            if LABEL.fullmatch(label) is None or label in (RANDOM, ALL, IDS, FILL):
                raise ValueError(f"methods: {label!r} cannot be a label; give it another")

    def edited(self, name: str, value: Any) -> Self:
        plan = self
        for label, own, found in map(labelled_setting, value):
            for each in [label] if label else self.methods:
                plan = replace(plan, **with_setting({"methods": plan.methods}, each, own, found))
        return plan


@dataclass(frozen=True, kw_only=True)
class DiffRoarPlan(RetrainPlan):
    """explained: the folder of a training, whose best network is explained on its own data.

    training: of the networks that learn from masked images; by default as the explained one, but
    with its plain loss. levels: fractions that are kept.
    unit: "element" ranks every entry, "pixel" the sum over channels. control: a random order too.
    target: explain each image's label, as published (masks then say something of the label, also
    in the test), or the network's prediction. fill: the value of what is removed, in [0, 1]; None
    is the training images' mean colour.
    """

    file: str | None = option(
        None, TRAINING, "--training", metavar="FILE", kept=False,
        shown="as the explained network was trained, on the plain loss",
    )  # fmt: skip
    explained: str = option("", "Folder of a training.", "TRAINED", path="digest")
    digest: str = filled()
    seeds: tuple[int, ...] = option(
        (0, 1, 2), "Random seeds of the trainings.", within="[0, inf)", distinct=True
    )
    levels: tuple[float, ...] = option(
        tuple(level / 10 for level in range(1, 10)), "Fractions of an image that are kept.",
        within="(0, 1)", distinct=True,
    )  # fmt: skip
    unit: str = option(
        "element", "What is ranked: element (every entry) or pixel.", choices=("element", "pixel")
    )
    target: str = option(
        "label", "Explain the label, or the prediction.", "--target", "-t",
        choices=("label", "prediction"),
    )  # fmt: skip
    fill: float | None = option(
        None, "Value of what is removed, from 0 to 1.", shown="the mean colour", within="[0, 1]"
    )
    control: bool = option(True, "Also rank in a random order.", negative="--no-control")
    LEAST: ClassVar[int] = 1

    @property
    def orders(self) -> list[str]:
        return [*self.methods, *([RANDOM] if self.control else [])]


def metrics_option(*usual: str) -> Any:
    """The field of a plan's metrics of pairs of maps."""
    return option(usual, "Metrics of pairs of maps, separated by commas.", distinct=True)


@dataclass(frozen=True, kw_only=True)
class PairPlan(RetrainPlan):
    """images: whose maps are compared, at most. metrics: of pairs of maps."""

    images: int = option(
        500, "Largest number of test images whose maps are compared.", within="[1, inf)"
    )
    metrics: tuple[str, ...] = metrics_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pairs(self.metrics)


@dataclass(frozen=True, kw_only=True)
class StabilityPlan(PairPlan):
    """Networks of several seeds, each with a fraction of its training images exchanged for test
    images; their maps are compared on test images that none has learnt from.

    exchanged: the fractions; 0 leaves the seed alone.
    """

    metrics: tuple[str, ...] = metrics_option("ssim", "dice", "spearman")
    exchanged: tuple[float, ...] = option(
        (0.0, 0.1), "Fractions of the training images exchanged for test images.", within="[0, 1)",
        distinct=True,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LabelsPlan(PairPlan):
    """Networks trained on their labels, and on labels in an order drawn by the seed.

    Those of one seed begin with the same weights, and would look alike for that: a network on
    permuted labels is compared with those of the other seeds, as these are with each other. A map
    that hardly differs between the two does not show what a network has learnt. The second
    network should know its labels by heart (more than 95 %); the table says whether it does.
    """

    metrics: tuple[str, ...] = metrics_option("ssim", "spearman", "spearman-signed")
