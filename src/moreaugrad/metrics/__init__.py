"""Numbers about maps: pure functions, one number for each sample, NaN where undefined.

A new metric is one function and one row of the table in `moreaugrad.metrics.rows`; the command
line and the documentation's tables read the rows.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, get_type_hints

from moreaugrad.metrics.rows import HERE, HIGH, KINDS, LOW, METRICS, Metric, settings_of
from moreaugrad.registry import check_settings, choose

if TYPE_CHECKING:
    from moreaugrad.metrics.bands import (
        Confusion,
        binary,
        binary_confusion,
        five_band,
        five_band_confusion,
        five_band_sweep,
    )
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
    from moreaugrad.metrics.localisation import (
        auroc,
        average_precision,
        gaze_overlap,
        pointing_game,
    )
    from moreaugrad.metrics.maps import Aggregate, aggregate
    from moreaugrad.metrics.overlap import dice, jaccard, top_k_intersection, top_k_ties
    from moreaugrad.metrics.perturbation import Perturbation
    from moreaugrad.metrics.roar import DiffRoar, diffroar, importance_ranks, keep
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


def build(name: str, **settings: Any) -> Callable[..., Any]:
    """The metric of that name with these settings. Errors: ValueError for an unknown name or
    setting, and a value of another type."""
    metric = METRICS[choose("metric", name, METRICS)]
    function, given = metric.load(), dict(metric.settings) | settings
    hints = get_type_hints(function)
    for default in settings_of(function).values():
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            hints |= get_type_hints(type(default))
    check_settings(name, list(metric.defaults()), hints, settings)
    for parameter, default in settings_of(function).items():
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            own = {item.name for item in dataclasses.fields(default)} & given.keys()
            if own:
                changed = {item: given.pop(item) for item in own}
                given[parameter] = dataclasses.replace(default, **changed)
    return partial(function, **given)


# Loaded when first used, so that the names above can be listed without torch.
_HOMES = {
    "bands": (
        "Confusion", "binary", "binary_confusion", "five_band", "five_band_confusion",
        "five_band_sweep",
    ),
    "captum": ("Near", "infidelity", "max_sensitivity"),
    "faithfulness": (
        "aopc", "area", "deletion", "deletion_curve", "drop_curve", "insertion", "insertion_curve",
    ),
    "localisation": ("auroc", "average_precision", "gaze_overlap", "pointing_game"),
    "maps": ("Aggregate", "aggregate"),
    "overlap": ("dice", "jaccard", "top_k_intersection", "top_k_ties"),
    "perturbation": ("Perturbation",),
    "roar": ("DiffRoar", "diffroar", "importance_ranks", "keep"),
    "sanity": ("Randomised", "randomisation"),
    "similarity": (
        "cosine", "mass_centre_shift", "normalised_distance", "pearson", "spearman",
    ),
    "sparsity": ("entropy", "gini", "zeros"),
    "structure": ("Window", "ssim"),
}  # fmt: skip
_HOME = {name: HERE + module for module, names in _HOMES.items() for name in names}

__all__ = [
    "HIGH", "KINDS", "LOW", "METRICS", "Metric", "build",
    "Aggregate", "Confusion", "DiffRoar", "Near", "Perturbation", "Randomised", "Window",
    "aggregate", "aopc", "area", "auroc", "average_precision", "binary", "binary_confusion",
    "cosine", "deletion", "deletion_curve", "dice", "diffroar", "drop_curve", "entropy",
    "five_band", "five_band_confusion", "five_band_sweep", "gaze_overlap", "gini",
    "importance_ranks", "infidelity", "insertion", "insertion_curve", "jaccard", "keep",
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
