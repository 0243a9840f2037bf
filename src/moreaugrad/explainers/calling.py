"""What calls of a method take besides inputs: progress, and hints for Captum's other arguments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch

from moreaugrad.explainers.batch import ExplainedBatch
from moreaugrad.settings import nearest

B = TypeVar("B", bound=ExplainedBatch)

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
"""Captum's arguments and the settings of an explainer that replace them."""

ADVICE = {
    "abs": "maps are signed, take .abs() of the result",
    "backward": "the map is defined by the score's own gradient; SimpleGradient, SmoothGrad and "
    "SparsifiedSmoothGrad take another backward pass",
    "baselines": "of the methods here IntegratedGradients, DeepLift and ExpectedGradients "
    "have baselines",
    "return_convergence_delta": "explain(...).error says how far a map is from completeness",
    "nt_type": "each is a method of its own: SmoothGrad for 'smoothgrad'",
    "draw_baseline_from_distrib": "ExpectedGradients draws from its baselines=",
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
"""Hints for Captum's arguments that no setting replaces."""


def refuse(explainer: Any, further: Sequence[object], named: Mapping[str, object]) -> None:
    """Refuse arguments that an explainer's `attribute` does not have.

    Errors: TypeError that says what to use instead.
    """
    kind, settings = type(explainer).__name__, _settings(explainer)
    if further:
        raise TypeError(
            f"{kind}.attribute: expected at most inputs, "
            f"{'baselines, ' if {'baseline', 'baselines'} & {*settings} else ''}target and "
            f"additional_forward_args by position, got {len(further)} more ({further[0]!r}): name "
            "the arguments; settings such as steps= go to the explainer"
        )
    for name in named:
        known = ["target", "additional_forward_args", "ids", *settings]
        raise TypeError(f"{kind}.attribute: {_instead(kind, settings, name, known)}")


def refuse_settings(
    explainer: type[Any], further: Sequence[object], named: Mapping[str, object]
) -> None:
    """The same for the arguments of an explainer's class, apart from the model."""
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
    """What to use instead of the argument `name`."""
    own = SETTINGS.get(name, name)
    if own in settings:
        reason = "is a setting of the explainer" if own == name else f"is here the setting {own}"
        return f"{name} {reason}: {kind}(model, {own}=...)"
    if name in ADVICE or name in SETTINGS:
        return f"does not take {name}: {ADVICE.get(name, f'{kind} has no such setting')}"
    return f"has no argument {name!r}{nearest(name, known)}"


Progress = Callable[[float, int], None]
"""Called with the number of samples done, perhaps a fraction, and the number of all samples."""


@contextmanager
def reporting(progress: Progress | bool | None, title: str) -> Iterator[Progress | None]:
    """The function to call with the progress; for True, a bar on standard error while open.

    Errors: TypeError for anything but a function, a bool or None.
    """
    if progress is None or progress is False:
        yield None
    elif progress is not True:
        if not callable(progress):
            raise TypeError(
                "progress: expected True for a bar, or a function of (samples done, samples), got "
                f"{type(progress).__name__}"
            )
        yield progress
    else:
        import rich.progress
        from rich.console import Console

        console = Console(stderr=True)
        columns = rich.progress.Progress.get_default_columns()
        with rich.progress.Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, of: bar.update(task, completed=done, total=of)


def metered(
    progress: Progress,
    done: int,
    group: int,
    samples: int,
    budget: int,
    expected: int | None = None,
) -> Callable[[int], None]:
    """A function that reports the evaluations of a group as progress.

    done: samples before the group. budget: most evaluations of the whole group; expected: those
    that it usually takes. Beyond them progress goes on as if a tenth were left.
    """
    spent = 0

    def report(evaluations: int) -> None:
        nonlocal spent
        spent += evaluations
        of = max(expected or budget, min(1.1 * spent, budget))
        progress(done + group * min(1.0, spent / of), samples)

    return report


def timed(found: B, began: float) -> B:
    """With the seconds of each sample, of a call that began at this reading of `perf_counter`."""
    each = (time.perf_counter() - began) / max(1, len(found))
    return replace(found, seconds=torch.full_like(found.error, each))
