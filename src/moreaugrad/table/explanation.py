"""The explanation of rows of a table: a value for each named column or group of columns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.explainers.explanation import Explanation, Index, chosen_rows
from moreaugrad.explainers.summary import described, shorter
from moreaugrad.pictures.html import templates
from moreaugrad.pictures.wording import NARROW, number
from moreaugrad.settings import Documented
from moreaugrad.solvers.solution import Status
from moreaugrad.table.grouping import Grouping
from moreaugrad.table.rows import Rows
from moreaugrad.table.units import MEANINGS

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LISTED = 8
"""Columns that `print` lists."""
SHOWN = 20
"""Columns that a notebook lists."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TableExplanation(metaclass=Documented, heading="Attributes"):
    """Signed values of the columns of a table, or of groups of them, for each of N rows.

    A sequence of rows, which numbers, slices and masks choose. `print` shows it on one screen, and
    a notebook as a table with bars.

    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.SiLU(),
    ...                               torch.nn.Linear(4, 2)).eval()
    >>> found = mg.table.explain(network, torch.randn(5, 2), "simple-gradient",
    ...                          columns=["age", "income"])
    >>> values, first = found.values, found[0]
    """

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

    def __getitem__(self, index: Index) -> TableExplanation:
        """Some of the rows, with the indices of `Explanation`."""
        rows = chosen_rows(index, len(self))
        return replace(
            self,
            explanation=self.explanation.select(rows),
            rows=self.rows.select(rows),
            base=None if self.base is None else self.base[rows],
        )

    def __iter__(self) -> Iterator[TableExplanation]:
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

    def to_pandas(self) -> pandas.DataFrame:
        """The values as a data frame with the rows' labels and a column for each name.

        Status, error, target and score of each row are in `explanation.to_pandas()`. Errors:
        ImportError without pandas.
        """
        import pandas

        values, names = self.values.numpy(), list(self.names)
        return pandas.DataFrame(values, index=self.rows.index, columns=names)

    def to_shap(self) -> Any:
        """As shap's `Explanation`, for its plots, with `base` as base values.

        Values that do not add up have no base values, so that plots which need them, such as
        waterfall, refuse them. Errors: ImportError without shap.
        """
        try:
            shap = import_module("shap")
        except ImportError as error:
            raise ImportError("to_shap: expected shap to be installed: pip install shap") from error
        data = [self.data(name) for name in self.names]
        numeric = all(column.dtype.kind in "biuf" for column in data)
        made = np.stack([column if numeric else column.astype(object) for column in data], axis=1)
        return shap.Explanation(
            values=self.values.numpy(),
            base_values=self.base.numpy() if self.base is not None and self.complete else None,
            data=made,
            feature_names=list(self.names),
        )

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        kind: str | None = None,
        *,
        ax: Axes | None = None,
        title: str | None = None,
        most: int = 12,
    ) -> Figure:
        """A figure of one row or of all rows.

        path: where to write it, in the format of the suffix. kind: "bar", signed bars of one row,
        or the mean magnitude over several; "waterfall", how the contributions of one row raise and
        lower the score from `base`, for methods that are complete; "beeswarm", a point for each row
        and name. None is the waterfall for one row where the values add up, else its bars, and the
        beeswarm for several. ax: axes to draw on. most: names that are drawn, those of the largest
        magnitude.
        Errors: ValueError for a waterfall of values that do not add up, or of several rows, and for
        values that are not finite.
        """
        from moreaugrad.pictures.plot import save_figure
        from moreaugrad.table.drawing import drawn

        figure = drawn(self, kind, ax=ax, title=title, most=most)
        if path is not None:
            save_figure(figure, path, {"method": self.explanation.method})
        return figure

    def __repr__(self) -> str:
        count = len(self)
        of = self.strength() if count > 1 else self.values[0].abs()
        order = of.argsort(descending=True, stable=True)[:LISTED].tolist()
        wide = max(13, *(len(shorter(self.names[at])) + 2 for at in order))
        several = "" if count == 1 else "s"
        head = f"TableExplanation of {count} row{several} by {self.explanation.method}"
        lines = [head, f"  {self.meaning}"]
        if count > 1:
            lines.append("  mean magnitude:")
        for at in order:
            figure = f"{float(of[at]):.4g}" if count > 1 else f"{float(self.values[0, at]):+.4g}"
            lines.append(f"    {shorter(self.names[at]):<{wide}}{figure}")
        left = len(self.names) - len(order)
        lines += [f"    and {left} more"] * (left > 0)
        lines += [f"  {note}" for note in self.notes]
        return "\n".join([*lines, *described(self.explanation).splitlines()[2:]])

    def _repr_html_(self) -> str:
        alone = len(self) == 1
        of = self.values[0] if alone else self.strength()
        order = of.abs().argsort(descending=True, stable=True)[:SHOWN].tolist()
        largest = float(of.abs().max()) or 1.0
        rows = [
            {
                "name": self.names[at],
                "data": worded(self.data(self.names[at])[0]) if alone else "",
                "value": float(of[at]),
                "level": min(1.0, abs(float(of[at])) / largest),
            }
            for at in order
        ]
        facts = described(self.explanation).splitlines()[2:]
        return templates("moreaugrad.table").get_template("table.html.j2").render(
            method=self.explanation.method, size=len(self), alone=alone, rows=rows,
            meaning=self.meaning, left_out=len(self.names) - len(rows), notes=self.notes,
            facts=[line.strip() for line in facts],
        )  # fmt: skip


def worded(value: object) -> str:
    """A cell of a table in a few characters."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        return "" if value is None else shorter(str(value))
    return number(float(value)).replace(NARROW, "")


def _category(column: str, group: str) -> str:
    """`Paris` of `onehot__city_Paris` in the group `city`."""
    return column[column.index(group) + len(group) :].lstrip("_=") if group in column else column
