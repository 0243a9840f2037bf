"""Units of a table's columns: the scale on which they are explained, and what a value means."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.captum import CaptumMethod
from moreaugrad.explainers.comparing import Comparing
from moreaugrad.explainers.gradient import SimpleGradient, SmoothGrad
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.files.foreign import some
from moreaugrad.registry import choose
from moreaugrad.settings import expect
from moreaugrad.table.rows import Numbers

AUTO, CONTRIBUTION, MAP = "auto", "contribution", "map"
DEVIATION, UNIT, PRODUCT = "deviation", "unit", "product"
CHOICES = (AUTO, DEVIATION, UNIT, PRODUCT)
MEANINGS = {
    CONTRIBUTION: "contribution to the score, in units of the score",
    DEVIATION: "slope of the score, per standard deviation of the column",
    UNIT: "slope of the score, per unit of the column",
    PRODUCT: "slope of the score times the distance from the background's mean (or from 0 without "
    "one), in units of the score",
    MAP: "the method's map of the standardised columns",
}
"""What a value of each kind is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnScales:
    """The centre and the scale of each column, `[D]` each in float64.

    known: whether they are those of the columns; otherwise 0 and 1 stand for them.
    notes: what a reader must know of them.
    """

    mean: Numbers
    scale: Numbers
    known: bool
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(
        cls, columns: tuple[str, ...], background: Numbers | None, scale: Numbers | None
    ) -> ColumnScales:
        """From rows `[M, D]`, of which a single one has no deviation, or from a given scale.

        A column that is constant in the background keeps its own unit, as in scikit-learn's
        StandardScaler. Errors: ValueError for a scale that is not positive.
        """
        zero = np.zeros(len(columns))
        mean = zero if background is None else background.mean(0)
        if scale is not None:
            expect(bool((scale > 0).all()), "scale", "numbers > 0", scale.tolist())
            return cls(mean=mean, scale=scale, known=True)
        if background is None or len(background) < 2:
            return cls(mean=mean, scale=zero + 1, known=False)
        scale = background.std(0)
        # A mean has rounding, from which a constant column gets a deviation.
        still = (scale <= 1e-12 * np.abs(background).max(0)) | (scale == 0)
        names = [name for name, constant in zip(columns, still, strict=True) if constant]
        notes = (
            [f"constant in the background, so in their own units: {some(names)}"] if names else []
        )
        return cls(mean=mean, scale=np.where(still, 1.0, scale), known=True, notes=tuple(notes))

    @property
    def trivial(self) -> bool:
        """Whether columns keep their own units and zero."""
        return not self.mean.any() and bool((self.scale == 1).all())

    def standardised(self, numbers: Numbers) -> Numbers:
        """z of x, `[N, D]`."""
        return (numbers - self.mean) / self.scale

    def needed(self, explainer: Explainer) -> bool:
        """Whether a method compares columns with each other, so that they need a common unit."""
        if isinstance(explainer, SimpleGradient):
            return explainer.keep < 1
        return not isinstance(explainer, (Comparing, CaptumMethod))

    def check(self, method: str, explainer: Explainer) -> None:
        """Errors: ValueError for a method that needs a common unit where none is known."""
        if self.needed(explainer) and not self.known:
            raise ValueError(
                f"background: expected rows of the training data for {method}, whose noise, "
                "penalties or ranks need a common unit of the columns, their standard deviations; "
                "or give these as scale= (a number or one by name; scale=1 for columns that are "
                "standardised already)"
            )

    def kind(self, explainer: Explainer, values: str) -> str:
        """What the values are. Errors: ValueError for a choice that the method does not have."""
        choose("values", values, CHOICES)
        if explainer.multiplies_by_inputs:
            found = CONTRIBUTION
        elif isinstance(explainer, (SimpleGradient, SmoothGrad, Moreau, Comparing)):
            found = (DEVIATION if self.known else UNIT) if values == AUTO else values
        else:
            found = MAP
        if values not in (AUTO, found):
            raise ValueError(
                f"values: expected 'auto' with {explainer.method}, whose values are: "
                f"{MEANINGS[found]}; got {values!r}"
            )
        if values == DEVIATION and not self.known:
            raise ValueError(
                "values: expected background= or scale= for values per standard deviation"
            )
        return found

    def converted(self, maps: Tensor, z: Tensor, kind: str) -> Tensor:
        """Maps `[N, D]` of the standardised columns as values of that kind."""
        if kind == UNIT:
            return maps / torch.from_numpy(self.scale).to(maps)
        return maps * z.to(maps) if kind == PRODUCT else maps
