"""Maps of images by methods: what `explain`, `compare`, `sweep` and `evaluate` are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from moreaugrad.explainers import METHODS
from moreaugrad.explainers.quality import QUALITIES, is_level
from moreaugrad.files.maps import HALF, SPARSE
from moreaugrad.metrics import METRICS
from moreaugrad.runs.plans.common import ComputePlan, DataPlan, ModelPlan
from moreaugrad.runs.plans.option import Option, Plan, option, part
from moreaugrad.runs.plans.parts import (
    ALL,
    labelled_setting,
    read_methods,
    read_metrics,
    with_labels,
    with_setting,
)
from moreaugrad.runs.plans.text import Settings, typed

METRICS_HELP = "Names of metrics, separated by commas; or all."
OF_LABEL = "label"
"""As a target: the data set's class instead of the prediction."""
NII = "nii"
EXPORTS = ("npy", "csv", NII)
EXACT = "exact"
STORED = (EXACT, HALF, SPARSE)
"""Forms in which a run stores its maps."""
LIMITED = ("rho", "eta", "sigma")
"""Settings whose value 0 a sweep shows as a limit."""


def method_name(label: str, own: Settings) -> str:
    """The registry's name of a method with a label. Errors: ValueError for one that it lacks."""
    return METHODS.check(str(own.get("method", label)))


def takes(method: str, name: str, value: Any) -> bool:
    """Whether a method takes a setting that is given for all methods.

    A quality level is for methods with levels, which have one by default.
    """
    row = METHODS[method]
    defaults = row.defaults()
    levels = not is_level(value) or is_level(defaults.get(name))
    return name in defaults and name not in row.settings and levels


def without(methods: Mapping[str, Settings], name: str, value: Any) -> dict[str, Settings]:
    """Methods by label, without their own values of a setting that they take from all."""
    return {
        label: {
            k: v for k, v in own.items()
            if k != name or not takes(method_name(label, own), name, value)
        }
        for label, own in methods.items()
    }  # fmt: skip


def methods_option(
    *usual: str, group: str = "Explanation", more: Mapping[str, Settings] = {}
) -> Any:
    """The field of a plan's methods. usual: names of the default ones; more: by their labels."""
    return option(
        {**{name: {} for name in usual}, **more},
        "Names of methods, separated by commas; all; or all,-NAME for all but one.",
        "--methods", "--method", "-m", group=group, read=read_methods,
        shown=", ".join((*usual, *more)), offers=(ALL, *METHODS),
    )  # fmt: skip


BATCH_SIZE = "Network passes done at once, or auto; halved when memory runs out."


def batch_size_option() -> Any:
    """The field of plans that are not of many methods."""
    return option(
        None, BATCH_SIZE, "--batch-size", shown="auto", group="Computation", within="[1, inf)",
        read=lambda _, text: _batch_size(text),
    )  # fmt: skip


def _batch_size(text: str) -> int | None:
    """None for auto. Errors: ValueError for what is no number of passes."""
    if text == "auto":
        return None
    found = typed(text)
    if type(found) is not int or found < 1:
        raise ValueError(f"--batch-size: expected auto or a whole number of passes, got {text!r}")
    return found


def _common(help: str, name: str, default: str = "by method", **more: Any) -> Option:
    usual = {"names": (name,), "group": "Explanation"}
    return Option(help=help, default=default, **{**usual, **more})


SCORES = ("logit", "log-probability", "probability", "margin", "cross-entropy")
LEVELS = " or ".join(f"{name} ({value:g})" for name, value in QUALITIES.items())
COMMON = {
    "score": _common(
        f"What is explained: {', '.join(SCORES)}, or against:CLASS, the logit minus that of "
        "another class by index.", "--score", offers=SCORES,
    ),
    "task": _common(
        "How outputs are read: auto, multiclass, binary, multilabel or regression.", "--task",
        "auto",
    ),
    "layer": _common("Name of a module whose output is explained, not the input.", "--layer", ""),
    "rho": _common("rho of the Moreau envelope.", "--rho", metavar="NUMBER"),
    "eta": _common("Weight of the penalty, a number, or auto to reach --sparsity.", "--eta",
                   "auto"),
    "sparsity": _common("Fraction of zeros that an automatic eta gives.", "--sparsity", "0.9",
                        metavar="NUMBER"),
    "sigma": _common(
        "Standard deviation of the Gaussian noise, as a fraction of the input's range; 0 is no "
        "noise. With --sigma-mode absolute: in the network's input units.", "--sigma",
        metavar="NUMBER",
    ),
    "sigma_mode": _common("Units of --sigma: relative or absolute.", "--sigma-mode", "relative"),
    "samples": _common("Noise samples of each map, of methods with a fixed number.",
                       "--noise-samples", metavar="NUMBER"),
    "group": _common(
        "Groups of group-sparse methods: side of the blocks in pixels, or HEIGHT,WIDTH, or tokens.",
        "--group",
    ),
    "tolerance": _common(
        f"Relative error at which a map is done: a number, or {LEVELS} for the methods of the "
        "MoreauGrad family; a level changes no other method.", "--tolerance",
        names=("--tolerance", "--quality"), offers=tuple(QUALITIES),
    ),
    "max_evaluations": _common("Largest number of gradient evaluations of a map.",
                               "--max-evaluations", metavar="NUMBER"),
    "batch_size": _common(BATCH_SIZE, "--batch-size", "auto", group="Computation"),
    "check": _common(
        "Refuse a network whose output is random or depends on the other inputs of a batch.",
        "--check", "check", is_flag=True, negative="--no-check",
    ),
}  # fmt: skip
"""Settings of many methods, which have options of their own; see `MapsPlan.settings`."""
INPUTS = "inputs"
"""Baselines that are the run's own images."""


