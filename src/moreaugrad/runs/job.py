"""A job: which pictures, which network, which methods. Everything that decides its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self

from moreaugrad.explainers import METHODS
from moreaugrad.files.foreign import check_named
from moreaugrad.models import Preprocess, PreprocessPlan
from moreaugrad.models.sources import refuse_code
from moreaugrad.pictures import Style
from moreaugrad.registry import choose, labelled

DTYPES = ("float32", "float64", "bfloat16")
EXPORTS = ("npy", "csv")
LIMITED = ("rho", "eta", "sigma")
"""Settings whose value 0 a sweep shows as a limit."""


UNKEPT = {"kept": False}
"""Of a field that configuration files do not have."""


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """Which network: see `models.load_model`. `preprocess` None: as the model's source says.

    name: has to be given; nothing is explained or trained by a network that nobody chose.
    named_in: the configuration file that the name came out of; empty where the caller gave it.
    trust: whether code that a file names may be run, this one or the folder of `trained:FOLDER`.
    """

    name: str = ""
    weights: str | None = None
    labels: str | None = None
    preprocess: PreprocessPlan | None = None
    named_in: str = field(default="", compare=False, metadata=UNKEPT)
    trust: bool = field(default=False, compare=False, metadata=UNKEPT)

    def named(self, name: str | None, *, trust: bool) -> Self:
        """With the name that a caller gives, if any, and the consent."""
        if name is None:
            return replace(self, trust=trust)
        return replace(self, trust=trust, name=name, named_in="")

    def check_trust(self) -> None:
        """Errors: ValueError for code that a configuration file names, without `trust`."""
        if self.named_in:
            refuse_code(self.name, self.named_in, trust=self.trust)

    def arguments(self) -> dict[str, Any]:
        """Of `load_model`. Errors: ValueError without a name, and as of `check_trust`."""
        if not self.name:
            raise ValueError(
                "model: expected a network, got none: name it with --model, as "
                "torchvision:resnet50, timm:NAME, hf:NAME, trained:FOLDER or python.module:factory "
                "(builtin is a classifier of synthetic cells)"
            )
        self.check_trust()
        return {
            "name": self.name, "weights": self.weights, "labels": self.labels,
            "preprocess": self.preprocess, "trust": self.trust,
        }  # fmt: skip

    def resolved(self, preprocess: Preprocess) -> Self:
        """With all of the preprocessing spelt out."""
        return replace(self, preprocess=PreprocessPlan.like(preprocess))


MOST_THREADS = 1024


def check_threads(count: int | None) -> None:
    """Errors: ValueError for a number that no machine has."""
    if count is not None and not 1 <= count <= MOST_THREADS:
        raise ValueError(f"threads: expected a number from 1 to {MOST_THREADS}, got {count}")


@dataclass(frozen=True, kw_only=True)
class ComputePlan:
    """Where and how passes are computed. None: chosen for the machine when the job is resolved.

    threads: of the processor; sums of another number of threads round differently.
    channels_last, fold_batchnorm: the same function in fewer or faster passes, up to rounding.
    """

    device: str | None = None
    dtype: str = "float32"
    threads: int | None = None
    channels_last: bool | None = None
    fold_batchnorm: bool | None = None

    def __post_init__(self) -> None:
        choose("dtype", self.dtype, DTYPES)
        check_threads(self.threads)


@dataclass(frozen=True, kw_only=True)
class CellsPlan:
    """Synthetic cells instead of picture files; their true maps are known."""

    indices: tuple[int, ...]
    seed: int = 0
    min_feature_fraction: float = 0.0

    def __post_init__(self) -> None:
        if not self.indices or min(self.indices) < 0 or self.seed < 0:
            raise ValueError(
                "cells: expected at least one index, and all of them and the seed >= 0, got "
                f"{list(self.indices)} and {self.seed}"
            )


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """One method at several values of a setting, for the first `images` inputs (None: all).

    Without values usual ones are chosen when the job is resolved, for rho, eta and sigma.
    """

    method: str
    over: str
    values: tuple[float, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: int | None = None

    def __post_init__(self) -> None:
        known = METHODS[self.method].defaults()
        choose(f"the setting to sweep of {self.method}", self.over, known)
        if self.over in self.settings:
            raise ValueError(
                f"{self.over}: expected its values from the sweep alone, got "
                f"{self.settings[self.over]!r} as a fixed setting too: leave one out"
            )
        if list(self.values) != sorted(set(self.values)):
            object.__setattr__(self, "values", tuple(sorted(set(self.values))))
        if self.over in LIMITED and self.values and self.values[0] < 0:
            raise ValueError(f"{self.over}: expected values >= 0, got {self.values[0]:g}")


@dataclass(frozen=True, kw_only=True)
class BesidePlan:
    """A second network, explained on the same inputs by methods of its own.

    target: None is the job's, by this network's labels. network, outputs: as of a `Job`.
    """

    model: ModelPlan
    methods: Mapping[str, Mapping[str, Any]]
    target: int | str | None = None
    network: str = ""
    outputs: str = ""

    def __post_init__(self) -> None:
        if not self.methods:
            raise ValueError("beside: expected at least one method, got none")
        object.__setattr__(self, "methods", labelled("method", self.methods))
        for label, settings in self.methods.items():
            METHODS.check(str(settings.get("method", label)), "beside: method")


@dataclass(frozen=True, kw_only=True)
class Job:
    """images x methods, and a sweep perhaps.

    images: files, folders and globs, or `cells`. methods: name to settings; what is not set has
    its default. target: a class, by index or label; None is each input's prediction.
    export: further formats of each map. page_images: how many inputs the page shows.
    beside: another network, to compare with.
    files, network, outputs: digests of the images' names and contents, of the network's weights and
    of the names of its outputs; filled in.
    """

    images: tuple[str, ...] = ()
    cells: CellsPlan | None = None
    target: int | str | None = None
    export: tuple[str, ...] = ()
    page_images: int = 24
    files: str = ""
    network: str = ""
    outputs: str = ""
    model: ModelPlan = ModelPlan()
    compute: ComputePlan = ComputePlan()
    pictures: Style = field(default_factory=Style)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    sweep: SweepPlan | None = None
    beside: BesidePlan | None = None

    def __post_init__(self) -> None:
        if bool(self.images) == (self.cells is not None):
            raise ValueError(
                "images: expected picture files, folders or globs (or cells, not both), got "
                f"{'both' if self.images else 'none'}"
            )
        for name in self.images:
            check_named("images", name)
        object.__setattr__(self, "methods", labelled("method", self.methods))
        if not self.methods and self.sweep is None:
            raise ValueError("methods: expected at least one, or a sweep; got none")
        for label, settings in self.methods.items():
            METHODS.check(str(settings.get("method", label)))
        for name in self.export:
            choose("export", name, EXPORTS)
        if self.page_images < 1:
            raise ValueError(f"page_images: expected at least 1, got {self.page_images}")
