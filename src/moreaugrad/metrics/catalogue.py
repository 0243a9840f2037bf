"""Metrics by name. A new one is one function and one row here."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Self, get_type_hints

from moreaugrad.registry import Registry, Row

KINDS: Mapping[str, str] = {
    "map": "(maps)",
    "pair": "(clean maps, other maps)",
    "mask": "(values, mask)",
    "truth": "(values, truth)",
    "model": "(bound score, maps, input space)",
    "explainer": "(explainer, explanation, input space)",
}
"""The arguments of the metrics of each kind; all return `[B]`."""

HIGH, LOW = "high", "low"
_PER_CALL = {"ids", "additional_forward_args"}
"""Arguments that belong to the samples, not settings."""


@dataclasses.dataclass(frozen=True)
class Metric(Row):
    """A row of the registry.

    kind: see `KINDS`. better: "high", "low", or "" where neither is better. reduction: of a map's
    channels, to the values that "mask" and "truth" metrics are called with.
    """

    kind: str = "map"
    better: str = ""
    reduction: str = "abs-sum"

    columns: ClassVar[tuple[str, ...]] = ("kind", "better", "reduction")

    @classmethod
    def of(cls, name: str, part: Any) -> Self:
        """The row of your own function. Its kind follows from the names of its first two arguments,
        see `KINDS`; any other two are a pair."""
        arguments = inspect.signature(part).parameters.values()
        first, second, *_ = [*(a.name for a in arguments if a.kind is not a.KEYWORD_ONLY), "", ""]
        kind = {"mask": "mask", "truth": "truth", "": "map"}.get(second, "pair")
        kind = {"bound": "model", "explainer": "explainer"}.get(first, kind)
        return dataclasses.replace(super().of(name, part), kind=kind)

    def defaults(self) -> dict[str, Any]:
        """Every setting with its default; the fields of a settings object by their own names."""
        found: dict[str, Any] = {}
        for name, default in super().defaults().items():
            if _is_object(default):
                found |= dataclasses.asdict(default)
            elif name not in _PER_CALL:
                found[name] = default
        return found | dict(self.settings)

    def hints(self) -> Mapping[str, Any]:
        objects = [type(value) for value in super().defaults().values() if _is_object(value)]
        return {k: v for owner in (self.load(), *objects) for k, v in get_type_hints(owner).items()}

    def make(self, *given: Any, **settings: Any) -> Callable[..., Any]:
        """The function with these settings."""
        for name, default in super().defaults().items():
            if _is_object(default):
                own = {item.name for item in dataclasses.fields(default)} & settings.keys()
                changed = {item: settings.pop(item) for item in own}
                if changed:
                    settings[name] = dataclasses.replace(default, **changed)
        return partial(self.load(), **settings)


def _is_object(default: Any) -> bool:
    return dataclasses.is_dataclass(default) and not isinstance(default, type)


HERE = "moreaugrad.metrics."
GHORBANI = "Ghorbani et al. (2019), arXiv 1710.10547"
MOREAUGRAD = "Zhang and Farnia (2023), arXiv 2302.05294"
YEH = "Yeh et al. (2019), arXiv 1901.09392"
SAMEK = "Samek et al. (2016), arXiv 1509.06321"
PETSIUK = "Petsiuk et al. (2018), arXiv 1806.07421"
TJOA = "Tjoa and Guan (2020)"
ADVGRAD = "AdvGrad (2024)"
SSIM = "Wang et al. (2004)"

_BANDS, _BINARY = HERE + "localisation:five_band", HERE + "localisation:binary"

METRICS = Registry(
    "metric",
    {
        "gini": Metric(
            HERE + "sparsity:gini",
            "concentration: 0 for a constant map, near 1 for a single entry",
            "Hurley and Rickard (2009)", kind="map",
        ),
        "zeros": Metric(
            HERE + "sparsity:zeros", "fraction of entries that are exactly zero", kind="map",
        ),
        "entropy": Metric(
            HERE + "sparsity:entropy", "entropy of the normalised magnitudes, in nats",
            "Bhatt et al. (2020), arXiv 2005.00631", kind="map",
        ),
        "top-k-ties": Metric(
            HERE + "sparsity:top_k_ties",
            "fraction of the largest entries chosen by order alone among equal ones",
            kind="map", better=LOW,
        ),
        "normalised-distance": Metric(
            HERE + "similarity:normalised_distance", "distance of the maps at unit length",
            MOREAUGRAD, kind="pair", better=LOW,
        ),
        "top-k": Metric(
            HERE + "sparsity:top_k_intersection",
            "fraction of the clean map's largest entries that stay among the largest", GHORBANI,
            kind="pair", better=HIGH,
        ),
        "dice": Metric(
            HERE + "sparsity:dice", "overlap of both maps' largest entries, each of its own number",
            ADVGRAD, kind="pair", better=HIGH,
        ),
        "jaccard": Metric(
            HERE + "sparsity:jaccard", "common largest entries of both maps over all of them",
            "Singla et al. (2019), arXiv 1902.00407", kind="pair", better=HIGH,
        ),
        "ssim": Metric(
            HERE + "similarity:ssim", "SSIM, the similarity of the maps as images", SSIM,
            kind="pair", better=HIGH,
        ),
        "ssim-masked": Metric(
            HERE + "similarity:ssim", "SSIM where either map is not zero", SSIM,
            {"masked": True}, kind="pair", better=HIGH,
        ),
        "ssim-raw": Metric(
            HERE + "similarity:ssim",
            "SSIM of raw maps, as published: near 1 for any small maps", MOREAUGRAD,
            {"displayed": False, "reduction": "none", "border": "zero"}, kind="pair", better=HIGH,
        ),
        "spearman": Metric(
            HERE + "similarity:spearman", "correlation of the magnitudes' ranks",
            "Adebayo et al. (2018), arXiv 1810.03292", kind="pair", better=HIGH,
        ),
        "spearman-signed": Metric(
            HERE + "similarity:spearman", "correlation of the signed entries' ranks",
            "Adebayo et al. (2018), arXiv 1810.03292", {"signed": True}, kind="pair", better=HIGH,
        ),
        "pearson": Metric(
            HERE + "similarity:pearson", "correlation of the magnitudes", kind="pair", better=HIGH,
        ),
        "cosine": Metric(
            HERE + "similarity:cosine", "cosine of the magnitudes", kind="pair", better=HIGH,
        ),
        "mass-centre-shift": Metric(
            HERE + "similarity:mass_centre_shift",
            "distance of the magnitudes' centres, in pixels", GHORBANI, kind="pair", better=LOW,
        ),
        "pointing-game": Metric(
            HERE + "localisation:pointing_game", "whether the largest value lies in the mask",
            "Zhang et al. (2018)", kind="mask", better=HIGH,
        ),
        "auroc": Metric(
            HERE + "localisation:auroc", "probability that a place in the mask exceeds one outside",
            kind="mask", better=HIGH,
        ),
        "average-precision": Metric(
            HERE + "localisation:average_precision", "precision over the recall of the mask",
            kind="mask", better=HIGH,
        ),
        "five-band-accuracy": Metric(
            _BANDS, "fraction of places in the right band", TJOA,
            {"measure": "accuracy"}, kind="truth", better=HIGH, reduction="sum",
        ),
        "five-band-recall": Metric(
            _BANDS, "fraction of object and feature found in their bands", TJOA,
            {"measure": "recall"}, kind="truth", better=HIGH, reduction="sum",
        ),
        "five-band-precision": Metric(
            _BANDS, "fraction of places outside band 0 that are in the right band",
            TJOA, {"measure": "precision"}, kind="truth", better=HIGH, reduction="sum",
        ),
        "five-band-false-positive-rate": Metric(
            _BANDS, "places in wrong bands over these and the rejected background", TJOA,
            {"measure": "false-positive-rate"}, kind="truth", better=LOW, reduction="sum",
        ),
        "binary-accuracy": Metric(
            _BINARY, "fraction of places correctly classified as feature or not",
            ADVGRAD, {"measure": "accuracy"}, kind="truth", better=HIGH,
        ),
        "binary-recall": Metric(
            _BINARY, "fraction of the feature's places that are found", ADVGRAD,
            {"measure": "recall"}, kind="truth", better=HIGH,
        ),
        "binary-precision": Metric(
            _BINARY, "fraction of the places found that are the feature's", ADVGRAD,
            {"measure": "precision"}, kind="truth", better=HIGH,
        ),
        "binary-false-positive-rate": Metric(
            _BINARY, "fraction of the other places that are found", ADVGRAD,
            {"measure": "false-positive-rate"}, kind="truth", better=LOW,
        ),
        "gaze-overlap": Metric(
            HERE + "localisation:gaze_overlap",
            "fraction of the map's largest entries among the largest of a gaze map", ADVGRAD,
            kind="truth", better=HIGH,
        ),
        "aopc": Metric(
            HERE + "faithfulness:aopc",
            "mean decrease of the score as the most relevant regions are replaced", SAMEK,
            kind="model", better=HIGH,
        ),
        "aopc-lerf": Metric(
            HERE + "faithfulness:aopc", "mean decrease as the least relevant regions are replaced",
            SAMEK, {"order": "lerf"}, kind="model", better=LOW,
        ),
        "abpc": Metric(
            HERE + "faithfulness:aopc",
            "AOPC of the most relevant regions minus that of the least relevant", SAMEK,
            {"order": "abpc"}, kind="model", better=HIGH,
        ),
        "deletion": Metric(
            HERE + "faithfulness:deletion",
            "area under the score as the most relevant pixels are replaced", PETSIUK, kind="model",
            better=LOW,
        ),
        "insertion": Metric(
            HERE + "faithfulness:insertion",
            "area under the score as the most relevant pixels are shown", PETSIUK, kind="model",
            better=HIGH,
        ),
        "infidelity": Metric(
            HERE + "captum:infidelity",
            "squared error of the map as a linear model of the score's changes", YEH, kind="model",
            better=LOW,
        ),
        "max-sensitivity": Metric(
            HERE + "captum:max_sensitivity",
            "largest relative change of the map in a small box around the input", YEH,
            kind="explainer", better=LOW,
        ),
    },
)  # fmt: skip
"""All metrics by name; `METRICS[name].load()` is the function."""


def build(name: str, **settings: Any) -> Callable[..., Any]:
    """The metric of that name, or of your own `package.module:function`, with these settings.

    >>> gini = mg.metrics.build("gini", reduction="abs-sum")
    >>> values = gini(maps)

    Errors: ValueError for an unknown name or setting, and a value of another type.
    """
    found: Callable[..., Any] = METRICS.build(name, **settings)
    return found
