"""Texts in files: a line of a text file, or a row of a table."""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from moreaugrad.files.foreign import check_named, parsing, read_text
from moreaugrad.settings import nearest

TABLES = {".csv": ",", ".tsv": "\t"}
"""Between the columns of a table, by how its name ends."""
TEXT_SUFFIXES = (".txt", *TABLES)


class NamedText(NamedTuple):
    """A text. name: where it is from."""

    name: str
    text: str


def names_texts(file: str) -> bool:
    """Whether a file, or a glob of files, holds texts by its name."""
    return Path(file).suffix.lower() in TEXT_SUFFIXES


def read_texts(files: Iterable[str], column: str | None = None) -> list[NamedText]:
    """The texts of files and globs, in order: lines of a text file that are not blank, rows of a
    table.

    column: of the tables. Errors: ValueError for a file that is missing, binary or without texts, a
    column that is missing, and one that is not named where there are several.
    """
    found = [file for name in files for file in find_named(name, "texts")]
    if column is not None and not any(file.suffix.lower() in TABLES for file in found):
        raise ValueError(f"column: expected a .csv or .tsv file with a column {column!r}, got none")
    return [one for file in found for one in _read(file, column)]


def find_named(name: str, what: str) -> list[Path]:
    """The file of a name, or those of a glob, in order. Errors: ValueError for a glob without any.

    what: they hold.
    """
    check_named(what, name)
    path = Path(name)
    if path.exists() or not glob.has_magic(name):
        return [path]
    # Path.glob takes no absolute pattern.
    found = [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
    if not found:
        raise ValueError(f"{name}: expected files of {what}, but there are none")
    return found


def _read(file: Path, column: str | None) -> list[NamedText]:
    expected = "texts in UTF-8"
    content = read_text(file, expected)
    if "\0" in content:
        raise ValueError(f"{file}: expected {expected}, but the file is binary")
    separator = TABLES.get(file.suffix.lower())
    with parsing(str(file), expected):
        if separator is None:
            found = list(_lines(file, content))
        else:
            found = list(_rows(file, content, separator, column))
    if not found:
        raise ValueError(f"{file}: expected {expected}, but it has none")
    return found


def _lines(file: Path, content: str) -> Iterator[NamedText]:
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield NamedText(f"{file.name} line {number}", line.rstrip("\r"))


def _rows(file: Path, content: str, separator: str, column: str | None) -> Iterator[NamedText]:
    """Errors: ValueError for cells without a column, which a text that is not quoted runs into."""
    rows = csv.DictReader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    known = list(rows.fieldnames or ())
    chosen = known[0] if column is None and len(known) == 1 else column
    if column is None and chosen and any(other in chosen for other in ",;\t|"):
        raise ValueError(
            f"{file}: expected columns with {separator!r} between them, got one column {chosen!r}: "
            f"--column {chosen!r} if that is its name"
        )
    if known.count(chosen or "") != 1:
        asked = "the name of a column (--column)" if column is None else f"a column {column!r}"
        raise ValueError(
            f"{file}: expected {asked}; it has {', '.join(known)}{nearest(column or '', known)}"
        )
    for number, row in enumerate(rows, 1):
        if None in row:
            raise ValueError(
                f"{file}: expected {len(known)} cells in row {number}, as many as columns, got "
                f"{len(known) + len(row[None])}: quote a text with {separator!r} in it"
            )
        yield NamedText(f"{file.name} row {number}", row[chosen] or "")
