"""From a model's output to one number per sample: tasks, targets and kinds of score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from moreaugrad.registry import choose
from moreaugrad.score.inputs import Batched
from moreaugrad.score.precision import log_probability, log_sigmoid, raised
from moreaugrad.score.target_functions import Function, accepted, fitted, function_of
from moreaugrad.settings import Documented, expect

TargetLike = (
    int
    | Tensor
    | Sequence[int]
    | Sequence[tuple[int, ...]]
    | tuple[int, ...]
    | Callable[[Any], Tensor]
    | None
)
"""A target in Captum's form: an int, a tensor `[B]` or `[B, 1]`, a list of ints, a tuple (the
class, then the position in outputs with more than two dimensions), a list of tuples, or None (the
prediction); or a function of what the model returns for some samples, with one number for each."""

REGRESSION = "regression"
TASKS = ("auto", "multiclass", "binary", "multilabel", REGRESSION)


KINDS: Mapping[str, str] = {
    "logit": "the output of the target class",
    "log-probability": "the log of its softmax (or sigmoid) probability",
    "probability": "its softmax (or sigmoid) probability",
    "margin": "its output minus the largest other output",
    "cross-entropy": "the loss: minus the log-probability (a map is positive where the loss rises)",
}
NO_CLASS = -1
"""The class, and the prediction, where a function is explained instead of a class."""
AGAINST = "against"
"""Kind "against:NUMBER": the output of the target class minus that of another class."""


@dataclass(frozen=True, eq=False)
class Target(Batched):
    """Classes `[B]` and, for outputs with more dimensions, positions `[B, P]` after the class."""

    classes: Tensor
    positions: Tensor | None = None
    function: Function | None = None
    """What is explained instead of a class, in which case the model's outputs are its numbers, a
    column, and the classes are `NO_CLASS`."""

    @classmethod
    def begun(cls, target: object, batch: int, device: torch.device) -> Self:
        """The target before the outputs are known: a function; classes come with `resolve`."""
        classes = torch.full((batch,), NO_CLASS, device=device)
        function = function_of(target)
        return cls(classes, function=function and fitted(function, batch, device))

    @property
    def given(self) -> TargetLike:
        """In a form that a user may give."""
        if self.function is not None:
            return self.function
        if self.positions is None:
            return self.classes
        places = torch.cat((self.classes[:, None], self.positions), dim=1)
        return [tuple(place) for place in places.tolist()]


@dataclass(frozen=True, kw_only=True)
class Readout(metaclass=Documented):
    """How one number for each sample is read off outputs `[B]`, `[B, K]` or `[B, K, ...]`."""

    kind: str = "logit"
    """Which number of the target: "logit", "log-probability", "probability", "margin" (the logit
    minus the largest other one), "cross-entropy", or "against:3", the logit minus that of class
    3."""
    task: str = "auto"
    """Kind of task: "multiclass", "binary" (a single logit, `[B]` or `[B, 1]`; targets 0 and 1),
    "multilabel" (a sigmoid for each) or "regression" (kind "logit" only, the plain output); "auto"
    is binary for one output column and multiclass for more."""

    def __post_init__(self) -> None:
        if self.rival is None:
            choose("score", self.kind, KINDS)
        choose("task", self.task, TASKS)

    @property
    def rival(self) -> int | None:
        """The class that the target is compared with."""
        name, _, number = self.kind.partition(":")
        return int(number) if name == AGAINST and number.isdecimal() else None

    def resolve(self, outputs: Tensor, target: TargetLike) -> tuple[Target, Tensor]:
        """The target and the prediction `[B]`, from the outputs at the clean input."""
        table = outputs[:, None] if outputs.ndim == 1 else outputs
        task = self._task(table)
        if callable(target):
            none = torch.full((len(table),), NO_CLASS, device=outputs.device)
            return Target(none, function=accepted(target, table[:, 0])), none
        given = None if target is None else _parse(target, len(table), outputs.device)
        positions = None if given is None else given.positions
        width = 0 if positions is None else positions.shape[1]
        if table.ndim - 2 != width:
            raise ValueError(
                f"target: expected a tuple (class{', position' * (table.ndim - 2)}) for outputs "
                f"of shape {tuple(outputs.shape)}, got {target!r}"
            )
        if positions is not None:
            _check_range("target position", positions, table.shape[2:])
        table = _at(table, positions)
        if task == "binary":
            prediction, count = (table[:, 0] > 0).long(), 2
        else:
            prediction, count = table.argmax(1), table.shape[1]
        if self.rival is not None:
            _check_range("score against", torch.tensor(self.rival, device=outputs.device), count)
        if given is None:
            if task == REGRESSION and count > 1:
                raise ValueError(
                    f"target: expected the column to explain of a regression with {count} "
                    "outputs, got None: give target="
                )
            self._check_rival(prediction)
            return Target(prediction), prediction
        _check_range("target", given.classes, count)
        self._check_rival(given.classes)
        return given, prediction

    def _check_rival(self, classes: Tensor) -> None:
        """Errors: ValueError for samples whose class would be compared with itself."""
        same = [] if self.rival is None else (classes == self.rival).nonzero()[:, 0].tolist()
        if same:
            raise ValueError(
                f"score: expected another class than the explained one, got {self.kind} for "
                f"samples of class {self.rival} (numbers {', '.join(map(str, same[:5]))}"
                f"{', ...' if len(same) > 5 else ''}): give another target, or leave them out"
            )

    def read(self, outputs: Tensor, target: Target) -> Tensor:
        """The score `[B]`, in single precision at least."""
        outputs = raised(outputs)
        table = _at(outputs[:, None] if outputs.ndim == 1 else outputs, target.positions)
        task, column = self._task(table), target.classes[:, None]
        if target.function is not None:
            return table[:, 0]
        if task == "binary":
            logit = torch.where(target.classes == 1, table[:, 0], -table[:, 0])
        else:
            logit = table.gather(1, column)[:, 0]
        if self.rival is not None:
            return logit - table[:, self.rival]
        if self.kind == "margin" and task == "multiclass":
            return logit - table.scatter(1, column, -torch.inf).amax(1)
        if self.kind in ("logit", "margin"):
            return logit
        # Without several classes, the probabilities are the two-class softmax of (logit, 0).
        multiclass = task == "multiclass"
        found = log_probability(table, target.classes) if multiclass else log_sigmoid(logit)
        if self.kind == "probability":
            return found.exp()
        return -found if self.kind == "cross-entropy" else found

    def probabilities(self, outputs: Tensor, positions: Tensor | None = None) -> Tensor | None:
        """Of all classes `[B, K]`, of the two of a single logit; None for a regression."""
        if self.task == REGRESSION:
            return None
        outputs = raised(outputs)
        table = _at(outputs[:, None] if outputs.ndim == 1 else outputs, positions)
        if table.shape[1] == 1 and self.task != "multilabel":
            return torch.cat((1 - torch.sigmoid(table), torch.sigmoid(table)), dim=1)
        return torch.sigmoid(table) if self.task == "multilabel" else torch.softmax(table, dim=1)

    def _task(self, table: Tensor) -> str:
        columns = table.shape[1]
        task = self.task
        if task == "auto":
            task = "binary" if columns == 1 else "multiclass"
        if task == "multiclass" and columns < 2:
            raise ValueError("task: expected at least 2 outputs for 'multiclass', got 1")
        if task == "binary" and columns != 1:
            raise ValueError(f"task: expected a single logit for 'binary', got {columns} outputs")
        if self.rival is not None and columns < 2:
            raise ValueError(f"score: expected an output for each class for {self.kind}, got one")
        if task == REGRESSION and self.kind != "logit":
            raise ValueError(
                f"score: a regression has no {self.kind}; use score='logit', its plain output (a "
                "target that is a function counts as one)"
            )
        return task


def _at(table: Tensor, positions: Tensor | None) -> Tensor:
    """`[B, K, ...]` to `[B, K]` at each sample's position."""
    if positions is None:
        return table
    rows = torch.arange(len(table), device=table.device)
    return table.movedim(1, -1)[(rows, *positions.unbind(1))]


