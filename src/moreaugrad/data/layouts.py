"""Data sets as they lie on disk: ImageNet, Tiny-ImageNet, CIFAR-10, CUB-200-2011, folders."""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from moreaugrad.data.catalogue import LAYOUTS
from moreaugrad.data.dataset import DataSet, Files, Item, class_index
from moreaugrad.data.images import SUFFIXES
from moreaugrad.data.tree import Tree, open_tree
from moreaugrad.files.foreign import check_named, parsing
from moreaugrad.registry import choose

AUTO = "auto"
SPLITS = ("val", "test", "train")
"""Looked for in this order: what a network was not trained on first."""
WNID = re.compile(r"n\d{8}")
NUMBERED = re.compile(r"(\d+)-(.+)")
IMAGENET = 1000
MAPS = "maps"


def open_dataset(
    source: str | Path | Tree, *, layout: str = AUTO, split: str | None = None
) -> DataSet:
    """The data set in a folder or a zip archive of one.

    layout: one of `LAYOUTS`, or "auto". split: the part, where there are several ("val", "test",
    "train"); None is the first of these that there is.
    Errors: ValueError for a layout that does not fit, an unknown split, no pictures.
    """
    check_layout(layout)
    check_named("data", source)
    tree = source if isinstance(source, Tree) else open_tree(Path(source))
    for name in LAYOUTS if layout == AUTO else (layout,):
        read = LAYOUTS[name].load()
        with parsing(str(tree.root), f"a data set in the layout {name}"):
            found: DataSet | None = read(tree, split)
        if found is not None and found.items:
            object.__setattr__(found, "layout", name)
            return found
    where = f" in the part {split!r}" if split else ""
    raise ValueError(
        f"{tree.root}: expected pictures{where} in the layout of "
        f"{'one of ' + ', '.join(LAYOUTS) if layout == AUTO else layout}, but found none"
    )


def check_layout(name: str) -> None:
    """Errors: ValueError for a layout that is not known."""
    LAYOUTS.check(name, also=(AUTO,))


def read_tiny_imagenet(tree: Tree, split: str | None) -> DataSet | None:
    """`val/images` with `val/val_annotations.txt`, or `train/WNID/images`; the 200 classes in the
    order of their WordNet numbers, as `ImageFolder` has them."""
    if not tree.has("val/val_annotations.txt"):
        return None
    wnids = sorted(tree.lines("wnids.txt")) if tree.has("wnids.txt") else []
    words = (line.split("\t") for line in _optional(tree, "words.txt") if "\t" in line)
    names = {word[0]: word[1] for word in words}

    def item(name: str, wnid: str) -> Item:
        index = wnids.index(wnid) if wnid in wnids else None
        return Item(name=name, label=names.get(wnid, wnid), index=index)

    choose("split", split or "val", ("val", "train"))
    if split == "train":
        found = [item(n, n.split("/")[1]) for n in _pictures(tree, "train")]
        return Files(layout="tiny-imagenet", items=found, tree=tree)
    rows = _rows(tree, "val/val_annotations.txt", 2, "\t")
    wnids = wnids or sorted({row[1] for row in rows})
    tree.check_inside("val/val_annotations.txt", [row[0] for row in rows], "val/images/")
    found = [item(f"val/images/{row[0]}", row[1]) for row in rows]
    return Files(layout="tiny-imagenet", items=sorted(found, key=_name), tree=tree)


def read_imagenet(tree: Tree, split: str | None) -> DataSet | None:
    """Folders named by WordNet numbers, or the flat validation set beside a list of its classes.

    The class index is the number's place among all 1000, in order; with fewer folders it comes
    from `LOC_synset_mapping.txt`, and is unknown without.
    """
    for part in _parts(tree, split):
        names = _pictures(tree, part)
        wnids = {folder for name in names if WNID.fullmatch(folder := _folder(name))}
        if wnids and all(_folder(name) in wnids for name in names):
            known, words = _synsets(tree, wnids)
            items = [
                Item(name=name, label=words.get(wnid, wnid), index=known.get(wnid))
                for name in names
                for wnid in [_folder(name)]
            ]
            return Files(layout="imagenet", items=items, tree=tree)
        if names and all("ILSVRC2012_val_" in name for name in names):
            classes, words = _flat_classes(tree)
            stems = [PurePosixPath(name).stem for name in names]
            items = [
                Item(name=name, index=classes.get(stem), label=words.get(stem, ""))
                for name, stem in zip(names, stems, strict=True)
            ]
            return Files(layout="imagenet", items=items, tree=tree)
    return None


