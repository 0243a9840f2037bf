"""What `explain`, `compare` and `sweep` are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from moreaugrad.explainers import METHODS
from moreaugrad.registry import choose
from moreaugrad.runs.plans.common import ModelPlan
from moreaugrad.runs.plans.maps import EXPORTS, LIMITED, METRICS_HELP, MapsPlan, read_metrics
from moreaugrad.runs.plans.option import Plan, Settings, option, part

USUAL: Mapping[str, Settings] = {"gini": {}}
"""Metrics of every map; with ground truth also how well it is found."""


@dataclass(frozen=True, kw_only=True)
class StylePlan(Plan):
    """How maps are drawn, see `pictures.Style`."""

    GROUP: ClassVar[str] = "Output"

    percentile: float = option(
        99.0, "Percentile of a map's magnitudes from which on they get the last colour."
    )
    reduction: str = option("abs-sum", "Channels to one magnitude: abs-sum or max-abs.")
    palette: str = option("magma", "Palette of heat maps.")
    signed_palette: str = option("blue-white-orange", "Palette of signed maps.")
    opacity: float = option(0.9, "Opacity of the strongest entries of an overlay.")
    keep: float = option(0.1, "Fraction of the pixels that a masked image keeps.")


@dataclass(frozen=True, kw_only=True)
class SweepPlan(Plan):
    """One method at several values of a setting, for the first `images` inputs (None: all).

    Without values usual ones are chosen when the run is prepared, for rho, eta and sigma.
    """

    GROUP: ClassVar[str] = "Explanation"

    method: str = option("sparse-moreaugrad", "Name of the method.", "--method", "-m")
    over: str = option("eta", "The numeric setting that changes: rho, eta, sigma or another.")
    values: tuple[float, ...] = option(
        (), "Numbers, separated by commas; 0 is shown as the limit.", shown="usual ones"
    )
    settings: Settings = field(default_factory=dict)
    images: int | None = None

    def __post_init__(self) -> None:
        METHODS.check(self.method)
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
class ComparisonPlan(Plan):
    """A second network, explained on the same inputs. methods: () are those of the first.

    target: None is that of the first, by this network's labels.
    """

    model: ModelPlan = part(ModelPlan)
    methods: Mapping[str, Settings] = field(default_factory=dict)
    target: int | str | None = None


def _second(before: ComparisonPlan | None, text: str) -> ComparisonPlan:
    return replace(before or ComparisonPlan(), model=ModelPlan(name=text))


@dataclass(frozen=True, kw_only=True)
class ExplainPlan(MapsPlan):
    """images x methods as files and one page, and a sweep perhaps.

    export: further formats of each map. page_images: how many inputs the page shows.
    compare: another network, to compare with.
    """

    metrics: Mapping[str, Settings] = option(
        USUAL, METRICS_HELP, read=read_metrics, shown="gini; with ground truth auroc and "
        "average-precision",
    )  # fmt: skip
    export: tuple[str, ...] = option((), "Further formats of each map: npy, csv.", group="Output")
    page_images: int = option(
        24, "Number of inputs that the page shows. Up to 32 inputs and 128 maps it is one file; "
        "the images of a larger page are files in index_files/ next to it.", group="Output",
    )  # fmt: skip
    style: StylePlan = part(StylePlan)
    sweep: SweepPlan | None = None
    compare: ComparisonPlan | None = option(
        None, "A second network, named as --model is, explained by the same methods.",
        "--compare-with", group="Model", read=_second, metavar="TEXT",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.export:
            choose("export", name, EXPORTS)
        if self.page_images < 1:
            raise ValueError(f"page_images: expected at least 1, got {self.page_images}")


def swept(plan: ExplainPlan) -> ExplainPlan:
    """A sweep alone, with the settings that a configuration has for its method."""
    sweep = plan.sweep or SweepPlan()
    own = {k: v for k, v in plan.methods.get(sweep.method, {}).items() if k != sweep.over}
    settings = {**own, **sweep.settings}
    return replace(plan, methods={}, compare=None, sweep=replace(sweep, settings=settings))
