"""Opening data sets on disk, and the two general layouts: folders, and a table of images."""

from __future__ import annotations

import csv
import io
import posixpath
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from moreaugrad.data.catalogue import LAYOUTS
from moreaugrad.data.dataset import DataSet, Files, Item, class_index
from moreaugrad.data.tree import Tree, open_tree
from moreaugrad.files.foreign import check_named, parsing

AUTO = "auto"
WHOLE = ("listed", "imagenet", "folders")
"""Layouts of data sets that may have no parts."""
NUMBERED = re.compile(r"(\d+)-(.+)")
MAPS = "maps"
TABLE = "labels.csv"
FILE, INDEX, NAME = "file", "class_index", "class_name"
DELIMITERS = (",", ";", "\t")
SHOWN = 60
"""Characters of a bad header that a message shows."""


def open_dataset(
    source: str | Path | Tree, *, layout: str = AUTO, split: str | None = None
) -> DataSet:
    """Open the data set in a folder or a zip archive of one.

    layout: one of `LAYOUTS`, or "auto". split: "val", "test" or "train"; by default the first of
    these that exists.
    Errors: ValueError for a layout that does not match, an unknown split, and no images.

    >>> data = mg.data.open_dataset("docs/images", layout="folders")
    >>> image = data.load(data.items[0])
    """
    LAYOUTS.check(layout, also=(AUTO,))
    check_named("data", source)
    tree = source if isinstance(source, Tree) else open_tree(source)
    for name in LAYOUTS if layout == AUTO else (layout,):
        read = LAYOUTS[name].load()
        with parsing(str(tree.root), f"a data set in the layout {name}"):
            found: DataSet | None = read(tree, split)
        if found is not None and found.items:
            object.__setattr__(found, "layout", name)
            return found
    where = f" in the part {split!r}" if split else ""
    raise ValueError(
        f"{tree.root}: expected images{where} in the layout of "
        f"{'one of ' + ', '.join(LAYOUTS) if layout == AUTO else layout}, but found none"
    )


def read_folders(tree: Tree, split: str | None) -> DataSet | None:
    """A folder for each class, otherwise images without a class; `_classes` has the indices, which
    are those among the classes of all parts.

    Attention maps of a part are in `maps/PART`, under the names of their images.
    """
    for part in tree.parts(split):
        names = tree.images(part)
        folder = f"{MAPS}/{part}"
        maps = {n: f"{MAPS}/{n}" for n in names if part} if tree.has_folder(folder) else {}
        depth = part.count("/") + 1 if part else 0
        folders = {name: posixpath.basename(posixpath.dirname(name)) for name in names}
        own, others = set(folders.values()), _others(tree, part)
        # A part may lack a class, which must not change the numbers of the rest.
        classes = _classes(own | others if own & others else own)
        if len(own) > 1 and all(name.count("/") == depth + 1 for name in names):
            items = [
                Item(name=n, label=label, index=index, attention=maps.get(n))
                for n in names
                for index, label in [classes[folders[n]]]
            ]
            return Files(layout="folders", items=items, tree=tree)
        if names:
            return Files(layout="folders", items=[Item(name=n) for n in names], tree=tree)
    return None


def _others(tree: Tree, part: str) -> set[str]:
    """The folders of classes in the other parts."""
    parts = [other for other in tree.parts(None) if part and other and other != part]
    names = (name.split("/") for other in parts for name in tree.images(other))
    return {name[-2] for name in names if len(name) == 3}


def _classes(folders: set[str]) -> dict[str, tuple[int, str]]:
    """Index and name of each folder's class: its place in alphabetical order, and its name.

    If all are named NUMBER-NAME, these are the index and the name, with hyphens for spaces; numbers
    that do not start at 0 only give the order.
    """
    parts = {folder: found for folder in folders if (found := NUMBERED.fullmatch(folder))}
    named = {folder: (int(found[1]), found[2].replace("-", " ")) for folder, found in parts.items()}
    numbers, names = ({part[place] for part in named.values()} for place in (0, 1))
    if not len(folders) == len(numbers) == len(names):
        return {folder: (place, folder) for place, folder in enumerate(sorted(folders))}
    if 0 in numbers:
        return named
    ordered = sorted(named, key=named.__getitem__)
    return {folder: (place, named[folder][1]) for place, folder in enumerate(ordered)}


def read_listed(tree: Tree, split: str | None) -> DataSet | None:
    """`labels.csv` with the columns `file`, `class_index` and, optionally, `class_name`.

    Separated by commas, semicolons or tabs, in UTF-8 (with or without a byte-order mark) or UTF-16;
    headings in upper or lower case. split: the rows whose files are in the folder of this name.
    Warns of images that are not listed, and of columns that are not used.
    Errors: ValueError for a table without these columns, and for contradictory rows.
    """
    if not tree.has(TABLE):
        return None
    where, rows = str(tree.root / TABLE), list(_rows(tree))
    tree.check_inside(TABLE, [row[FILE] for _, row in rows])
    items: dict[str, Item] = {}
    names: dict[int, str] = {}
    for line, row in rows:
        place = f"{where}, line {line}"
        name, label = str(PurePosixPath(row[FILE])), row.get(NAME, "")
        index = class_index(row[INDEX], place)
        if name in items:
            raise ValueError(f"{place}: expected each file once, got {name!r} again")
        if names.setdefault(index, label) != label:
            raise ValueError(
                f"{place}: expected one name for each class, got {label!r} and "
                f"{names[index]!r} for {index}"
            )
        items[name] = Item(name=name, label=label, index=index)
    wanted = [n for n in sorted(items) if split is None or n.startswith(f"{split}/")]
    if not wanted:
        return None
    unlisted = [name for name in tree.images(split or "") if name not in items]
    if unlisted:
        warnings.warn(
            f"{where}: {len(unlisted)} images are not listed and are left out, the first is "
            f"{unlisted[0]}",
            stacklevel=2,
        )
    return Files(layout="listed", items=[items[name] for name in wanted], tree=tree)


def _rows(tree: Tree) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The number of each row's last line, and its fields by heading."""
    where, text = str(tree.root / TABLE), tree.text(TABLE)
    header, _, _ = text.partition("\n")
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        headings = [heading.strip().casefold() for heading in next(reader, [])]
        if {FILE, INDEX} <= set(headings):
            break
    else:
        raise ValueError(
            f"{where}: expected the columns {FILE}, {INDEX} and, optionally, {NAME}, separated by "
            f"commas, semicolons or tabs; got {header.strip()[:SHOWN]!r}: rename the columns, or "
            "give another layout (--layout folders) to read the folder without the table"
        )
    if len(set(headings)) < len(headings):
        raise ValueError(f"{where}: expected each column once, got {', '.join(headings)}")
    unused = [heading for heading in headings if heading not in (FILE, INDEX, NAME)]
    if unused:
        warnings.warn(f"{where}: the columns {', '.join(unused)} are not used", stacklevel=2)
    for row in reader:
        fields = [field.strip() for field in row]
        if any(fields) and len(fields) != len(headings):
            raise ValueError(
                f"{where}, line {reader.line_num}: expected {len(headings)} fields, got "
                f"{len(fields)}"
            )
        if any(fields):
            yield reader.line_num, dict(zip(headings, fields, strict=True))
