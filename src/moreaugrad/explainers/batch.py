"""What an explanation holds: maps of a batch, and what follows from them alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.labels import labels_of
from moreaugrad.score.target_functions import function_name
from moreaugrad.score.targets import NO_CLASS, Target, TargetLike
from moreaugrad.settings import expect
from moreaugrad.solvers.solution import Provenance, Solution
from moreaugrad.solvers.z_scores import certain


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ExplainedBatch(Provenance):
    """Signed maps of a batch with their inputs, targets and predictions."""

    maps: Tensor | tuple[Tensor, ...]
    """Positive where the input raises the score: a tensor, or a tuple with one for each input."""
    inputs: Tensor | tuple[Tensor, ...]
    """The explained inputs (with `layer=`, the layer's output)."""
    target: Tensor
    """The explained class, `[B]`; -1 where it is a function, see `function`."""
    position: Tensor | None = None
    """The explained position in outputs with more than two dimensions, `[B, P]`; else None."""
    prediction: Tensor
    """The predicted class, `[B]`; -1 where the target is a function."""
    score: Tensor
    """The score at the clean input, `[B]`."""
    method: str
    """The method's name in the registry."""
    z_scores: Tensor | tuple[Tensor, ...] | None = None
    """By how many standard errors each entry is off another sign or, with a threshold, off the
    threshold at which it becomes zero or is no longer zero: >= 0, shaped like the maps, NaN where
    unknown. They are estimated from the noise samples alone; None: the method has no such noise."""
    mask: Tensor | tuple[Tensor, ...] | None = None
    """True where an entry is not padding, shaped like the maps; None: there is no padding."""
    probabilities: Tensor | None = None
    """Of all classes at the clean input, `[B, K]`, of both for a single logit; None for a
    regression and for a target that is a function."""
    seconds: Tensor | None = None
    """Time of each sample, `[B]`: that of the call, divided by its number of samples."""
    labels: Mapping[int, str] = field(default_factory=dict)
    """Names of the classes, those that the model carries; see `with_labels`."""
    function: Any = None
    """The target, where it is a function of the model's output instead of a class. A file keeps
    only its name."""

    @classmethod
    def of(cls, maps: Solution, bound: BoundScore, several: bool, method: str) -> Self:
        """Of flat maps. several: whether the inputs were given as a tuple. What the caller gave is
        copied: it may be changed later."""

        def shaped(parts: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
            return parts if several else parts[0]

        restore, split = bound.layout.restore, bound.layout.split
        values, z, mask = restore(maps.values), maps.z_scores, bound.mask
        return cls(
            maps=shaped(values),
            inputs=shaped(restore(bound.origin.clone())),
            target=bound.target.classes.clone(),
            position=bound.target.positions,
            prediction=bound.prediction,
            score=bound.clean,
            method=method,
            z_scores=None
            if z is None
            else shaped(tuple(map(converted, restore(z), split(maps.values), values))),
            mask=None if mask is None else shaped(split(mask.clone())),
            probabilities=bound.probabilities,
            labels=labels_of(bound.model),
            function=bound.target.function,
            **maps.provenance(),
        )

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The maps as a tuple, one for each input."""
        return as_tuple(self.maps)

    @property
    def zeros(self) -> Tensor:
        """Fraction of exact zeros among the entries of all inputs without padding, `[B]`."""
        zero = torch.cat([(part == 0).flatten(1) for part in self.parts], dim=1)
        if self.mask is None:
            return zero.double().mean(1)
        real = torch.cat([mask.flatten(1) for mask in as_tuple(self.mask)], dim=1)
        return (zero & real).sum(1).double() / real.sum(1)

    def certain(self, level: float = 0.95) -> Tensor | tuple[Tensor, ...]:
        """Where the sign of an entry, or that it is zero, is certain: bool, shaped like the maps.

        Of the entries that are certain, at most a fraction 1 - level is expected to have another
        sign, or another zero, with infinitely many noise samples: among the zeros of a map, and
        among its other entries (false discovery rate). This is an estimate, as `z_scores` are, and
        says nothing of other inputs. For one entry that was chosen beforehand, compare its z-score
        with 1.96.
        Errors: ValueError for a method without such noise, and for a level outside (0, 1).
        Source: Benjamini and Hochberg (1995).
        """
        expect(0 < level < 1, "level", "a number between 0 and 1", level)
        if self.z_scores is None:
            raise ValueError(
                "certain: expected the map of a method that averages over three noise samples or "
                "more, such as SmoothGrad or Sparse MoreauGrad with sigma > 0; got one of "
                f"{self.method} without z-scores"
            )
        scores = as_tuple(self.z_scores)
        z = torch.cat([part.flatten(1) for part in scores], dim=1)
        zero = torch.cat([(part == 0).flatten(1) for part in self.parts], dim=1)
        sizes = [part.shape[1:].numel() for part in scores]
        found = torch.split(certain(z, zero, level), sizes, dim=1)
        shaped = tuple(own.reshape(p.shape) for own, p in zip(found, self.parts, strict=True))
        return shaped if isinstance(self.maps, tuple) else shaped[0]

    @property
    def given(self) -> TargetLike:
        """The target, as `explain` takes it. Errors: ValueError for a function that was read from a
        file, which has its name alone."""
        if isinstance(self.function, str):
            raise ValueError(
                f"target: expected an explanation that knows its function {self.function}, got one "
                "that was read from a file: explain again"
            )
        return Target(self.target, self.position, self.function).given

    def label(self, index: int) -> str:
        """The name of a class; "class 3" where it is not known. Of -1 that of the function."""
        if index == NO_CLASS and self.function is not None:
            return function_name(self.function)
        return self.labels.get(index, f"class {index}")

    def problems(self) -> list[str]:
        """One line for each sample whose map did not reach its stated accuracy."""
        return [self._line(i) for i, status in enumerate(self.status) if not status.ok]

    def raise_if_failed(self) -> Self:
        """This explanation. Errors: RuntimeError that names each failed sample and the remedy.

        A map that used up its evaluations is not a failure: see `ok` and `error`.
        """
        failed = [self._line(i) for i, status in enumerate(self.status) if status.failed]
        if failed:
            raise RuntimeError(f"{self.method}: " + "\n".join(failed))
        return self

    def _line(self, row: int) -> str:
        status, spent = self.status[row], int(self.evaluations[row])
        reason = status.described(float(self.error[row]))
        return f"sample {row}: {reason}, after {spent} evaluations; {self.remedy(row)}"


def converted(z_scores: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """z-scores of a map that was converted to another precision: NaN of an entry that became zero,
    which is not certain to be zero."""
    return z_scores.masked_fill((before != 0) & (after == 0), torch.nan)


def as_tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Tensors of each input, of one input alone too."""
    return value if isinstance(value, tuple) else (value,)
