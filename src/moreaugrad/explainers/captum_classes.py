"""Which of Captum's classes are methods here, and the settings that each has."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from typing import Any, get_type_hints

from captum import attr
from torch import Tensor, nn

from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.captum import BASELINES, CAM_LAYER, FIXED, CaptumMethod

REFUSED = {
    "FeaturePermutation": "it exchanges values between the samples of a batch",
    "NoiseTunnel": "it wraps another method; use smoothgrad, or wrap an explainer yourself",
    "LimeBase": "it has no perturbations of its own; use captum:Lime",
    "LayerGradCam": "its maps have the layer's size; use grad-cam",
}
"""Classes whose maps would not be what a name promises, and why."""
RENAMED = {"layer": CAM_LAYER, "method": "quadrature"}
"""Captum's arguments whose names are settings of all methods here."""
HANDLED = {
    "self", "model", "forward_func", "inputs", "target", "additional_forward_args",
    "perturbations_per_eval", "internal_batch_size", "return_convergence_delta", "show_progress",
    "return_input_shape", "verbose", "device_ids", "grad_kwargs",
}  # fmt: skip
"""Captum's arguments that are no settings: they are filled in here, or change no map."""


@dataclass(frozen=True)
class _Setting:
    """own: Captum's name of the argument. default: None where one is required."""

    name: str
    own: str
    hint: Any
    default: Any
    required: bool


@cache
def adapted(wrapped: type[Any]) -> type[CaptumMethod]:
    """The method of one of Captum's classes, or of a user's class derived from its `Attribution`.

    Errors: ValueError for a class whose maps are not of the input.
    """
    own = wrapped.__name__
    captums = getattr(attr, own, None) is wrapped
    name = f"captum:{own}" if captums else f"{wrapped.__module__}:{own}"
    _check(wrapped, name)
    settings = {part: _settings(getattr(wrapped, part)) for part in ("__init__", "attribute")}
    every = [one for found in settings.values() for one in found]
    taken = {*inspect.get_annotations(Explainer), "seed"}
    for one in every:
        if one.name in taken:
            raise ValueError(f"{name}: its argument {one.own} has the name of another; rename it")
        taken.add(one.name)
    made = [(one.name, one.hint, field(default=one.default)) for one in every]
    if wrapped not in FIXED:
        made.append(("seed", int, field(default=0)))
    namespace = {
        "__doc__": f"A = the attribution of {name}, whose documentation explains its settings.",
        "__module__": __name__,
        "method": name,
        "wrapped": wrapped,
        "arguments": {k: {one.name: one.own for one in found} for k, found in settings.items()},
        "required": tuple(one.name for one in every if one.required),
    }
    return make_dataclass(
        own, made, bases=(CaptumMethod,), namespace=namespace, frozen=True, kw_only=True, eq=False,
        repr=False,
    )  # fmt: skip


def _settings(function: Any) -> list[_Setting]:
    """The arguments of one of Captum's functions that are settings here."""
    hints, found = _hints(function), []
    for one in inspect.signature(function).parameters.values():
        if one.name in HANDLED or one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
            continue
        name, hint, default = RENAMED.get(one.name, one.name), hints.get(one.name, Any), one.default
        required = default is one.empty
        if name == CAM_LAYER:
            hint = str | nn.Module
        if name == BASELINES and required:  # drawn from, as those of expected gradients
            default, hint, required = 0.0, float | Tensor | tuple | hint, False
        found.append(_Setting(name, one.name, hint, None if required else default, required))
    return found


def _hints(function: Any) -> Mapping[str, Any]:
    try:
        return get_type_hints(function)
    except NameError:  # a name that is imported for type checkers alone
        return {}


def _check(wrapped: type[Any], name: str) -> None:
    """Errors: ValueError for a class whose maps are not of the input, with what to use instead."""
    own = wrapped.__name__
    why = REFUSED.get(own, "") if wrapped.__module__.startswith("captum.") else ""
    if not why and issubclass(wrapped, (attr.LayerAttribution, attr.InternalInfluence)):
        base = own.removeprefix("Layer")
        known = base != own and hasattr(attr, base)
        use = f"; use captum:{base} with the setting layer=NAME" if known else ""
        why = f"its maps are a layer's{use}"
    if not why and issubclass(wrapped, attr.NeuronAttribution):
        why = "it explains a neuron: give a model whose output that is"
    call = getattr(wrapped, "attribute", None)
    if not why and (call is None or "inputs" not in inspect.signature(call).parameters):
        why = "it has no attribute(inputs, ...) of tensors"
    if why:
        raise ValueError(f"{name}: cannot be used as a method, because {why}")


def names() -> list[str]:
    """Captum's classes that can be named `captum:NAME`."""
    found = []
    for name, value in vars(attr).items():
        if isinstance(value, type) and issubclass(value, attr.Attribution):
            try:
                _check(value, name)
            except ValueError:
                continue
            found.append(name)
    return sorted(found)
