"""The explanation of rows of a table: a value for each named column or group of columns."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from moreaugrad.explainers.summary import described, shorter
from moreaugrad.extras import required
from moreaugrad.pictures.html import templates
from moreaugrad.table.explained import ExplainedRows
from moreaugrad.table.rows import worded

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LISTED = 8
"""Columns that `print` lists."""
SHOWN = 20
"""Columns that a notebook lists."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TableExplanation(ExplainedRows):
    """Signed values of the columns of a table, or of groups of them, for each of N rows.

    A sequence of rows, which numbers, slices and masks choose. `print` shows it on one screen, and
    a notebook as a table with bars.

    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.SiLU(),
    ...                               torch.nn.Linear(4, 2)).eval()
    >>> found = mg.table.explain(network, torch.randn(5, 2), "simple-gradient",
    ...                          columns=["age", "income"])
    >>> values, first = found.values, found[0]
    """

    def to_pandas(self) -> pandas.DataFrame:
        """The values as a data frame with the rows' labels and a column for each name.

        Status, error, target and score of each row are in `explanation.to_pandas()`. Errors:
        ImportError without pandas.
        """
        pandas = required("pandas", "pandas", "to_pandas()")

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
        if not count:
            return f"TableExplanation of no rows by {self.explanation.method}"
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
        if not len(self):
            return f"<p>{self!r}</p>"
        alone = len(self) == 1
        of = self.values[0] if alone else self.strength()
        order = of.abs().argsort(descending=True, stable=True)[:SHOWN].tolist()
        largest = float(of.abs().nan_to_num().max()) or 1.0
        rows = [
            {
                "name": self.names[at],
                "data": worded(self.data(self.names[at])[0]) if alone else "",
                "value": float(of[at]),
                "level": min(1.0, abs(float(of[at])) / largest),
            }
            for at in order
        ]
        facts = re.sub("\n {15}", " ", described(self.explanation)).splitlines()[2:]
        return templates("moreaugrad.table").get_template("table.html.j2").render(
            method=self.explanation.method, size=len(self), alone=alone, rows=rows,
            meaning=self.meaning, left_out=len(self.names) - len(rows), notes=self.notes,
            facts=[line.strip() for line in facts],
        )  # fmt: skip
