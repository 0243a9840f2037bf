"""`labels.csv`: images with their classes in one table, as spreadsheets and scripts write it."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from moreaugrad.data.dataset import DataSet, Files, Item, class_index
from moreaugrad.data.images import SUFFIXES
from moreaugrad.data.tree import Tree

TABLE = "labels.csv"
FILE, INDEX, NAME = "file", "class_index", "class_name"
DELIMITERS = (",", ";", "\t")
SHOWN = 60
"""Characters of a header that is refused."""


def read_listed(tree: Tree, split: str | None) -> DataSet | None:
    """`labels.csv` with the columns `file`, `class_index` and, perhaps, `class_name`.

    Separated by commas, semicolons or tabs, in UTF-8 (with a byte-order mark or without) or
    UTF-16; headings in any case. split: the rows whose files lie in the folder of this name.
    A warning counts the images that are not listed and are left out, and names columns that are
    not used. Errors: ValueError for a table without these columns or with contradictory rows.
    """
    if not tree.has(TABLE):
        return None
    where, rows = str(tree.root / TABLE), list(_rows(tree))
    tree.check_inside(TABLE, [row[FILE] for _, row in rows])
    items: dict[str, Item] = {}
    names: dict[int, str] = {}
    for line, row in rows:
        place = f"{where}, line {line}"
        item = Item(
            name=str(PurePosixPath(row[FILE])), label=row.get(NAME, ""),
            index=class_index(row[INDEX], place),
        )  # fmt: skip
        if item.name in items:
            raise ValueError(f"{place}: expected each file once, got {item.name!r} again")
        assert item.index is not None
        if names.setdefault(item.index, item.label) != item.label:
            raise ValueError(
                f"{place}: expected one name for each class, got {item.label!r} and "
                f"{names[item.index]!r} for {item.index}"
            )
        items[item.name] = item
    wanted = [n for n in sorted(items) if split is None or n.startswith(f"{split}/")]
    if not wanted:
        return None
    _warn_of_unlisted(tree, split or "", items, where)
    return Files(layout="listed", items=[items[name] for name in wanted], tree=tree)


def _rows(tree: Tree) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The fields of each row by heading, with the number of its last line."""
    where, text = str(tree.root / TABLE), tree.text(TABLE)
    header, _, _ = text.partition("\n")
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        headings = [heading.strip().casefold() for heading in next(reader, [])]
        if {FILE, INDEX} <= set(headings):
            break
    else:
        raise ValueError(
            f"{where}: expected the columns {FILE}, {INDEX} and, perhaps, {NAME}, separated by "
            f"commas, semicolons or tabs; got {header.strip()[:SHOWN]!r}: rename the columns, or "
            "give another layout (--layout folders) to read the folder without it"
        )
    if len(set(headings)) < len(headings):
        raise ValueError(f"{where}: expected each column once, got {', '.join(headings)}")
    unused = [heading for heading in headings if heading not in (FILE, INDEX, NAME)]
    if unused:
        warnings.warn(f"{where}: the columns {', '.join(unused)} are not used", stacklevel=2)
    for row in reader:
        fields = [field.strip() for field in row]
        if not any(fields):
            continue
        if len(fields) != len(headings):
            raise ValueError(
                f"{where}, line {reader.line_num}: expected {len(headings)} fields, got "
                f"{len(fields)}"
            )
        yield reader.line_num, dict(zip(headings, fields, strict=True))


def _warn_of_unlisted(tree: Tree, below: str, listed: Mapping[str, Item], where: str) -> None:
    found = [
        name
        for name in tree.files(below)
        if PurePosixPath(name).suffix.lower() in SUFFIXES and name not in listed
    ]
    if found:
        warnings.warn(
            f"{where}: {len(found)} images are not listed and are left out, {found[0]} the first",
            stacklevel=2,
        )
