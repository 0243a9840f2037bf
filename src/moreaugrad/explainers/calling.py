"""Captum's other arguments, of `attribute` and of a method, and what stands for them here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from moreaugrad.registry import nearest

SETTINGS = {
    "n_steps": "steps",
    "method": "quadrature",
    "internal_batch_size": "batch_size",
    "perturbations_per_eval": "batch_size",
    "nt_samples_batch_size": "batch_size",
    "nt_samples": "samples",
    "n_samples": "samples",
    "stdevs": "sigma",
    "relu_attributions": "relu",
    "multiply_by_inputs": "times_input",
}
"""Of an explainer, by the argument of Captum's that they stand for."""

ADVICE = {
    "abs": "maps are signed, take .abs() of the result",
    "baselines": "of the methods here IntegratedGradients and DeepLift have a baseline",
    "return_convergence_delta": "explain(...).error says how far a map is from completeness",
    "nt_type": "each is a method of its own: SmoothGrad for 'smoothgrad'",
    "draw_baseline_from_distrib": "give baselines=, one for each sample",
    "attribute_to_layer_input": "name the layer whose output is meant",
    "attr_dim_summation": "the map is always the sum over channels",
    "interpolate_mode": "maps are enlarged linearly",
    "feature_mask": "groups of entries are those of GroupSparseMoreauGrad(model, index=...)",
    "custom_attribution_func": "times_input=False gives the multipliers that it would take",
    "eps": "a change of an activation below 1e-10 counts as none",
    "grad_kwargs": "a layer that the score does not depend on is refused",
    "show_progress": "explain(..., progress=function) reports the samples done",
    "n_perturb_samples": "the metrics take samples=",
}
"""For arguments that no setting stands for."""


def refuse(explainer: Any, further: Sequence[object], named: Mapping[str, object]) -> None:
    """TypeError for arguments that an explainer's `attribute` does not have, which names what does
    the same."""
    kind, settings = type(explainer).__name__, _settings(explainer)
    if further:
        raise TypeError(
            f"{kind}.attribute: expected at most inputs, "
            f"{'baselines, ' if 'baseline' in settings else ''}target and "
            f"additional_forward_args by position, got {len(further)} more ({further[0]!r}): name "
            "the arguments; settings such as steps= go to the explainer"
        )
    for name in named:
        known = ["target", "additional_forward_args", "ids", *settings]
        raise TypeError(f"{kind}.attribute: {_instead(kind, settings, name, known)}")


def refuse_settings(
    explainer: type[Any], further: Sequence[object], named: Mapping[str, object]
) -> None:
    """The same for what an explainer is made with, besides the model."""
    kind, settings = explainer.__name__, _settings(explainer)
    if further:
        layer = "cam_layer" if "cam_layer" in settings else "layer"
        raise TypeError(
            f"{kind}: expected the model alone by position, got {len(further)} more "
            f"({type(further[0]).__name__}): name the settings; a layer is {layer}="
        )
    for name in named:
        if name not in ("forward_func", *settings):
            raise TypeError(f"{kind}: {_instead(kind, settings, name, settings)}")


def _settings(explainer: Any) -> list[str]:
    return [item.name for item in fields(explainer)[1:] if item.init]


def _instead(kind: str, settings: Sequence[str], name: str, known: Sequence[str]) -> str:
    """What stands here for the argument `name`."""
    own = SETTINGS.get(name, name)
    if own in settings:
        reason = "is a setting of the explainer" if own == name else f"is here the setting {own}"
        return f"{name} {reason}: {kind}(model, {own}=...)"
    if name in ADVICE or name in SETTINGS:
        return f"does not take {name}: {ADVICE.get(name, f'{kind} has no such setting')}"
    return f"has no argument {name!r}{nearest(name, known)}"