@dataclass(frozen=True, kw_only=True)
class MapsPlan(Plan):
    """images x methods, and numbers about the maps.

    target: a class by index or label, "label" for the data set's own, or None for each input's
    prediction. seed: of all that is drawn at random, where no part has a seed of its own.
    settings: of every method that has them and is not given its own; empty once they are spelt
    out. methods, metrics: settings by label. A label is a name of the
    registry, or the settings name it (`method`, `metric`), so that one can be there twice.
    block: images that are computed together, the unit of work; None: by the size of an
    input on a CPU, by the memory of a GPU.
    """

    GROUP: ClassVar[str] = "Explanation"
    EDITS: ClassVar[Mapping[str, Option]] = {
        **COMMON,
        "set": _common(
            "Any setting of the methods (see `moreaugrad methods`); with a "
            "label, of that method, attack or metric.", "--set", "", repeated=True,
            metavar="[LABEL.]NAME=VALUE",
        ),
    }  # fmt: skip
    PARTS: ClassVar[tuple[str, ...]] = ("methods", "metrics")
    """The fields whose settings `--set LABEL.NAME` changes."""
    DERIVED: ClassVar[tuple[str, ...]] = ("methods",)
    """The fields of whose settings some follow from the run's other fields."""

    data: DataPlan = part(DataPlan)
    target: int | str | None = option(
        None, "Class to explain, by index or label; or label, for the data set's own.", "--target",
        "-t", group="Explanation", shown="the predicted class",
    )  # fmt: skip
    seed: int = option(
        0, "Random seed of the choice of images, of noise and of attacks.", group="Explanation",
        within="[0, inf)",
    )  # fmt: skip
    model: ModelPlan = part(ModelPlan)
    settings: Settings = field(default_factory=dict)
    methods: Mapping[str, Settings] = methods_option()
    metrics: Mapping[str, Settings] = option(
        {}, METRICS_HELP, read=read_metrics, offers=(ALL, *METRICS)
    )
    block: int | None = option(
        None, "Images computed together, the unit of work that an interruption loses.",
        shown="by their size, or a GPU's memory", group="Computation", within="[1, inf)",
    )  # fmt: skip
    compute: ComputePlan = part(ComputePlan)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.PARTS:
            object.__setattr__(self, name, with_labels(name[:-1], getattr(self, name)))

    def following(self, before: Self, changed: Collection[str]) -> Self:
        """Parts that are not given anew have no longer what followed from the run before: its seed,
        what its network's pixels are divided by, and its images as baselines, or that one image is
        no data."""
        plan = super().following(before, changed)
        std, alone = before.model.preprocess.std, len(before.data.files) == 1
        followed: dict[str, list[tuple[str, Any]]] = {
            "seed": [("seed", before.seed)],
            "model": [("std", std and list(std))],
            "data": [("baselines", INPUTS), *([("baselines", 0.0)] if alone else [])],
        }
        old = [pair for name, pairs in followed.items() if name in changed for pair in pairs]

        def kept(own: Settings) -> Settings:
            plain = {k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}
            return {k: v for k, v in own.items() if (k, plain[k]) not in old}

        parts: dict[str, Any] = {
            name: {label: kept(own) for label, own in getattr(plan, name).items()}
            for name in self.DERIVED if name not in changed
        }  # fmt: skip
        return replace(plan, **parts)

    def edited(self, name: str, value: Any) -> Self:
        """With a common setting, or with `--set`: of every method, or of the part with a label."""
        if name != "set":
            # The layers of a sequence have numbers for names.
            readers: dict[str, Callable[[str], Any]] = {"batch_size": _batch_size, "layer": str}
            found = value if isinstance(value, bool) else readers.get(name, typed)(value)
            return self.with_common(name, found)
        plan = self
        # Those of one part come last, because they replace those of all methods.
        for label, own, found in sorted(map(labelled_setting, value), key=lambda one: bool(one[0])):
            if label:
                parts = {name: getattr(plan, name) for name in plan.PARTS}
                plan = replace(plan, **with_setting(parts, label, own, found))
            else:
                plan = plan.with_common(own, found)
        return plan

    def with_common(self, name: str, value: Any) -> Self:
        """With a setting of all methods, instead of what a configuration has for each."""
        return replace(
            self, settings={**self.settings, name: value},
            methods=without(self.methods, name, value),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StoredMapsPlan(MapsPlan):
    """Maps that a run stores. maps_as: in which form; None is exactly, as are the maps of folders
    whose configurations do not say."""

    maps_as: str | None = option(
        None, "How maps are stored: exact; float16, half as large, with the relative error of each "
        "in its record; or sparse, only what is not zero, exactly.", group="Output",
        shown=EXACT, choices=STORED,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maps_as == EXACT:
            object.__setattr__(self, "maps_as", None)
