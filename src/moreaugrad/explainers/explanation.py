"""The result of an explainer: maps, with the status, error and cost of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from moreaugrad.score.bound_score import BoundScore
from moreaugrad.settings import expect
from moreaugrad.solvers.solution import Provenance, Solution, Status
from moreaugrad.solvers.z_scores import certain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from moreaugrad.pictures import Style


class ConvergenceWarning(UserWarning):
    """A map did not reach its stated accuracy.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", mg.ConvergenceWarning)
    ...     found = mg.SparseMoreauGrad(model, max_evaluations=128).attribute(x)
    """


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation(Provenance):
    """Signed maps of a batch, shaped like the inputs, with their status, error and cost.

    >>> result = mg.SimpleGradient(model).explain(x)
    >>> found = result.maps, result.status, result.error
    """

    maps: Tensor | tuple[Tensor, ...]
    """Positive where the input raises the score: a tensor, or a tuple with one for each input."""
    inputs: Tensor | tuple[Tensor, ...]
    """The explained inputs (with `layer=`, the layer's output)."""
    target: Tensor
    """The explained class, `[B]`."""
    position: Tensor | None = None
    """The explained position in outputs with more than two dimensions, `[B, P]`; else None."""
    prediction: Tensor
    """The predicted class, `[B]`."""
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

    @classmethod
    def of(cls, maps: Solution, bound: BoundScore, several: bool, method: str) -> Explanation:
        """Of flat maps. several: whether the inputs were given as a tuple."""

        def shaped(parts: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
            return parts if several else parts[0]

        restore, z, mask = bound.layout.restore, maps.z_scores, bound.mask
        return cls(
            maps=shaped(restore(maps.values)),
            inputs=shaped(restore(bound.origin)),
            target=bound.target.classes,
            position=bound.target.positions,
            prediction=bound.prediction,
            score=bound.clean,
            method=method,
            z_scores=None if z is None else shaped(restore(z)),
            mask=None if mask is None else shaped(bound.layout.split(mask)),
            **maps.provenance(),
        )

    def __getitem__(self, index: int | slice) -> Explanation:
        """The explanation of one sample or of a slice of samples, with a batch dimension.

        Errors: IndexError for a number out of range, TypeError for anything else.
        """
        try:
            found = range(len(self))[index]
        except IndexError:
            raise IndexError(f"expected a sample from 0 to {len(self) - 1}, got {index}") from None
        except TypeError:
            raise TypeError(
                f"expected the number of a sample or a slice, got {type(index).__name__}; choose "
                "entries of a map with result.maps"
            ) from None
        return self.select(torch.tensor(found, dtype=torch.long).reshape(-1))

    def __iter__(self) -> Iterator[Explanation]:
        """The explanation of each sample."""
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """The maps as an array, reduced precision as float32.

        Errors: TypeError for several inputs, which have one array each.
        """
        if isinstance(self.maps, tuple):
            raise TypeError(
                f"expected the maps of one input, got those of {len(self.maps)}: convert each of "
                "result.maps"
            )
        maps = self.maps.detach().cpu()
        values = (maps if maps.dtype is torch.float64 else maps.float()).numpy()
        return np.array(values, dtype=dtype, copy=copy)

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The maps as a tuple, one for each input."""
        return self.maps if isinstance(self.maps, tuple) else (self.maps,)

    @property
    def zeros(self) -> Tensor:
        """Fraction of exact zeros among the entries of all inputs without padding, `[B]`."""
        zero = torch.cat([(part == 0).flatten(1) for part in self.parts], dim=1)
        if self.mask is None:
            return zero.double().mean(1)
        masks = self.mask if isinstance(self.mask, tuple) else (self.mask,)
        real = torch.cat([mask.flatten(1) for mask in masks], dim=1)
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
        scores = self.z_scores if isinstance(self.z_scores, tuple) else (self.z_scores,)
        z = torch.cat([part.flatten(1) for part in scores], dim=1)
        zero = torch.cat([(part == 0).flatten(1) for part in self.parts], dim=1)
        sizes = [part.shape[1:].numel() for part in scores]
        found = torch.split(certain(z, zero, level), sizes, dim=1)
        shaped = tuple(own.reshape(p.shape) for own, p in zip(found, self.parts, strict=True))
        return shaped if isinstance(self.maps, tuple) else shaped[0]

    def problems(self) -> list[str]:
        """One line for each sample whose map did not reach its stated accuracy."""
        return [self._line(i) for i, status in enumerate(self.status) if not status.ok]

    def raise_if_failed(self) -> Explanation:
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

    def explore(self, model: Any = None) -> Any:
        """The live explorer of these images, a widget for notebooks (the extra `explorer`).

        model: None is the one that was explained; parts of a result, and results that were read
        from a file, do not know it. Errors: ValueError without one, and for inputs that are no
        images.
        """
        model = EXPLAINED.get(self) if model is None else model
        if model is None:
            raise ValueError("model: expected the explained model, which this result does not know")
        return import_module("moreaugrad.explorer.notebook").explore(self, model)

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        index: int = 0,
        *,
        part: int = 0,
        title: str | None = None,
        style: Style | None = None,
    ) -> Figure:
        """A figure of one sample's map in all views, over the input if that is an image.

        path: where to write the figure, in the format of the suffix; a PNG contains the settings.
        index: the sample. part: which of several inputs. Errors: ValueError for a map that is not
        finite.
        """
        from moreaugrad.pictures import photo
        from moreaugrad.pictures.plot import figure, save_figure

        one = self[index]
        inputs = one.inputs if isinstance(one.inputs, tuple) else (one.inputs,)
        image = photo(inputs[part][0])
        scores = one.z_scores[part] if isinstance(one.z_scores, tuple) else one.z_scores
        summary = f"{self.method}, class {int(one.target)}: {one.status[0].value}"
        shown = figure(
            one.parts[part][0],
            None if image is None else image.pixels,
            title=summary if title is None else title,
            style=style,
            z_scores=None if scores is None else scores[0],
        )
        if path is not None:
            save_figure(shown, path, {"method": self.method, "settings": dict(self.settings)})
        return shown


EXPLAINED: WeakKeyDictionary[Explanation, Any] = WeakKeyDictionary()
"""The model of each explanation that an explainer has returned."""
STORED = 0.02
"""Relative error of a map in its input's dtype from which the map counts as lost."""


def reported(maps: Solution, bound: BoundScore) -> Solution:
    """The maps with what was chosen for them, with NO_NOISE where the noise of a smoothed score is
    zero, and PRECISION where the input's dtype cannot represent the map; the error is then at least
    what is lost. Maps that failed, and those whose noise samples do not differ, have no z-scores.
    """
    if bound.chosen:
        details = {**maps.details, **bound.chosen}
        maps = replace(maps, details=details, evaluations=maps.evaluations + bound.spent)
    silent = bound.silent()
    if bool(silent.any()):
        maps = maps.marked(Status.NO_NOISE, silent, maps.error.masked_fill(silent, torch.nan))
    lost = bound.layout.lost(maps.values)
    poor = (lost > STORED) & ~(maps.error >= lost)
    if bool(poor.any()):
        error = torch.where(poor, lost, maps.error)
        maps = maps.marked(Status.PRECISION, poor, error.masked_fill(error.isinf(), torch.nan))
    if maps.z_scores is None:
        return maps
    unknown = [status.failed or status is Status.UNVARIED for status in maps.status]
    hidden = torch.tensor(unknown, device=maps.error.device)[:, None]
    return replace(maps, z_scores=maps.z_scores.masked_fill(hidden, torch.nan))
