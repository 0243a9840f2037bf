"""What explained rows hold: a value for each name, and what follows from them alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.explainers.explanation import Explanation, Index, chosen_rows
from moreaugrad.settings import Documented
from moreaugrad.solvers.solution import Status
from moreaugrad.table.grouping import Grouping
from moreaugrad.table.rows import Rows
from moreaugrad.table.units import MEANINGS


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ExplainedRows(metaclass=Documented, heading="Attributes"):
    """Signed values of columns, or of groups of them, for each of N rows."""

    explanation: Explanation
    """The values of single columns as its maps `[N, D]`, the rows in the model's units as its
    inputs, with status, error, settings and cost of each row."""
    rows: Rows
    """The rows as they were given."""
    grouping: Grouping
    """The names of columns and of their groups."""
    value: str
    """What values are: "contribution", "deviation", "unit", "product" or "map"; see `meaning`."""
    base: Tensor | None
    """What the contributions of each row add up from, `[N]`: the score at its baseline, or its mean
    over the baselines drawn. None for a method whose values do not add up to the score."""
    notes: tuple[str, ...] = ()
    """What the reader must know: columns that are constant in the background."""

    @cached_property
    def values(self) -> Tensor:
        """A value for each row and name, `[N, G]`; of a group the sum over its columns."""
        return self.grouping.sums(self.explanation.parts[0])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the groups, and of the columns that are in none."""
        return self.grouping.names

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the model's columns."""
        return self.grouping.columns

    @property
    def inputs(self) -> Tensor:
        """The rows in the units of the model's inputs, `[N, D]`."""
        inputs = self.explanation.inputs
        assert isinstance(inputs, Tensor)
        return inputs

    @property
    def target(self) -> Tensor:
        """The explained class, `[N]`."""
        return self.explanation.target

    @property
    def prediction(self) -> Tensor:
        """The predicted class, `[N]`."""
        return self.explanation.prediction

    @property
    def score(self) -> Tensor:
        """The explained number of each row, `[N]`."""
        return self.explanation.score

    @property
    def error(self) -> Tensor:
        """Estimated relative error of each row's values, `[N]`; NaN where none is estimated."""
        return self.explanation.error

    @property
    def status(self) -> tuple[Status, ...]:
        """How the computation of each row ended."""
        return self.explanation.status

    @property
    def ok(self) -> bool:
        """Whether all rows have the accuracy that their method promises."""
        return self.explanation.ok

    def problems(self) -> list[str]:
        """One line for each row that has not."""
        return self.explanation.problems()

    @property
    def meaning(self) -> str:
        """What a value is, in words."""
        return MEANINGS[self.value]

    @property
    def complete(self) -> bool:
        """Whether the values of each row add up from `base` to its score, within its error."""
        return self.base is not None and self.ok

    def __len__(self) -> int:
        return len(self.explanation)

    def __getitem__(self, index: Index) -> Self:
        """Some of the rows, with the indices of `Explanation`."""
        rows = chosen_rows(index, len(self))
        return replace(
            self,
            explanation=self.explanation.select(rows),
            rows=self.rows.select(rows),
            base=None if self.base is None else self.base[rows],
        )

    def __iter__(self) -> Iterator[Self]:
        return (self[row] for row in range(len(self)))

    def strength(self) -> Tensor:
        """Mean magnitude of each name's values over the rows, `[G]`."""
        return self.values.double().abs().mean(0)

    def data(self, name: str) -> NDArray[Any]:
        """What the rows have in a column or a group, `[N]`: the column as it was given; of a group
        of indicator columns the one that is set; of other groups None."""
        if name in self.rows.columns:
            return self.rows.column(name)
        places = list(self.grouping.members[self.names.index(name)])
        given = self.inputs[:, places].numpy()
        if len(places) == 1:
            return given[:, 0]
        found = np.full(len(given), None, dtype=object)
        indicators = ((given == 0) | (given == 1)).all(1) & (given.sum(1) == 1)
        words = np.array([_category(self.columns[at], name) for at in places], dtype=object)
        found[indicators] = words[given.argmax(1)][indicators]
        return found


def _category(column: str, group: str) -> str:
    """`Paris` of `onehot__city_Paris` in the group `city`."""
    for name in (column, column.partition("__")[2]):
        after = name.removeprefix(group)
        if after != name and after[:1] in ("_", "="):
            return after.lstrip("_=")
    return column
