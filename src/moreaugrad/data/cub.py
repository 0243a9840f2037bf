"""CUB-200-2011, and the maps of where people looked at its pictures.

Source: Rong, Xu, Akata and Kasneci, "Human attention in fine-grained classification", BMVC 2021
(arXiv 2111.01628), CUB-GHA as released: `CUB_GHA/<number of the picture>.jpg`.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from moreaugrad.data.dataset import DataSet, Files, Item, class_index
from moreaugrad.data.tree import Tree
from moreaugrad.registry import choose

ROOTS = ("", "CUB_200_2011/")
CLASSES = 200
GAZE = ("CUB_GHA", "All_Fixation", "CUB_GHA/All_Fixation")
"""Folders of gaze maps beside `images`: as the release has them, or as its script writes them."""


def read_cub(tree: Tree, split: str | None) -> DataSet | None:
    """`images.txt`, `image_class_labels.txt` and `train_test_split.txt` beside `images`.

    Where there is a folder of gaze maps, every picture names one: the release lacks a few, and
    reading such a map is an error. Bounding boxes and parts are not read.
    """
    root = next((r for r in ROOTS if tree.has(f"{r}train_test_split.txt")), None)
    if root is None or not tree.has(f"{root}images.txt"):
        return None
    choose("split", split or "test", ("test", "train"))
    wanted = "1" if split == "train" else "0"
    names, labels, parts = (
        _table(tree, f"{root}{name}.txt")
        for name in ("images", "image_class_labels", "train_test_split")
    )
    classes = _table(tree, f"{root}classes.txt") if tree.has(f"{root}classes.txt") else {}
    gaze = next((f"{root}{g}" for g in GAZE if _has_maps(tree, f"{root}{g}")), None)
    tree.check_inside(f"{root}images.txt", list(names.values()), f"{root}images/")
    if gaze:
        tree.check_inside(f"{root}images.txt", [f"{n}.jpg" for n in names], f"{gaze}/")
    items = []
    for number, name in names.items():
        if number not in labels or number not in parts:
            raise ValueError(
                f"{tree.root}: expected a class and a part for picture {number} ({name}) in "
                "image_class_labels.txt and train_test_split.txt"
            )
        if parts[number] == wanted:
            label = labels[number]
            where = str(tree.root / f"{root}image_class_labels.txt")
            folder = PurePosixPath(name).parent.name
            items.append(
                Item(
                    name=f"{root}images/{name}",
                    label=classes.get(label, folder).partition(".")[2].replace("_", " "),
                    index=class_index(label, where, 1, CLASSES) - 1,
                    attention=f"{gaze}/{number}.jpg" if gaze else None,
                )
            )
    return Files(layout="cub", items=sorted(items, key=lambda item: item.name), tree=tree)


def _table(tree: Tree, name: str) -> dict[str, str]:
    """Lines of a number and what it stands for."""
    rows = [line.split(maxsplit=1) for line in tree.lines(name) if line.strip()]
    if any(len(row) != 2 for row in rows):
        raise ValueError(f"{tree.root / name}: expected two words on each line")
    return {number: text.strip() for number, text in rows}


def _has_maps(tree: Tree, folder: str) -> bool:
    return any(name.count("/") == folder.count("/") + 1 for name in tree.files(folder))
