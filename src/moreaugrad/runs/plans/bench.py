"""What `bench` is asked for: which network, which methods, and how long each is timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from moreaugrad.explainers.quality import QUALITIES
from moreaugrad.runs.plans.common import ComputePlan, DataPlan, ModelPlan
from moreaugrad.runs.plans.maps import LEVELS, methods_option
from moreaugrad.runs.plans.option import Plan, option, part
from moreaugrad.runs.plans.text import Settings
from moreaugrad.settings import expect


@dataclass(frozen=True, kw_only=True)
class BenchModelPlan(ModelPlan):
    """random_weights: fresh ones, with which passes take as long."""

    random_weights: bool = option(
        False, "Random weights instead of the network's own, which are not downloaded.",
        group="Model",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.random_weights and self.weights is not None:
            raise ValueError("random_weights: expected no weights with it, got both")

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {"pretrained": not self.random_weights}


@dataclass(frozen=True, kw_only=True)
class BenchPlan(Plan):
    """batch: numbers of images at once; () is 1 and 8, on a GPU 64 too. levels: of methods
    that have them. samples: of methods with a fixed number, and of Captum's NoiseTunnel.
    seconds: for which each method is repeated, at each number of images."""

    GROUP: ClassVar[str] = "Explanation"

    data: DataPlan = part(DataPlan)
    model: BenchModelPlan = part(BenchModelPlan)
    methods: Mapping[str, Settings] = methods_option(
        "simple-gradient", "smoothgrad", "sparse-moreaugrad"
    )
    levels: tuple[str, ...] = option(
        ("preview", "standard"), f"Quality levels of the methods that have them: {LEVELS}.",
        choices=tuple(QUALITIES),
    )  # fmt: skip
    samples: int = option(
        64, "Noise samples of methods with a fixed number, and of NoiseTunnel.", "--noise-samples",
        within="[1, inf)",
    )  # fmt: skip
    batch: tuple[int, ...] = option(
        (), "Numbers of images at once, separated by commas.", shown="1,8; on a GPU 1,8,64",
        group="Computation", within="[1, inf)", distinct=True,
    )  # fmt: skip
    seconds: float = option(
        10.0, "Seconds for which each method is repeated, at each number of images; once at least.",
        group="Computation", within="(0, inf)",
    )  # fmt: skip
    compute: ComputePlan = part(ComputePlan)

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(bool(self.methods), "methods", "at least one", self.methods)
