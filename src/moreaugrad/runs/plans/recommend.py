"""What `recommend` is asked for: candidates, how they are attacked, and how long it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from moreaugrad.explainers import METHODS
from moreaugrad.files.foreign import number_name, percent_name
from moreaugrad.runs.plans.common import DataPlan, images_option
from moreaugrad.runs.plans.maps import MapsPlan, method_name, methods_option, takes
from moreaugrad.runs.plans.option import option, part
from moreaugrad.runs.plans.text import Settings, seconds
from moreaugrad.settings import expect

CANDIDATES: Mapping[str, Settings] = {
    "simple-gradient": {}, "smoothgrad": {}, "sparse-moreaugrad": {}, "sparse-smoothgrad": {},
    "sparse-gradient": {}, "integrated-gradients": {"steps": 32}, "smooth-cafo": {},
    "group-sparse-moreaugrad": {}, "sparsified-smoothgrad": {},
    "smoothgrad-quick": {"method": "smoothgrad", "samples": 14},  # 16 evaluations at most
}  # fmt: skip
"""The last are the first that a short time leaves out."""
CHEAP: Settings = {"samples": 32, "tolerance": "preview", "max_evaluations": 256}
"""Settings of methods that take them and are not given their own."""


@dataclass(frozen=True, kw_only=True)
class RecommendDataPlan(DataPlan):
    """A few images, because every candidate is attacked on each."""

    images: int | None = images_option(8)


@dataclass(frozen=True, kw_only=True)
class RecommendPlan(MapsPlan):
    """Candidates, methods x sigmas x sparsities, measured on the same images.

    time: in seconds, by an estimate. rms, steps: of the attacks. top: the fraction of a map's
    entries that should stay. checkpoints: files of other weights of the same architecture.
    """

    GROUP: ClassVar[str] = "Recommendation"
    PARTS: ClassVar[tuple[str, ...]] = ("methods",)

    data: RecommendDataPlan = part(RecommendDataPlan)
    methods: Mapping[str, Settings] = methods_option(more=CANDIDATES)
    time: float = option(
        900.0, "Time limit, such as 90s, 15m or 2h: by an estimate it measures fewer "
        "noise levels, then fewer images, weaker attacks and fewer methods until they fit.",
        read=lambda _, text: seconds("--time", text), shown="15m", within="(0, inf)",
        metavar="TIME",
    )  # fmt: skip
    sigmas: tuple[float, ...] = option(
        (0.2, 0.1, 0.3, 0.05), "Noise levels of methods that have a sigma, separated by commas; "
        "the first is the last that a short time leaves out.", within="(0, inf)",
    )  # fmt: skip
    sparsities: tuple[float, ...] = option(
        (0.9,), "Fractions of zeros of methods that have a sparsity, separated by commas.",
        within="(0, 1)",
    )  # fmt: skip
    top: float = option(
        0.04, "Fraction of a map's entries that should stay the largest under attack.",
        within="(0, 1)",
    )  # fmt: skip
    rms: float = option(
        0.009, "Size of the attacks: the root mean square of their change of an image's values, "
        "which lie from 0 to 1. 0.009 is an L2 norm of 0.5 for 32 x 32 pixels.", within="(0, 1]",
    )  # fmt: skip
    steps: int = option(6, "Steps of the attacks.", "--attack-steps", within="[1, inf)")
    confidence: float = option(
        0.95, "Confidence of intervals, and that the best one is among those called tied.",
        within="[0.5, 1)",
    )  # fmt: skip
    checkpoints: tuple[str, ...] = option(
        (), "File of other weights of the same network, for instance trained with another seed: "
        "measures whether maps stay the same.", "--checkpoint", repeated=True, path=True,
        metavar="FILE", distinct=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(bool(self.methods), "methods", "at least one", self.methods)

    def candidates(self) -> dict[str, dict[str, Any]]:
        """Methods with settings by label: all methods at the first noise level and sparsity, then
        at the others."""
        found: dict[str, dict[str, Any]] = {}
        for sparsity in self.sparsities:
            for sigma in self.sigmas:
                for label, own in self.methods.items():
                    title, given = self._candidate(label, own, sigma, sparsity)
                    if given not in found.values():
                        found[title] = given
        return found

    def _candidate(
        self, label: str, own: Settings, sigma: float, sparsity: float
    ) -> tuple[str, dict[str, Any]]:
        name = method_name(label, own)
        varied = {"sigma": sigma, "sparsity": sparsity}
        defaults = METHODS[name].defaults()
        if not defaults.get("sigma"):  # one without noise stays so
            del varied["sigma"]
        known = {**self.settings, **own}
        varied = {k: v for k, v in varied.items() if k not in known and takes(name, k, v)}
        cheap = {k: v for k, v in CHEAP.items() if k not in known and takes(name, k, v)}
        if takes(name, "tolerance", CHEAP["tolerance"]):  # its noise samples are no budget
            cheap.pop("samples", None)
        if "tolerance" in known and takes(name, "tolerance", known["tolerance"]):
            cheap.pop("max_evaluations", None)  # which is too small for a better quality
        title = f"{label}-{number_name(sigma)}" if "sigma" in varied else label
        if "sparsity" in varied and len(self.sparsities) > 1:
            title += f"-{percent_name(sparsity)}zeros"
        return title, {"method": name, **own, **cheap, **varied}