def _parse(target: object, batch: int, device: torch.device) -> Target:
    given = type(target).__name__
    if isinstance(target, (np.ndarray, np.generic)):
        target = torch.as_tensor(target) if target.dtype.kind in "iufcb" else None
    if isinstance(target, (bool, str)) or not isinstance(target, (int, Tensor, Sequence)):
        raise _unfit(given)
    if isinstance(target, tuple):
        target = [target] * batch
    if isinstance(target, Sequence) and any(isinstance(item, tuple) for item in target):
        lengths = {len(item) if isinstance(item, tuple) else 0 for item in target}
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError(
                "target: expected ints, or tuples (class, position, ...) of the same length, got "
                f"{target!r}"
            )
        table = _integers([list(item) for item in target], device)
        expect(len(table) == batch, "target", f"{batch} entries, one a sample", len(table))
        return Target(table[:, 0], table[:, 1:] if table.shape[1] > 1 else None)
    classes = _integers(target, device)
    if classes.ndim == 2 and classes.shape[1] == 1:
        classes = classes[:, 0]
    if classes.ndim == 0 or (classes.ndim == 1 and len(classes) == 1):
        classes = classes.reshape(()).expand(batch)
    if tuple(classes.shape) != (batch,):
        raise ValueError(
            f"target: expected one class, or {batch} (one a sample), got shape "
            f"{tuple(classes.shape)}"
        )
    return Target(classes)


def _integers(values: object, device: torch.device) -> Tensor:
    try:
        found = torch.as_tensor(values, device=device)
    except (TypeError, ValueError, RuntimeError) as error:  # None, words, rows of other lengths
        raise _unfit(repr(values)) from error
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise TypeError(f"target: expected integers, got {found.dtype}")
    return found.long()


def _unfit(given: str) -> TypeError:
    return TypeError(
        "target: expected an int, an integer tensor [B] or [B, 1], a list of ints, a tuple, a "
        f"function of the model's output, or None for the prediction, got {given}"
    )


def _check_range(name: str, values: Tensor, count: int | Sequence[int]) -> None:
    limit = torch.tensor(count, device=values.device)
    if bool(((values < 0) | (values >= limit)).any()):
        raise ValueError(
            f"{name}: expected numbers from 0 to {(limit - 1).tolist()}, got {values.tolist()}"
        )
