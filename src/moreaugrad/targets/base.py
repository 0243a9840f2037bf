"""The base class of targets, and their data: one value for all samples, or one for each."""

from __future__ import annotations

import torch
from torch import Tensor

from moreaugrad.score.target_functions import TargetFunction as TargetFunction


def for_each(name: str, value: object, ndim: int, batch: int, device: torch.device) -> Tensor:
    """A value with `ndim` axes for each sample, `[B, ...]`, from these or from one for all.

    Errors: TypeError for what is no tensor, ValueError for another shape.
    """
    try:
        found = torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"target, {name}: expected numbers, got {type(value).__name__}") from error
    if found.ndim == ndim:
        return found.expand(batch, *found.shape)
    if found.ndim != ndim + 1 or len(found) != batch:
        axes = f"{ndim} axes" if ndim else "a single number"
        raise ValueError(
            f"target, {name}: expected one for all samples ({axes}), or {batch}, one for each, got "
            f"shape {tuple(found.shape)}"
        )
    return found


def classes_for_each(
    name: str, value: object, ndim: int, batch: int, device: torch.device
) -> Tensor:
    """`for_each` of classes. Errors: also TypeError for other numbers than integers >= 0."""
    found = for_each(name, value, ndim, batch, device)
    whole = not (found.is_floating_point() or found.is_complex()) and found.dtype != torch.bool
    if not whole or bool((found < 0).any()):
        raise TypeError(f"target, {name}: expected classes, integers >= 0, got {value!r}")
    return found.long()


def check_classes(name: str, classes: Tensor, count: int) -> None:
    """Errors: ValueError for a class that the output does not have."""
    if bool((classes >= count).any()):
        raise ValueError(f"{name}: expected classes from 0 to {count - 1}, got {classes.tolist()}")
