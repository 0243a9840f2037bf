"""The base class of methods with a penalty."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.derivatives import IMPLICIT, STRAIGHT_THROUGH
from moreaugrad.penalties import L1, Penalty
from moreaugrad.penalties.base import PerInput, check_any_batch
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import Shape
from moreaugrad.settings import expect


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PenalisedExplainer(Explainer):
    """A method that minimises h(u) + weight R(u), R any penalty.

    Without the penalty's `prox_root` there is no "implicit" derivative: "straight-through" is then
    the first.
    """

    penalty: Penalty = field(default=L1(1.0))
    """R: any `Penalty`; another setting multiplies it."""

    def __post_init__(self) -> None:
        if not isinstance(self.penalty, Penalty):
            raise TypeError(
                "penalty: expected a Penalty such as L1(1.0), got "
                f"{getattr(self.penalty, '__name__', type(self.penalty).__name__)}"
            )
        super().__post_init__()
        if not self.penalty.differentiable and self.derivatives:
            ways = tuple(way for way in self.derivatives if way not in (IMPLICIT, STRAIGHT_THROUGH))
            object.__setattr__(self, "derivatives", (STRAIGHT_THROUGH, *ways))

    def _check_weight(self, name: str, weight: float | str, automatic: tuple[str, ...]) -> None:
        """Check the setting that multiplies the penalty. automatic: its values that are chosen.

        Errors: ValueError; TypeError for an automatic weight of a penalty without `magnitudes`.
        """
        known = weight in automatic if isinstance(weight, str) else 0 <= weight < torch.inf
        *others, last = "a number >= 0", *map(repr, automatic)
        expect(known, name, f"{', '.join(others)} or {last}", weight)
        if not isinstance(weight, str):
            return
        if not self.penalty.sparse:
            raise TypeError(
                f"{name}: {weight!r} needs a penalty that sets entries or groups to zero and has "
                f"magnitudes (L1, GroupL2), got {type(self.penalty).__name__}: give a number"
            )

    def _regulariser(self, shape: Shape, bound: BoundScore) -> Penalty:
        """The penalty for an input of this shape."""
        check_any_batch(self.penalty, bound.origin.new_zeros(len(bound) + 1, *shape))
        return self.penalty

    def _penalty(self, bound: BoundScore) -> Penalty:
        """The penalty for all inputs together, on `[B, n]`."""
        parts = tuple(self._regulariser(shape, bound) for shape in bound.layout.shapes)
        # An L1 norm needs no shapes.
        plain = all(isinstance(part, L1) and part is parts[0] for part in parts)
        return parts[0] if plain else PerInput(parts, bound.layout)
