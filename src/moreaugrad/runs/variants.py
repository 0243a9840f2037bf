"""The maps a job makes of each input: one a method, and one a value of the sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from moreaugrad.explainers import METHODS, build
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.files.names import number_name
from moreaugrad.models import LoadedModel, Preprocess
from moreaugrad.runs.job import SweepPlan

USUAL = {"rho": (0.0, 0.1, 0.3, 1.0, 3.0), "sigma": (0.0, 0.05, 0.1, 0.2, 0.3)}
"""Values of a sweep that names none."""

AROUND = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0)
"""For eta: times the one that makes nine tenths of the first input's map zero."""

VANISHING = 1e-8
"""rho of the limit rho -> 0: the displacement rho |grad f| is then lost in the input's rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """key: the stem of its files. method: its label, and name: of the registry, where that is
    another. value: of the swept setting; None for a plain method."""

    key: str
    method: str
    explainer: Explainer
    value: float | None = None
    name: str = ""


def variants(
    methods: Mapping[str, Mapping[str, Any]], model: LoadedModel, prefix: str = ""
) -> list[Variant]:
    """One a method; `prefix` goes before its key.

    Errors: ValueError for settings that a method does not have or take.
    """
    found = []
    for label, settings in methods.items():
        own = {key: value for key, value in settings.items() if key != "method"}
        name = str(settings.get("method", label))
        explainer = built(name, model.module, told_std(name, own, model.preprocess))
        found.append(Variant(key=prefix + label, method=label, explainer=explainer, name=name))
    return found


def told_std(name: str, settings: Mapping[str, Any], preprocess: Preprocess) -> Mapping[str, Any]:
    """The settings of a method, with what the preprocessing divides by where it asks for that."""
    asks = "std" in METHODS[name].defaults() and "layer" not in settings
    return {"std": list(preprocess.std), **settings} if asks else settings


def with_values(
    sweep: SweepPlan, model: LoadedModel, first: Tensor, target: int | None
) -> SweepPlan:
    """The sweep with values, where none were named, and with what the preprocessing divides by,
    where the method asks for that. Errors: ValueError where it needs values."""
    module = model.module
    if sweep.over != "std":
        sweep = replace(sweep, settings=told_std(sweep.method, sweep.settings, model.preprocess))
    if sweep.values:
        return sweep
    if sweep.over in USUAL:
        return replace(sweep, values=USUAL[sweep.over])
    if sweep.over == "eta" and "sparsity" in METHODS[sweep.method].defaults():
        settings = {**sweep.settings, "eta": "auto", "sparsity": 0.9}
        eta = float(built(sweep.method, module, settings).explain(first, target).eta[0])
        return replace(sweep, values=tuple(float(f"{eta * times:.2g}") for times in AROUND))
    raise ValueError(
        f"values: expected numbers for the sweep over {sweep.over}, such as 1,2,4; got none"
    )


def swept(sweep: SweepPlan, module: nn.Module) -> list[Variant]:
    """One a value."""
    found = []
    for value in sweep.values:
        settings = dict(sweep.settings) | {sweep.over: _typed(sweep, value)}
        if sweep.over == "rho" and value == 0 and _has_envelope(sweep.method):
            settings["rho"] = VANISHING
        explainer = built(sweep.method, module, settings)
        key = f"{sweep.method.rpartition(':')[2]}.{sweep.over}={number_name(value)}"
        found.append(Variant(key=key, method=sweep.method, explainer=explainer, value=value))
    return found


def limit(sweep: SweepPlan) -> str:
    """What the sweep shows at the value 0, in words."""
    settings = {**METHODS[sweep.method].defaults(), **sweep.settings}
    if sweep.over == "sigma":
        return "without Gaussian smoothing"
    if sweep.over == "eta":
        return "MoreauGrad without a penalty"
    if sweep.over == "rho" and _has_envelope(sweep.method):
        gradient = "SmoothGrad" if settings["sigma"] > 0 else "simple gradient"
        return f"{gradient}, thresholded" if "eta" in settings else gradient
    return ""


def _has_envelope(method: str) -> bool:
    return issubclass(METHODS[method].load(), Moreau)


def _typed(sweep: SweepPlan, value: float) -> Any:
    """Whole numbers for settings that count."""
    default = METHODS[sweep.method].defaults()[sweep.over]
    counts = isinstance(default, int) and not isinstance(default, bool)
    return int(value) if counts and value == int(value) else value


def built(name: str, module: nn.Module, settings: Mapping[str, Any]) -> Explainer:
    """The explainer; a setting of a wrong type is told like a wrong value."""
    for setting, value in METHODS[name].settings.items():
        if settings.get(setting, value) != value:
            raise ValueError(
                f"{name}: expected {setting} = {value}, which makes it what it is; got "
                f"{settings[setting]!r}: choose another method"
            )
    try:
        return build(name, module, **settings)
    except TypeError as error:
        raise ValueError(f"{name}: a setting has a wrong type ({error})") from error
