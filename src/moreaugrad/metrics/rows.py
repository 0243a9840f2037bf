"""The table of metrics: where each is, what it is called with, and what it says."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS: Mapping[str, str] = {
    "map": "(maps)",
    "pair": "(clean maps, other maps)",
    "mask": "(values, mask)",
    "truth": "(values, truth)",
    "model": "(bound score, maps, input space)",
    "explainer": "(explainer, explanation, input space)",
}
"""What a metric of a kind is called with; all give `[B]`."""

HIGH, LOW = "high", "low"


@dataclass(frozen=True)
class Metric:
    """A row of the registry: where the function is, and the settings that make this metric of it.

    kind: see `KINDS`. better: "high", "low", or "" where neither is. reduction: how a map's
    channels become the values that "mask" and "truth" metrics are called with.
    """

    function: str
    kind: str
    summary: str
    source: str
    better: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    reduction: str = "abs-sum"

    def load(self) -> Callable[..., Any]:
        module, name = self.function.split(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found

    def defaults(self) -> dict[str, Any]:
        """Every setting with its default; those of a settings object by their own names."""
        found: dict[str, Any] = {}
        for name, default in settings_of(self.load()).items():
            if dataclasses.is_dataclass(default) and not isinstance(default, type):
                found |= dataclasses.asdict(default)
            else:
                found[name] = default
        return found | dict(self.settings)


HERE = "moreaugrad.metrics."
GHORBANI = "Ghorbani et al. (2019), arXiv 1710.10547"
MOREAUGRAD = "Zhang and Farnia (2023), arXiv 2302.05294"
YEH = "Yeh et al. (2019), arXiv 1901.09392"
SAMEK = "Samek et al. (2016), arXiv 1509.06321"
PETSIUK = "Petsiuk et al. (2018), arXiv 1806.07421"
TJOA = "Tjoa and Guan (2020)"
ADVGRAD = "AdvGrad (2024)"
SSIM = "Wang et al. (2004)"

METRICS: Mapping[str, Metric] = {
    "gini": Metric(
        HERE + "sparsity:gini", "map",
        "concentration: 0 for a constant map, near 1 for a single entry",
        "Hurley and Rickard (2009)",
    ),
    "zeros": Metric(
        HERE + "sparsity:zeros", "map", "share of entries that are exactly zero", "",
    ),
    "entropy": Metric(
        HERE + "sparsity:entropy", "map", "entropy of the magnitudes' shares, in nats",
        "Bhatt et al. (2020), arXiv 2005.00631",
    ),
    "top-k-ties": Metric(
        HERE + "overlap:top_k_ties", "map",
        "share of the top that order alone chose among equal entries", "", LOW,
    ),
    "normalised-distance": Metric(
        HERE + "similarity:normalised_distance", "pair",
        "distance of the maps at unit length", MOREAUGRAD, LOW,
    ),
    "top-k": Metric(
        HERE + "overlap:top_k_intersection", "pair",
        "share of the clean map's largest entries that stay among the largest", GHORBANI, HIGH,
    ),
    "dice": Metric(
        HERE + "overlap:dice", "pair", "overlap of both maps' largest entries, each of its own "
        "number", ADVGRAD, HIGH,
    ),
    "jaccard": Metric(
        HERE + "overlap:jaccard", "pair", "shared over all of both maps' largest entries",
        "Singla et al. (2019), arXiv 1902.00407", HIGH,
    ),
    "ssim": Metric(
        HERE + "structure:ssim", "pair", "likeness of the maps as pictures", SSIM, HIGH,
    ),
    "ssim-masked": Metric(
        HERE + "structure:ssim", "pair", "the same, where either map is not zero", SSIM, HIGH,
        {"masked": True},
    ),
    "ssim-raw": Metric(
        HERE + "structure:ssim", "pair",
        "the same of maps as they are, as published: near 1 for any small maps", MOREAUGRAD, HIGH,
        {"displayed": False, "reduction": "none", "border": "zero"},
    ),
    "spearman": Metric(
        HERE + "similarity:spearman", "pair", "correlation of the magnitudes' ranks",
        "Adebayo et al. (2018), arXiv 1810.03292", HIGH,
    ),
    "spearman-signed": Metric(
        HERE + "similarity:spearman", "pair", "correlation of the signed entries' ranks",
        "Adebayo et al. (2018), arXiv 1810.03292", HIGH, {"signed": True},
    ),
    "pearson": Metric(
        HERE + "similarity:pearson", "pair", "correlation of the magnitudes", "", HIGH,
    ),
    "cosine": Metric(
        HERE + "similarity:cosine", "pair", "cosine of the magnitudes", "", HIGH,
    ),
    "mass-centre-shift": Metric(
        HERE + "similarity:mass_centre_shift", "pair",
        "distance of the magnitudes' centres, in pixels", GHORBANI, LOW,
    ),
    "pointing-game": Metric(
        HERE + "localisation:pointing_game", "mask", "whether the largest value lies in the mask",
        "Zhang et al. (2018)", HIGH,
    ),
    "auroc": Metric(
        HERE + "localisation:auroc", "mask",
        "chance that a place within the mask exceeds one outside", "", HIGH,
    ),
    "average-precision": Metric(
        HERE + "localisation:average_precision", "mask",
        "precision over the recall of the mask", "", HIGH,
    ),
    "five-band-accuracy": Metric(
        HERE + "bands:five_band", "truth", "share of places in the right band",
        TJOA, HIGH, {"measure": "accuracy"}, "sum",
    ),
    "five-band-recall": Metric(
        HERE + "bands:five_band", "truth", "share of object and feature found in their bands",
        TJOA, HIGH, {"measure": "recall"}, "sum",
    ),
    "five-band-precision": Metric(
        HERE + "bands:five_band", "truth", "share of what is outside band 0 that is in its band",
        TJOA, HIGH, {"measure": "precision"}, "sum",
    ),
    "five-band-false-positive-rate": Metric(
        HERE + "bands:five_band", "truth", "wrong bands over these and the background left out",
        TJOA, LOW, {"measure": "false-positive-rate"}, "sum",
    ),
    "binary-accuracy": Metric(
        HERE + "bands:binary", "truth", "share of places rightly told to be of the feature or not",
        ADVGRAD, HIGH, {"measure": "accuracy"},
    ),
    "binary-recall": Metric(
        HERE + "bands:binary", "truth", "share of the feature's places that are found",
        ADVGRAD, HIGH, {"measure": "recall"},
    ),
    "binary-precision": Metric(
        HERE + "bands:binary", "truth", "share of the places found that are the feature's",
        ADVGRAD, HIGH, {"measure": "precision"},
    ),
    "binary-false-positive-rate": Metric(
        HERE + "bands:binary", "truth", "share of the other places that are found",
        ADVGRAD, LOW, {"measure": "false-positive-rate"},
    ),
    "gaze-overlap": Metric(
        HERE + "localisation:gaze_overlap", "truth",
        "share of the map's top that is in the top of where people looked", ADVGRAD, HIGH,
    ),
    "aopc": Metric(
        HERE + "faithfulness:aopc", "model",
        "mean fall of the score as the most relevant regions are replaced", SAMEK, HIGH,
    ),
    "aopc-lerf": Metric(
        HERE + "faithfulness:aopc", "model",
        "mean fall as the least relevant regions are replaced", SAMEK, LOW, {"order": "lerf"},
    ),
    "abpc": Metric(
        HERE + "faithfulness:aopc", "model", "the first minus the second", SAMEK, HIGH,
        {"order": "abpc"},
    ),
    "deletion": Metric(
        HERE + "faithfulness:deletion", "model",
        "area under the score as the most relevant pixels are replaced", PETSIUK, LOW,
    ),
    "insertion": Metric(
        HERE + "faithfulness:insertion", "model",
        "area under the score as the most relevant pixels are shown", PETSIUK, HIGH,
    ),
    "infidelity": Metric(
        HERE + "captum:infidelity", "model",
        "squared error of the map as a linear model of the score's changes", YEH, LOW,
    ),
    "max-sensitivity": Metric(
        HERE + "captum:max_sensitivity", "explainer",
        "largest relative change of the map in a small box around the input", YEH, LOW,
    ),
}  # fmt: skip


_PER_CALL = {"ids", "additional_forward_args"}
"""Of the samples, not settings."""


def settings_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Keyword-only arguments with their defaults."""
    return {
        item.name: item.default
        for item in inspect.signature(function).parameters.values()
        if item.kind is item.KEYWORD_ONLY and item.name not in _PER_CALL
    }