def _synsets(tree: Tree, wnids: set[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Class indices and words by WordNet number."""
    lines = [line.partition(" ") for line in _optional(tree, "LOC_synset_mapping.txt")]
    listed = sorted(line[0] for line in lines if line[0])
    order = listed or (sorted(wnids) if len(wnids) == IMAGENET else [])
    return {wnid: place for place, wnid in enumerate(order)}, {a: b for a, _, b in lines if b}


def _flat_classes(tree: Tree) -> tuple[dict[str, int], dict[str, str]]:
    """Of the flat validation set: Caffe's `val.txt`, or `LOC_val_solution.csv` with the mapping."""
    if tree.has("val.txt"):
        where = str(tree.root / "val.txt")
        return {
            PurePosixPath(name).stem: class_index(index, where, last=IMAGENET - 1)
            for name, index in _rows(tree, "val.txt", 2)
        }, {}
    known, words = _synsets(tree, set())
    listed = "LOC_val_solution.csv"
    rows = list(csv.DictReader(_optional(tree, listed)))
    if not all(row.get("ImageId") and (row.get("PredictionString") or "").strip() for row in rows):
        raise ValueError(
            f"{tree.root / listed}: expected the columns ImageId and PredictionString, filled in "
            "on each line"
        )
    wnids = {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    indices = {stem: known[wnid] for stem, wnid in wnids.items() if wnid in known}
    return indices, {stem: words.get(wnid, wnid) for stem, wnid in wnids.items()}


def read_folders(tree: Tree, split: str | None) -> DataSet | None:
    """A folder for each class; else pictures without one. See `_classes` for their indices.

    Attention maps of a part lie in `maps/PART`, under the names of their pictures.
    """
    for part in _parts(tree, split):
        names = _pictures(tree, part)
        folder = f"{MAPS}/{part}"
        maps = {n: f"{MAPS}/{n}" for n in names if part} if tree.has_folder(folder) else {}
        depth = part.count("/") + 1 if part else 0
        classes = _classes({_folder(name) for name in names})
        if len(classes) > 1 and all(name.count("/") == depth + 1 for name in names):
            items = [
                Item(name=n, label=label, index=index, attention=maps.get(n))
                for n in names
                for index, label in [classes[_folder(n)]]
            ]
            return Files(layout="folders", items=items, tree=tree)
        if names:
            return Files(layout="folders", items=[Item(name=n) for n in names], tree=tree)
    return None


def _classes(folders: set[str]) -> dict[str, tuple[int, str]]:
    """Index and name of each folder's class: their places in alphabetical order and their names.

    Where all are called NUMBER-NAME, these tell both; hyphens of NAME stand for spaces. Numbers
    that do not begin at 0 give the order alone.
    """
    parts = {folder: found for folder in folders if (found := NUMBERED.fullmatch(folder))}
    told = {folder: (int(found[1]), found[2].replace("-", " ")) for folder, found in parts.items()}
    numbers, names = ({part[place] for part in told.values()} for place in (0, 1))
    if not len(folders) == len(numbers) == len(names):
        return {folder: (place, folder) for place, folder in enumerate(sorted(folders))}
    if 0 in numbers:
        return told
    ordered = sorted(told, key=told.__getitem__)
    return {folder: (place, told[folder][1]) for place, folder in enumerate(ordered)}


def _parts(tree: Tree, split: str | None) -> Iterator[str]:
    """Folders to look for pictures in: that of the split, or all that there are, then the root."""
    if split is not None:
        yield split
        return
    yield from (name for name in SPLITS if tree.has_folder(name))
    yield ""


def _pictures(tree: Tree, below: str) -> list[str]:
    return [n for n in tree.files(below) if posixpath.splitext(n)[1].lower() in SUFFIXES]


def _folder(name: str) -> str:
    return name.rpartition("/")[0].rpartition("/")[2]


def _name(item: Item) -> str:
    return item.name


def _rows(tree: Tree, name: str, count: int, separator: str | None = None) -> list[list[str]]:
    """The first `count` words of each line. Errors: ValueError for a line that has fewer."""
    found = []
    for number, line in enumerate(tree.lines(name), 1):
        words = line.split(separator)
        if line.strip() and len(words) < count:
            raise ValueError(
                f"{tree.root / name}, line {number}: expected {count} words, got {line[:60]!r}"
            )
        if line.strip():
            found.append(words[:count])
    return found


def _optional(tree: Tree, name: str) -> list[str]:
    return tree.lines(name) if tree.has(name) else []


WHOLE = ("listed", "imagenet", "folders")
"""Layouts of sets that may lie without parts."""
