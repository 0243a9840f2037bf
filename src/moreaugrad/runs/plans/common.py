"""Plans that commands share: which network, on which images, computed how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from moreaugrad.data import LAYOUTS
from moreaugrad.runs.plans.option import Plan, filled, option, part, unkept

DTYPES = ("float32", "float64", "bfloat16")
THREADS = "[1, 1024]"
SEED = "[0, 9223372036854775808)"
CELLS = "cells"
Size = int | tuple[int, int]

MODEL_NAMES = (
    "torchvision:NAME, timm:NAME, hf:NAME, trained:FOLDER, python.module:factory, or builtin, a "
    "classifier of synthetic cells"
)
OFFERED = ("builtin", "torchvision:", "timm:", "hf:", "trained:")
TRUST = "Run code that a file names: module:factory of a configuration or of a trained network."


@dataclass(frozen=True, kw_only=True)
class PreprocessPlan(Plan):
    """How images become inputs; what is None is as the network's source has it."""

    GROUP: ClassVar[str] = "Model"

    resize: Size | None = option(
        None, "Shorter side of the image in pixels, or HEIGHT,WIDTH, before the crop."
    )
    crop: Size | None = option(None, "Side of the centre crop in pixels, or HEIGHT,WIDTH.")
    mean: tuple[float, ...] | None = option(
        None, "R,G,B that is subtracted from pixel values, which lie from 0 to 1."
    )
    std: tuple[float, ...] | None = option(None, "R,G,B that the difference is divided by.")
    interpolation: str | None = option(
        None, "Interpolation of the resize: nearest, box, bilinear, hamming, bicubic or lanczos."
    )


@dataclass(frozen=True, kw_only=True)
class ModelPlan(Plan):
    """Which network, see `models.load_model`.

    name: has to be given; nothing is explained or trained by a network that nobody chose.
    named_in: the configuration file that the name came out of; empty where the caller gave it,
    which is consent to run its code.
    trust: whether code that a file names may be run.
    """

    GROUP: ClassVar[str] = "Model"

    name: str = option(
        "", f"The network: {MODEL_NAMES}.", "--model", shown="required", clears=("named_in",),
        offers=OFFERED,
        resets=("weights", "labels", "preprocess"),
    )  # fmt: skip
    weights: str | None = option(
        None, "File of weights: safetensors, or a checkpoint without code in it.", path="digest",
        metavar="FILE",
    )  # fmt: skip
    labels: str | None = option(
        None, "File with a class name on each line, or JSON.", path="outputs", metavar="FILE",
    )  # fmt: skip
    preprocess: PreprocessPlan = part(PreprocessPlan)
    digest: str = filled()
    outputs: str = filled()
    named_in: str = unkept("")
    trust: bool = unkept(False)

    def check_trust(self) -> None:
        """Errors: ValueError for code that a configuration file names, without `trust`."""
        if self.named_in:
            from moreaugrad.models.loading import check_trust

            check_trust(self.name, self.named_in, trust=self.trust)

    def with_paths(self, move: Callable[[str], str]) -> Self:
        from moreaugrad.models.loading import TRAINED, trained_folder

        folder = trained_folder(self.name)
        name = self.name if folder is None else f"{TRAINED}:{move(folder)}"
        return replace(super().with_paths(move), name=name)

    def arguments(self) -> dict[str, Any]:
        """Of `load_model`. Errors: ValueError without a name, and as of `check_trust`."""
        if not self.name:
            raise ValueError(
                f"model: expected a network, got none: name it with --model, as {MODEL_NAMES}"
            )
        self.check_trust()
        return {
            "name": self.name, "weights": self.weights, "labels": self.labels,
            "preprocess": self.preprocess.given(), "trust": self.trust,
        }  # fmt: skip


def layout_option() -> Any:
    """The field of the network's memory layout; None is channels last where it is safe."""
    return option(
        None, "Memory layout of the network: channels last or first.", "--channels-last",
        negative="--channels-first", shown="last, but on mps", group="Computation",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ComputePlan(Plan):
    """Where and how passes are computed. None: chosen for the machine when the run is prepared.

    threads: sums of another number of threads round differently.
    channels_last, fold_batchnorm, compile: the same function in faster or fewer passes, up to
    rounding.
    """

    GROUP: ClassVar[str] = "Computation"

    device: str | None = option(None, "Device: cpu, cuda, cuda:1, mps or auto.", shown="auto")
    dtype: str = option(
        "float32", "Precision of the network: float32, float64 or bfloat16.", choices=DTYPES
    )
    threads: int | None = option(None, "CPU threads of each process.", within=THREADS)
    channels_last: bool | None = layout_option()
    fold_batchnorm: bool | None = option(
        None, "Fold batch normalisation into convolutions, or keep it.", "--fold-batchnorm",
        negative="--keep-batchnorm", shown="fold",
    )  # fmt: skip
    compile: bool = option(
        False, "Compile the network's passes by torch.compile, which takes up to a minute first; "
        "bench says whether it is faster.",
    )  # fmt: skip


def images_option(usual: int | None = None) -> Any:
    """The field of how many images; a plan of few has another default."""
    return option(
        usual, "Number of images, chosen by --seed.", shown="" if usual else "all",
        within="[1, inf)", clears=("indices",),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DataPlan(Plan):
    """Which images. files: named alone, by folders or by globs; or `source`, a data set.

    images: how many of the source, chosen by the run's seed; indices: which ones, by their places.
    seed, min_feature_fraction: of cells alone, see `data.cells.Cells`.
    """

    GROUP: ClassVar[str] = "Data"

    files: tuple[str, ...] = option(
        (), "Images, folders or globs.", "IMAGE", path="digest",
        clears=("source", "indices", "images", "layout", "split"),
    )  # fmt: skip
    source: str | None = option(
        None, "A data set instead of images: a folder of images, or a zip archive of one (also "
        "ImageNet, Tiny-ImageNet, CIFAR-10 and CUB-200-2011 as they are distributed); or cells, "
        "the built-in synthetic cells.", "--data", path="digest", clears=("files",),
        resets=("indices", "images", "layout", "split"),
    )  # fmt: skip
    layout: str = option(
        "auto", "Layout of the data set: cub, cifar10, tiny-imagenet, listed, imagenet or folders."
    )
    split: str | None = option(
        None, "Part of the data set: val, test or train.", shown="the first of these that there is",
        choices=("val", "test", "train"),
    )  # fmt: skip
    images: int | None = images_option()
    indices: tuple[int, ...] = option(
        (), "Indices of images of the data set, separated by commas, instead of --images.",
        clears=("images",), distinct=True,
    )  # fmt: skip
    seed: int = option(0, "Random seed of synthetic cells.", "--data-seed")
    min_feature_fraction: float = option(
        0.0, "Smallest fraction of an image of cells that the feature of its class covers."
    )
    max_unreadable: float = option(
        0.1, "Fraction of images that may be unreadable; with more of them the run fails.",
        within="[0, 1]",
    )  # fmt: skip
    digest: str = filled()

    def __post_init__(self) -> None:
        from moreaugrad.files.foreign import check_named

        super().__post_init__()
        for name in self.files:
            check_named("images", name)
        if self.source is not None:
            check_named("data", self.source)
        if self.files and self.source is not None:
            raise ValueError(f"images: expected files or --data {self.source}, got both")
        LAYOUTS.check(self.layout, also=["auto", CELLS])
        if self.files and (self.layout, self.split) != ("auto", None):
            raise ValueError("layout and split: expected a data set (--data), got image files")

    def with_paths(self, move: Callable[[str], str]) -> Self:
        return self if self.source == CELLS else super().with_paths(move)
