"""Numbers about maps: pure functions, one number for each sample, NaN where undefined.

A new metric is one function and one row here; the command line and the documentation's tables
read the rows.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from moreaugrad.names import choose, nearest

if TYPE_CHECKING:
    from moreaugrad.metrics.captum import Near, infidelity, max_sensitivity
    from moreaugrad.metrics.faithfulness import (
        aopc,
        area,
        deletion,
        deletion_curve,
        drop_curve,
        insertion,
        insertion_curve,
    )
    from moreaugrad.metrics.localisation import auroc, average_precision, pointing_game
    from moreaugrad.metrics.maps import Aggregate, aggregate
    from moreaugrad.metrics.overlap import dice, jaccard, top_k_intersection, top_k_ties
    from moreaugrad.metrics.perturbation import Perturbation
    from moreaugrad.metrics.sanity import Randomised, randomisation
    from moreaugrad.metrics.similarity import (
        cosine,
        mass_centre_shift,
        normalised_distance,
        pearson,
        spearman,
    )
    from moreaugrad.metrics.sparsity import entropy, gini, zeros
    from moreaugrad.metrics.structure import Window, ssim

KINDS: Mapping[str, str] = {
    "map": "(maps)",
    "pair": "(clean maps, other maps)",
    "mask": "(values, mask)",
    "model": "(bound score, maps, input space)",
    "explainer": "(explainer, explanation, input space)",
}
"""What a metric of a kind is called with; all give `[B]`."""

HIGH, LOW = "high", "low"


@dataclass(frozen=True)
class Metric:
    """A row of the registry: where the function is, and the settings that make this metric of it.

    kind: see `KINDS`. better: "high", "low", or "" where neither is.
    """

    function: str
    kind: str
    summary: str
    source: str
    better: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Callable[..., Any]:
        module, name = self.function.split(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found

    def defaults(self) -> dict[str, Any]:
        """Every setting with its default; those of a settings object by their own names."""
        found: dict[str, Any] = {}
        for name, default in _settings(self.load()).items():
            if dataclasses.is_dataclass(default) and not isinstance(default, type):
                found |= dataclasses.asdict(default)
            else:
                found[name] = default
        return found | dict(self.settings)


_HERE = "moreaugrad.metrics."
GHORBANI = "Ghorbani et al. (2019), arXiv 1710.10547"
MOREAUGRAD = "Zhang and Farnia (2023), arXiv 2302.05294"
YEH = "Yeh et al. (2019), arXiv 1901.09392"
SAMEK = "Samek et al. (2016), arXiv 1509.06321"
PETSIUK = "Petsiuk et al. (2018), arXiv 1806.07421"
SSIM = "Wang et al. (2004)"

METRICS: Mapping[str, Metric] = {
    "gini": Metric(
        _HERE + "sparsity:gini", "map",
        "concentration: 0 for a constant map, near 1 for a single entry",
        "Hurley and Rickard (2009)",
    ),
    "zeros": Metric(
        _HERE + "sparsity:zeros", "map", "share of entries that are exactly zero", "",
    ),
    "entropy": Metric(
        _HERE + "sparsity:entropy", "map", "entropy of the magnitudes' shares, in nats",
        "Bhatt et al. (2020), arXiv 2005.00631",
    ),
    "top-k-ties": Metric(
        _HERE + "overlap:top_k_ties", "map",
        "share of the top that order alone chose among equal entries", "", LOW,
    ),
    "normalised-distance": Metric(
        _HERE + "similarity:normalised_distance", "pair",
        "distance of the maps at unit length", MOREAUGRAD, LOW,
    ),
    "top-k": Metric(
        _HERE + "overlap:top_k_intersection", "pair",
        "share of the clean map's largest entries that stay among the largest", GHORBANI, HIGH,
    ),
    "dice": Metric(
        _HERE + "overlap:dice", "pair", "overlap of both maps' largest entries, each of its own "
        "number", "AdvGrad (2024)", HIGH,
    ),
    "jaccard": Metric(
        _HERE + "overlap:jaccard", "pair", "shared over all of both maps' largest entries",
        "Singla et al. (2019), arXiv 1902.00407", HIGH,
    ),
    "ssim": Metric(
        _HERE + "structure:ssim", "pair", "likeness of the maps as pictures", SSIM, HIGH,
    ),
    "ssim-masked": Metric(
        _HERE + "structure:ssim", "pair", "the same, where either map is not zero", SSIM, HIGH,
        {"masked": True},
    ),
    "ssim-raw": Metric(
        _HERE + "structure:ssim", "pair",
        "the same of maps as they are, as published: near 1 for any small maps", MOREAUGRAD, HIGH,
        {"displayed": False, "reduction": "none", "border": "zero"},
    ),
    "spearman": Metric(
        _HERE + "similarity:spearman", "pair", "correlation of the magnitudes' ranks",
        "Adebayo et al. (2018), arXiv 1810.03292", HIGH,
    ),
    "spearman-signed": Metric(
        _HERE + "similarity:spearman", "pair", "correlation of the signed entries' ranks",
        "Adebayo et al. (2018), arXiv 1810.03292", HIGH, {"signed": True},
    ),
    "pearson": Metric(
        _HERE + "similarity:pearson", "pair", "correlation of the magnitudes", "", HIGH,
    ),
    "cosine": Metric(
        _HERE + "similarity:cosine", "pair", "cosine of the magnitudes", "", HIGH,
    ),
    "mass-centre-shift": Metric(
        _HERE + "similarity:mass_centre_shift", "pair",
        "distance of the magnitudes' centres, in pixels", GHORBANI, LOW,
    ),
    "pointing-game": Metric(
        _HERE + "localisation:pointing_game", "mask", "whether the largest value lies in the mask",
        "Zhang et al. (2018)", HIGH,
    ),
    "auroc": Metric(
        _HERE + "localisation:auroc", "mask",
        "chance that a place within the mask exceeds one outside", "", HIGH,
    ),
    "average-precision": Metric(
        _HERE + "localisation:average_precision", "mask",
        "precision over the recall of the mask", "", HIGH,
    ),
    "aopc": Metric(
        _HERE + "faithfulness:aopc", "model",
        "mean fall of the score as the most relevant regions are replaced", SAMEK, HIGH,
    ),
    "aopc-lerf": Metric(
        _HERE + "faithfulness:aopc", "model",
        "mean fall as the least relevant regions are replaced", SAMEK, LOW, {"order": "lerf"},
    ),
    "abpc": Metric(
        _HERE + "faithfulness:aopc", "model", "the first minus the second", SAMEK, HIGH,
        {"order": "abpc"},
    ),
    "deletion": Metric(
        _HERE + "faithfulness:deletion", "model",
        "area under the score as the most relevant pixels are replaced", PETSIUK, LOW,
    ),
    "insertion": Metric(
        _HERE + "faithfulness:insertion", "model",
        "area under the score as the most relevant pixels are shown", PETSIUK, HIGH,
    ),
    "infidelity": Metric(
        _HERE + "captum:infidelity", "model",
        "squared error of the map as a linear model of the score's changes", YEH, LOW,
    ),
    "max-sensitivity": Metric(
        _HERE + "captum:max_sensitivity", "explainer",
        "largest relative change of the map in a small box around the input", YEH, LOW,
    ),
}  # fmt: skip


def build(name: str, **settings: Any) -> Callable[..., Any]:
    """The metric of that name with these settings. Errors: ValueError for an unknown name or
    setting."""
    metric = METRICS[choose("metric", name, METRICS)]
    known = metric.defaults()
    for setting in settings:
        if setting not in known:
            raise ValueError(
                f"{name} has no setting {setting!r}{nearest(setting, known)} "
                f"(it has: {', '.join(known) or 'none'})"
            )
    function, given = metric.load(), dict(metric.settings) | settings
    for parameter, default in _settings(function).items():
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            own = {item.name for item in dataclasses.fields(default)} & given.keys()
            if own:
                changed = {item: given.pop(item) for item in own}
                given[parameter] = dataclasses.replace(default, **changed)
    return partial(function, **given)


_PER_CALL = {"ids", "additional_forward_args"}
"""Of the samples, not settings."""


def _settings(function: Callable[..., Any]) -> dict[str, Any]:
    """Keyword-only arguments with their defaults."""
    return {
        item.name: item.default
        for item in inspect.signature(function).parameters.values()
        if item.kind is item.KEYWORD_ONLY and item.name not in _PER_CALL
    }


# Loaded when first used, so that the names above can be listed without torch.
_HOMES = {
    "captum": ("Near", "infidelity", "max_sensitivity"),
    "faithfulness": (
        "aopc", "area", "deletion", "deletion_curve", "drop_curve", "insertion", "insertion_curve",
    ),
    "localisation": ("auroc", "average_precision", "pointing_game"),
    "maps": ("Aggregate", "aggregate"),
    "overlap": ("dice", "jaccard", "top_k_intersection", "top_k_ties"),
    "perturbation": ("Perturbation",),
    "sanity": ("Randomised", "randomisation"),
    "similarity": (
        "cosine", "mass_centre_shift", "normalised_distance", "pearson", "spearman",
    ),
    "sparsity": ("entropy", "gini", "zeros"),
    "structure": ("Window", "ssim"),
}  # fmt: skip
_HOME = {name: _HERE + module for module, names in _HOMES.items() for name in names}

__all__ = [
    "METRICS", "Metric", "build",
    "Aggregate", "Near", "Perturbation", "Randomised", "Window", "aggregate", "aopc", "area",
    "auroc", "average_precision", "cosine", "deletion", "deletion_curve", "dice", "drop_curve",
    "entropy", "gini", "infidelity", "insertion", "insertion_curve", "jaccard",
    "mass_centre_shift", "max_sensitivity", "normalised_distance", "pearson", "pointing_game",
    "randomisation", "spearman", "ssim", "top_k_intersection", "top_k_ties", "zeros",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
