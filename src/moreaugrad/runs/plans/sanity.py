"""What `sanity` is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from moreaugrad.metrics import METRICS
from moreaugrad.registry import choose
from moreaugrad.runs.plans.common import DataPlan
from moreaugrad.runs.plans.maps import MapsPlan, read_methods, read_metrics
from moreaugrad.runs.plans.option import Settings, option, part, unkept

MODES = ("cascading", "independent")
USUAL: Mapping[str, Settings] = {name: {} for name in ("ssim", "spearman", "spearman-signed")}


@dataclass(frozen=True, kw_only=True)
class SanityPlan(MapsPlan):
    """Maps of copies of a network with randomised weights, compared with those of the network.

    modes: "cascading" randomises block after block from the output on, "independent" one at a time.
    seeds: of the new weights. blocks: names of modules, the nearest to the output first; () is all
    with weights of their own. metrics: of pairs of maps. calibrate: layers of batch normalisation
    take the statistics of the images after the randomisation.
    """

    GROUP: ClassVar[str] = "Randomisation"

    data: DataPlan = part(DataPlan, images=16)
    methods: Mapping[str, Settings] = option(
        {"simple-gradient": {}}, "Names of methods, separated by commas; all; or all,-NAME for all "
        "but one.", "--methods", "--method", "-m", group="Explanation", read=read_methods,
        shown="simple-gradient",
    )  # fmt: skip
    metrics: Mapping[str, Settings] = option(
        USUAL, "Names of metrics of pairs of maps, separated by commas.", read=read_metrics,
        shown=", ".join(USUAL),
    )  # fmt: skip
    block: int | None = unkept(None)
    modes: tuple[str, ...] = option(MODES, "cascading, independent or both.")
    seeds: tuple[int, ...] = option((0, 1, 2), "Random seeds of the new weights.")
    blocks: tuple[str, ...] = option(
        (), "Modules, the nearest to the output first, separated by commas.",
        shown="all with weights of their own",
    )  # fmt: skip
    calibrate: bool = option(
        False, "Batch normalisation takes the images' statistics after the randomisation."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for mode in self.modes:
            choose("modes", mode, MODES)
        pairs = [name for name, metric in METRICS.items() if metric.kind == "pair"]
        for label, given in self.metrics.items():
            choose("metrics", given.get("metric", label), pairs)
        for name in ("modes", "metrics", "methods", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one, got none")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds: expected numbers >= 0, got {list(self.seeds)}")
