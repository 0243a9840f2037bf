"""Targets that are functions of the model's output, instead of a class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from moreaugrad.score import checks
from moreaugrad.score.forward import inside_autocast, out_of_memory
from moreaugrad.score.outputs import described
from moreaugrad.settings import Documented

Function = Callable[[Any], Tensor]
"""From what the model returns for some samples to one number for each of them, `[m]`."""


@dataclass(frozen=True, eq=False)
class TargetFunction(metaclass=Documented, checked=True):
    """A target that reads one number for each sample off the model's output, with data of its own.

    Its fields that are tensors have a row for each sample, `[B, ...]`: the function is called with
    the outputs of some samples at a time, and then has their rows. A function without such data
    needs no class: any `f(output) -> [m]` is a target. The number must depend on its own sample
    alone and be differentiable.

    >>> @dataclass(frozen=True, eq=False)
    ... class Weighted(mg.targets.TargetFunction):
    ...     weights: torch.Tensor  # [B, K]
    ...
    ...     def __call__(self, output):
    ...         return (output * self.weights).sum(1)
    >>> target = Weighted(torch.ones_like(model(x)))
    >>> maps = mg.SimpleGradient(model).attribute(x, target)
    """

    @abstractmethod
    def __call__(self, output: Any) -> Tensor:
        """The numbers `[m]` of m samples. output: what the model returned for them."""

    def select(self, rows: Tensor) -> Self:
        """The function of some of the samples: tensors have their rows, settings stay."""
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{k: v[rows] for k, v in own.items() if isinstance(v, Tensor)})

    def fitted(self, batch: int, device: torch.device) -> Self:
        """With tensors on this device. Errors: ValueError for a tensor without a row for each of
        the `batch` samples."""
        found: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                if value.shape[:1] != (batch,):
                    raise ValueError(
                        f"target, {item.name}: expected {batch} rows, one for each sample, got "
                        f"shape {tuple(value.shape)}"
                    )
                found[item.name] = value.to(device)
        return replace(self, **found)

    def accepted(self, values: Tensor) -> Self:
        """The function, once its numbers at the explained inputs, `[B]`, are known. Errors:
        ValueError for numbers that mean nothing."""
        return self

    def __str__(self) -> str:
        parts = {item.name: _words(getattr(self, item.name)) for item in fields(self)}
        shown = ", ".join(f"{name}={words}" for name, words in parts.items() if words)
        return f"{type(self).__name__}({shown})"


FEW = 4
"""Numbers of a target that its name shows."""


def _words(value: object) -> str:
    """A setting, or what all samples have in common if it is short; empty for other values."""
    if isinstance(value, Tensor):
        common = len(value) and value[0].numel() <= FEW and bool((value == value[:1]).all())
        numbers = [f"{number:g}" for number in value[0].flatten().tolist()] if common else []
        return (
            numbers[0] if common and value.ndim == 1 else f"[{', '.join(numbers)}]" * bool(common)
        )
    kept = isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != ""
    return f"{value!r}" if kept else ""


def function_of(target: object) -> Function | None:
    """The target, if it is a function. Errors: TypeError for a class of functions, ValueError for a
    module in training mode."""
    if not callable(target):
        return None
    if isinstance(target, type):
        raise TypeError(
            f"target: expected a function of the model's output, got the class {target.__name__}: "
            "make an instance of it"
        )
    checks.check_mode(target)
    return target


def fitted(function: Function, batch: int, device: torch.device) -> Function:
    return function.fitted(batch, device) if isinstance(function, TargetFunction) else function


def accepted(function: Function, values: Tensor) -> Function:
    return function.accepted(values) if isinstance(function, TargetFunction) else function


def function_name(function: object) -> str:
    """In a few words; a text is one already."""
    if isinstance(function, (str, TargetFunction)):
        return str(function)
    return str(getattr(function, "__qualname__", type(function).__name__)).rpartition(".")[2]


def alike(one: object, other: object) -> bool:
    """Whether two functions are the same, or ready-made ones with the same data."""
    if one is other or not isinstance(one, TargetFunction) or type(one) is not type(other):
        return one is other
    pairs = ((getattr(one, item.name), getattr(other, item.name)) for item in fields(one))
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def numbers_of(function: Function, output: object, rows: int) -> Tensor:
    """The function's numbers of this many samples, `[rows, 1]`. Errors: TargetError."""
    try:
        with inside_autocast():
            found = function(output)
    except Exception as error:
        if out_of_memory(error):
            raise
        own = isinstance(function, TargetFunction) and isinstance(error, (ValueError, TypeError))
        raise checks.TargetError(
            f"target: {error}"
            if own
            else f"target: the function {function_name(function)} failed at the model's output, "
            f"{described(output)} ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(found, Tensor):
        got = described(found)
    elif tuple(found.shape) != (rows,):
        got = (
            f"shape {tuple(found.shape)}. It is called with some of the samples at a time: one "
            "that needs data of each sample is a moreaugrad.targets.TargetFunction"
        )
    elif not found.is_floating_point():
        got = f"{found.dtype}, which has no gradient"
    else:
        return found[:, None]
    raise checks.TargetError(
        f"target: expected the function {function_name(function)} to return a floating-point "
        f"tensor of shape ({rows},), one number for each sample, got {got}"
    )
