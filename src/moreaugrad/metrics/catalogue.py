"""Metrics by name. A new one is one function and one row here."""

from __future__ import annotations

import dataclasses
import inspect
import re
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

    >>> found = mg.metrics.METRICS["gini"].better

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


GHORBANI = "Ghorbani et al. (2019), arXiv 1710.10547"
MOREAUGRAD = "Zhang and Farnia (2023), arXiv 2302.05294"
YEH = "Yeh et al. (2019), arXiv 1901.09392"
SAMEK = "Samek et al. (2016), arXiv 1509.06321"
PETSIUK = "Petsiuk et al. (2018), arXiv 1806.07421"
JIN = "Jin et al. (2025), arXiv 2504.13787"
TJOA = "Tjoa and Guan (2020)"
ADVGRAD = "AdvGrad (2024)"
SSIM = "Wang et al. (2004)"


def _row(
    part: str,
    summary: str,
    source: str = "",
    settings: Mapping[str, Any] | None = None,
    *,
    kind: str,
    better: str = "",
    reduction: str = "abs-sum",
) -> Metric:
    return Metric(f"moreaugrad.metrics.{part}", summary, source, settings or {},
                  kind=kind, better=better, reduction=reduction)  # fmt: skip


_map = partial(_row, kind="map")
_pair, _mask, _truth, _model = (
    partial(_row, kind=kind, better=HIGH) for kind in ("pair", "mask", "truth", "model")
)

METRICS = Registry("metric", {
    "gini": _map("sparsity:gini", "concentration: 0 for a constant map, near 1 for a single entry",
        "Hurley and Rickard (2009)"),
    "zeros": _map("sparsity:zeros", "fraction of entries that are exactly zero"),
    "entropy": _map("sparsity:entropy", "entropy of the normalised magnitudes, in nats",
        "Bhatt et al. (2020), arXiv 2005.00631"),
    "top-k-ties": _map("sparsity:top_k_ties",
        "fraction of the largest entries chosen by order alone among equal ones", better=LOW),
    "normalised-distance": _pair("similarity:normalised_distance",
        "distance of the maps at unit length", MOREAUGRAD, better=LOW),
    "top-k": _pair("sparsity:top_k_intersection",
        "fraction of the clean map's largest entries that stay among the largest", GHORBANI),
    "dice": _pair("sparsity:dice", "overlap of both maps' largest entries, each of its own number",
        ADVGRAD),
    "jaccard": _pair("sparsity:jaccard", "common largest entries of both maps over all of them",
        "Singla et al. (2019), arXiv 1902.00407"),
    "ssim": _pair("similarity:ssim", "SSIM, the similarity of the maps as images", SSIM),
    "ssim-masked": _pair("similarity:ssim", "SSIM where either map is not zero", SSIM,
        {"masked": True}),
    "ssim-raw": _pair("similarity:ssim",
        "SSIM of raw maps, as published: near 1 for any small maps", MOREAUGRAD,
        {"displayed": False, "reduction": "none", "border": "zero"}),
    "spearman": _pair("similarity:spearman", "correlation of the magnitudes' ranks",
        "Adebayo et al. (2018), arXiv 1810.03292"),
    "spearman-signed": _pair("similarity:spearman", "correlation of the signed entries' ranks",
        "Adebayo et al. (2018), arXiv 1810.03292", {"signed": True}),
    "pearson": _pair("similarity:pearson", "correlation of the magnitudes"),
    "cosine": _pair("similarity:cosine", "cosine of the magnitudes"),
    "mass-centre-shift": _pair("similarity:mass_centre_shift",
        "distance of the magnitudes' centres, in pixels", GHORBANI, better=LOW),
    "pointing-game": _mask("localisation:pointing_game",
        "whether the largest value lies in the mask", "Zhang et al. (2018)"),
    "auroc": _mask("localisation:auroc",
        "probability that a place in the mask exceeds one outside"),
    "average-precision": _mask("localisation:average_precision",
        "precision over the recall of the mask"),
    "five-band-accuracy": _truth("localisation:five_band", "fraction of places in the right band",
        TJOA, {"measure": "accuracy"}, reduction="sum"),
    "five-band-recall": _truth("localisation:five_band",
        "fraction of object and feature found in their bands", TJOA, {"measure": "recall"},
        reduction="sum"),
    "five-band-precision": _truth("localisation:five_band",
        "fraction of places outside band 0 that are in the right band", TJOA,
        {"measure": "precision"}, reduction="sum"),
    "five-band-false-positive-rate": _truth("localisation:five_band",
        "places in wrong bands over these and the rejected background", TJOA,
        {"measure": "false-positive-rate"}, better=LOW, reduction="sum"),
    "binary-accuracy": _truth("localisation:binary",
        "fraction of places correctly classified as feature or not", ADVGRAD,
        {"measure": "accuracy"}),
    "binary-recall": _truth("localisation:binary",
        "fraction of the feature's places that are found", ADVGRAD, {"measure": "recall"}),
    "binary-precision": _truth("localisation:binary",
        "fraction of the places found that are the feature's", ADVGRAD, {"measure": "precision"}),
    "binary-false-positive-rate": _truth("localisation:binary",
        "fraction of the other places that are found", ADVGRAD, {"measure": "false-positive-rate"},
        better=LOW),
    "gaze-overlap": _truth("localisation:gaze_overlap",
        "fraction of the map's largest entries among the largest of a gaze map", ADVGRAD),
    "aopc": _model("faithfulness:aopc",
        "mean decrease of the score as the most relevant regions are replaced", SAMEK),
    "aopc-lerf": _model("faithfulness:aopc",
        "mean decrease as the least relevant regions are replaced", SAMEK, {"order": "lerf"},
        better=LOW),
    "abpc": _model("faithfulness:aopc",
        "AOPC of the most relevant regions minus that of the least relevant", SAMEK,
        {"order": "abpc"}),
    "deletion": _model("faithfulness:deletion",
        "area under the score as the most relevant pixels are replaced", PETSIUK, better=LOW),
    "insertion": _model("faithfulness:insertion",
        "area under the score as the most relevant pixels are shown", PETSIUK),
    "soft-stability": _row("stability:soft_stability",
        "fraction of larger sets of regions with the prediction of the most relevant ones", JIN,
        kind="model"),
    "infidelity": _model("captum:infidelity",
        "squared error of the map as a linear model of the score's changes", YEH, better=LOW),
    "max-sensitivity": _row("captum:max_sensitivity",
        "largest relative change of the map in a small box around the input", YEH,
        kind="explainer", better=LOW),
}, group="moreaugrad.metrics")  # fmt: skip
"""All metrics by name; `METRICS[name].load()` is the function."""
PROPER = ("AOPC", "ABPC", "AUROC", "Dice", "Gini", "Jaccard", "LeRF", "Pearson", "SSIM", "Spearman")
"""Words of metrics' names that are not lower-case."""


def heading(label: str) -> str:
    """What people read of a metric: `average precision`, `AUROC`; a label that a user chose is left
    as it is."""
    if label not in METRICS:
        return label
    proper = {name.lower(): name for name in PROPER}
    words = re.split("(?<!top)(?<!five)(?<!false)-", label)
    return " ".join(proper.get(word, word) for word in words)


def build(name: str, **settings: Any) -> Callable[..., Any]:
    """The metric of that name, or of your own `package.module:function`, with these settings.

    >>> gini = mg.metrics.build("gini", reduction="abs-sum")
    >>> values = gini(maps)

    Errors: ValueError for an unknown name or setting, and a value of another type.
    """
    found: Callable[..., Any] = METRICS.build(name, **settings)
    return found
