"""Rows of a table with the names of its columns, and their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.explainers.summary import shorter
from moreaugrad.files.foreign import some
from moreaugrad.registry import first_line
from moreaugrad.settings import expect, nearest

Numbers = NDArray[np.float64]
ENCODE = (
    "encode it as for the training of the model (pandas.get_dummies, or a fitted encoder given as "
    "preprocess=)"
)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows as they were given, a data frame or an array `[N, D]`, and the names of their columns.

    >>> rows = mg.table.Rows(torch.zeros(5, 2).numpy(), ("age", "income"))
    >>> ages = rows.column("age")
    """

    given: Any
    """A pandas data frame, or an array."""
    columns: tuple[str, ...]
    """The names of its columns."""

    @classmethod
    def of(cls, what: str, given: Any, columns: Iterable[str] | None, reorder: bool) -> Rows:
        """what: the argument's name, for messages. columns, reorder: as in `explain`.

        Errors: TypeError for anything but a table; ValueError for one without rows or columns, for
        names that occur twice, and columns other than the model's.
        """
        wanted = None if columns is None else _names("columns", columns)
        if is_frame(given):
            own = _names(what, given.columns)
            if wanted is not None and own != wanted:
                _check_same(what, own, wanted, reorder)
                given, own = given.iloc[:, [own.index(name) for name in wanted]], wanted
        else:
            given = given.detach().cpu().numpy() if isinstance(given, Tensor) else given
            if not isinstance(given, np.ndarray) or given.ndim != 2:
                shape = f" of shape {given.shape}" if isinstance(given, np.ndarray) else ""
                raise TypeError(
                    f"{what}: expected a pandas data frame, or an array or a tensor [rows, columns]"
                    f" (one row of a frame: frame.iloc[[0]]), got {type(given).__name__}{shape}"
                )
            own = wanted or tuple(f"column {number}" for number in range(given.shape[1]))
            expect(
                len(own) == given.shape[1], "columns", f"{given.shape[1]} names, one for each "
                f"column of {what}", len(own),
            )  # fmt: skip
        expect(min(given.shape) > 0, what, "at least one row and one column", tuple(given.shape))
        return cls(given, own)

    def __len__(self) -> int:
        return len(self.given)

    @property
    def index(self) -> Any:
        """The labels of the rows: those of the frame, or their numbers."""
        return self.given.index if is_frame(self.given) else np.arange(len(self))

    def select(self, rows: slice | Tensor) -> Rows:
        """Some of the rows."""
        chosen = rows.tolist() if isinstance(rows, Tensor) else rows
        given = self.given.iloc[chosen] if is_frame(self.given) else self.given[chosen]
        return Rows(given, self.columns)

    def column(self, name: str) -> NDArray[Any]:
        """One column as it was given, `[N]`."""
        at = self.columns.index(name)
        column = self.given.iloc[:, at] if is_frame(self.given) else self.given[:, at]
        return np.asarray(column)

    def numbers(self) -> Numbers:
        """All columns in float64, `[N, D]`; they are numbers, see `check_numbers`."""
        if not is_frame(self.given):
            return np.asarray(self.given, dtype=np.float64)
        found: Numbers = self.given.to_numpy(dtype=np.float64, na_value=np.nan)
        return found

    def check_numbers(self, what: str) -> None:
        """Checks that all columns are finite numbers. Errors: TypeError, ValueError."""
        if not is_frame(self.given):
            if self.given.dtype.kind not in "biuf":
                raise TypeError(
                    f"{what}: expected numbers, got an array of {self.given.dtype}: {ENCODE}"
                )
            check_finite(what, self.given, self.columns, self.index)
            return
        from pandas.api.types import is_complex_dtype, is_numeric_dtype

        types = [self.given.iloc[:, at].dtype for at in range(len(self.columns))]
        words = [
            f"{name} ({kind}, as {self.column(name)[0]!r})"
            for name, kind in zip(self.columns, types, strict=True)
            if not is_numeric_dtype(kind) or is_complex_dtype(kind)
        ]
        if words:
            raise TypeError(
                f"{what}: expected numbers, got text or objects in {some(words)}: {ENCODE}; "
                "numbers that are kept as objects: .astype(float)"
            )
        step = max(1, CELLS // len(self.columns))
        for at in range(0, len(self), step):
            part = self.select(slice(at, at + step))
            check_finite(what, part.numbers(), self.columns, part.index)


CELLS = 2**22
"""Cells of a table that are converted at once: 32 MiB."""


def is_frame(given: object) -> bool:
    """Whether it is a pandas data frame, which need not be imported for that."""
    return hasattr(given, "iloc") and hasattr(given, "columns")


def _names(what: str, names: Iterable[Any]) -> tuple[str, ...]:
    """Errors: TypeError for one name instead of several, ValueError for one that occurs twice."""
    if isinstance(names, str):
        raise TypeError(f"{what}: expected a list of names, got the text {names!r}")
    found = tuple(map(str, names))
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice:
        raise ValueError(f"{what}: expected columns with different names, got {some(twice)} twice")
    return found


def _check_same(what: str, own: Sequence[str], wanted: Sequence[str], reorder: bool) -> None:
    """Errors: ValueError for columns other than those wanted, as far as `reorder` allows them."""
    missing = [name for name in wanted if name not in own]
    further = [name for name in own if name not in wanted]
    if missing or (further and not reorder):
        raise ValueError(
            f"{what}: expected the columns that the model was trained on"
            + (f"; missing: {some(missing)}{nearest(missing[0], further)}" if missing else "")
            + (f"; not the model's: {some(further)}" if further else "")
            + ("" if missing else " (reorder=True leaves these out)")
        )
    if not reorder:
        at = next(at for at, name in enumerate(wanted) if own[at] != name)
        raise ValueError(
            f"{what}: expected the columns in the order in which the model was trained, got "
            f"{own[at]!r} instead of {wanted[at]!r}: reorder=True takes them by name"
        )


def check_finite(what: str, numbers: NDArray[Any], columns: Sequence[str], index: Any) -> None:
    """Errors: ValueError for missing and infinite values, with their columns and first row."""
    wrong = ~np.isfinite(numbers)
    if not wrong.any():
        return
    counts = dict(zip(columns, wrong.sum(0).tolist(), strict=True))
    named = [f"{name} ({count})" for name, count in counts.items() if count]
    raise ValueError(
        f"{what}: expected finite numbers, got NaN or infinite ones in {some(named)}, first in row "
        f"{index[int(wrong.any(1).argmax())]}: impute them as for the training of the model, or "
        "leave out these rows"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Preparation:
    """From rows as they are given to the numbers that the model takes."""

    preprocess: Any = None
    """A fitted transformer of scikit-learn's form, or None."""
    columns: tuple[str, ...]
    """The names of the model's columns."""
    sources: tuple[str, ...]
    """The names of the columns as they are given."""

    @classmethod
    def of(cls, rows: Rows, preprocess: Any) -> Preparation:
        """Errors: TypeError for another object than a transformer; ValueError for one that cannot
        name its columns."""
        if preprocess is None:
            return cls(columns=rows.columns, sources=rows.columns)
        for needed in ("transform", "get_feature_names_out"):
            if not callable(getattr(preprocess, needed, None)):
                raise TypeError(
                    "preprocess: expected a fitted transformer with transform and "
                    "get_feature_names_out, as those of scikit-learn (of a pipeline the steps "
                    f"before the model, pipeline[:-1]), got {type(preprocess).__name__} without "
                    f"{needed}"
                )
        try:
            named = preprocess.get_feature_names_out()
        except Exception as error:
            raise ValueError(
                "preprocess: expected a fitted transformer that names its columns, but "
                f"get_feature_names_out failed ({first_line(error)})"
            ) from error
        return cls(preprocess=preprocess, columns=_names("preprocess", named), sources=rows.columns)

    def check(self, what: str, rows: Rows) -> None:
        """Checks rows that are not transformed. Errors: TypeError, ValueError."""
        if self.preprocess is None:
            rows.check_numbers(what)

    def numbers(self, what: str, rows: Rows) -> Numbers:
        """The model's columns `[N, D]`. Errors: ValueError where the transformer fails, or returns
        other columns than it names, or values that are not finite."""
        if self.preprocess is None:
            return rows.numbers()
        try:
            found = self.preprocess.transform(rows.given)
        except Exception as error:
            raise ValueError(f"preprocess: it failed on {what} ({first_line(error)})") from error
        found = found.toarray() if hasattr(found, "toarray") else found
        made = Rows.of(what, found if is_frame(found) else np.asarray(found), self.columns, False)
        expect(
            len(made) == len(rows), "preprocess", f"a row for each of {len(rows)} rows", len(made)
        )
        made.check_numbers(f"{what}, after preprocess")
        return made.numbers()


def by_name(what: str, values: Any, columns: Sequence[str]) -> Numbers:
    """A number for each column, `[D]`, from one for all, a mapping by name (a row or `.std()` of a
    frame), or a list in the order of the columns. Errors: TypeError, ValueError."""
    if isinstance(values, (bool, str)):
        raise TypeError(f"{what}: expected a number, or one for each column, got {values!r}")
    if isinstance(values, Mapping) or hasattr(values, "items"):
        given = {str(name): value for name, value in values.items()}
        _check_same(what, tuple(given), columns, reorder=True)
        values = [given[name] for name in columns]
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"{what}: expected a number, or one for each column, got {type(values).__name__}"
        ) from None
    expect(found.shape in ((), (len(columns),)), what, f"a number, or {len(columns)}, one for each "
           "column", found.shape)  # fmt: skip
    expect(bool(np.isfinite(found).all()), what, "finite numbers", values)
    return np.broadcast_to(found, len(columns)).copy()


def worded(value: object) -> str:
    """A cell of a table in a few characters."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        return "" if value is None else shorter(str(value))
    number = float(value)
    return f"{number:,.0f}" if 1000 <= abs(number) < 1e9 else f"{number:.4g}"
