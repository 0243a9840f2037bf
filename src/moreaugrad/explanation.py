"""The result of an explainer: maps, and for each sample how they came about."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from moreaugrad.solvers.solution import Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from moreaugrad.pictures import Style


class ConvergenceWarning(UserWarning):
    """A map is returned that did not reach its stated accuracy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """Signed maps of a batch, shaped like the inputs, with their provenance.

    A map is positive where the input raises the score. `[B]` each: `target` and `prediction`
    (classes), `score` (at the clean input), `status`, `residual` (relative fixed-point residual of
    the map), `error` (estimated relative error of the map: the Monte-Carlo standard error where
    there is noise, the relative completeness error where there is a baseline; NaN where none is
    estimated), `eta` (the penalty's weight; NaN without),
    `steps` and `evaluations` (forward and input-backward passes of that sample).
    `details`: what else a method tells of each map, `[B]` by name; the method's class says what.
    `mask`: which entries are real, shaped like the maps (None: all); the others are 0 in the map.
    """

    maps: Tensor | tuple[Tensor, ...]
    inputs: Tensor | tuple[Tensor, ...]
    target: Tensor
    prediction: Tensor
    score: Tensor
    status: tuple[Status, ...]
    residual: Tensor
    error: Tensor
    eta: Tensor
    steps: Tensor
    evaluations: Tensor
    method: str
    settings: Mapping[str, Any]
    details: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Tensor | tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, index: int) -> Explanation:
        """The explanation of one sample, still with a batch dimension."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected a sample from 0 to {len(self) - 1}, got {index}")
        at = slice(index % len(self), index % len(self) + 1)
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor) or item.name == "status":
                changed[item.name] = value[at]
            elif isinstance(value, tuple):
                changed[item.name] = tuple(part[at] for part in value)
            elif item.name == "details":
                changed[item.name] = {name: each[at] for name, each in value.items()}
        return replace(self, **changed)

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The maps as a tuple, one for each input."""
        return self.maps if isinstance(self.maps, tuple) else (self.maps,)

    @property
    def zeros(self) -> Tensor:
        """Share of the real entries that are exactly zero, `[B]`, over all inputs."""
        zero = torch.cat([(part == 0).flatten(1) for part in self.parts], dim=1)
        if self.mask is None:
            return zero.double().mean(1)
        masks = self.mask if isinstance(self.mask, tuple) else (self.mask,)
        real = torch.cat([mask.flatten(1) for mask in masks], dim=1)
        return (zero & real).sum(1).double() / real.sum(1)

    @property
    def ok(self) -> bool:
        """Every map has reached the accuracy its method states."""
        return all(status.ok for status in self.status)

    def problems(self) -> list[str]:
        """One line for each sample whose map is not what its method states."""
        return [
            f"sample {i}: {status.message} (after {int(self.steps[i])} steps; estimated relative "
            f"error {float(self.error[i]):.2g}); {status.remedy}"
            for i, status in enumerate(self.status)
            if not status.ok
        ]

    def raise_if_failed(self) -> Explanation:
        """This explanation, or RuntimeError naming each sample that failed, and what to do."""
        if not self.ok:
            raise RuntimeError(f"{self.method}: " + "\n".join(self.problems()))
        return self

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        index: int = 0,
        *,
        part: int = 0,
        title: str | None = None,
        style: Style | None = None,
    ) -> Figure:
        """One sample's map in all views, over the input where that is a picture.

        `part` picks one of several inputs. With `path` the figure is written too (the suffix tells
        the format; a PNG carries the settings). Errors: ValueError for a map that is not finite.
        """
        from moreaugrad.pictures import photo
        from moreaugrad.pictures.plot import figure, save_figure

        one = self[index]
        inputs = one.inputs if isinstance(one.inputs, tuple) else (one.inputs,)
        image = photo(inputs[part][0])
        told = f"{self.method}, class {int(one.target)}: {one.status[0].value}"
        shown = figure(
            one.parts[part][0],
            None if image is None else image.pixels,
            title=told if title is None else title,
            style=style,
        )
        if path is not None:
            save_figure(shown, path, {"method": self.method, "settings": dict(self.settings)})
        return shown
