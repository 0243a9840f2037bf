"""The layouts of published data sets: ImageNet, Tiny-ImageNet, CIFAR-10 and CUB-200-2011."""

from __future__ import annotations

import csv
import hashlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from moreaugrad.data.dataset import DataSet, Files, Item, class_index
from moreaugrad.data.gaze import FIXATIONS, FixatedFiles, read_fixations
from moreaugrad.data.tree import Tree
from moreaugrad.files.foreign import parsing
from moreaugrad.registry import choose

if TYPE_CHECKING:
    from PIL.Image import Image

WNID = re.compile(r"n\d{8}")
IMAGENET = 1000
SIDE = 32
"""Pixels of CIFAR-10."""
GAZE = ("CUB_GHA", "All_Fixation", "CUB_GHA/All_Fixation")
"""Folders of gaze maps next to `images`: as the release has them, or as its script writes them."""


def read_tiny_imagenet(tree: Tree, split: str | None) -> DataSet | None:
    """`val/images` with `val/val_annotations.txt`, or `train/WNID/images`.

    The 200 classes are in the order of their WordNet numbers, as `ImageFolder` has them.
    """
    if not tree.has("val/val_annotations.txt"):
        return None
    wnids = sorted(tree.lines("wnids.txt")) if tree.has("wnids.txt") else []
    words = (line.split("\t") for line in tree.lines("words.txt", missing_ok=True) if "\t" in line)
    names = {word[0]: word[1] for word in words}

    def item(name: str, wnid: str) -> Item:
        index = wnids.index(wnid) if wnid in wnids else None
        return Item(name=name, label=names.get(wnid, wnid), index=index)

    choose("split", split or "val", ("val", "train"))
    if split == "train":
        found = [item(n, n.split("/")[1]) for n in tree.images("train")]
        return Files(layout="tiny-imagenet", items=found, tree=tree)
    rows = tree.rows("val/val_annotations.txt", 2, "\t")
    wnids = wnids or sorted({row[1] for row in rows})
    tree.check_inside("val/val_annotations.txt", [row[0] for row in rows], "val/images/")
    found = [item(f"val/images/{row[0]}", row[1]) for row in rows]
    return Files(layout="tiny-imagenet", items=sorted(found, key=lambda item: item.name), tree=tree)


def read_imagenet(tree: Tree, split: str | None) -> DataSet | None:
    """Folders named by WordNet numbers, or the flat validation set with a list of its classes.

    The class index is the place of the number among all 1000 in order. With fewer folders it comes
    from `LOC_synset_mapping.txt`; without that file it is not known.
    """
    for part in tree.parts(split):
        names = tree.images(part)
        folders = {name: PurePosixPath(name).parent.name for name in names}
        if names and all(map(WNID.fullmatch, folders.values())):
            known, words = _synsets(tree, set(folders.values()))
            items = [
                Item(name=name, label=words.get(wnid, wnid), index=known.get(wnid))
                for name, wnid in folders.items()
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
    lines = [line.partition(" ") for line in tree.lines("LOC_synset_mapping.txt", missing_ok=True)]
    listed = sorted(line[0] for line in lines if line[0])
    order = listed or (sorted(wnids) if len(wnids) == IMAGENET else [])
    return {wnid: place for place, wnid in enumerate(order)}, {a: b for a, _, b in lines if b}


def _flat_classes(tree: Tree) -> tuple[dict[str, int], dict[str, str]]:
    """Indices and words by file stem: from Caffe's `val.txt`, or `LOC_val_solution.csv`."""
    if tree.has("val.txt"):
        where = str(tree.root / "val.txt")
        return {
            PurePosixPath(name).stem: class_index(index, where, last=IMAGENET - 1)
            for name, index in tree.rows("val.txt", 2)
        }, {}
    known, words = _synsets(tree, set())
    listed = "LOC_val_solution.csv"
    rows = list(csv.DictReader(tree.lines(listed, missing_ok=True)))
    if not all(row.get("ImageId") and (row.get("PredictionString") or "").strip() for row in rows):
        raise ValueError(
            f"{tree.root / listed}: expected the columns ImageId and PredictionString, filled in "
            "on each line"
        )
    wnids = {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    indices = {stem: known[wnid] for stem, wnid in wnids.items() if wnid in known}
    return indices, {stem: words.get(wnid, wnid) for stem, wnid in wnids.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cifar10(DataSet):
    """pixels: `[32, 32, 3]` for each name."""

    pixels: Mapping[str, np.ndarray] = field(repr=False)

    def load(self, item: Item) -> Image:
        from PIL import Image

        return Image.fromarray(self.pixels[item.name])

    def digest(self, item: Item) -> str:
        return hashlib.sha256(self.pixels[item.name].tobytes()).hexdigest()


def read_cifar10(tree: Tree, split: str | None) -> DataSet | None:
    """The pickled batches of "CIFAR-10 python version", in the folder or its only subfolder.

    No code in the pickles is run.
    """
    inside = next((p for p in ("", "cifar-10-batches-py/") if tree.has(f"{p}test_batch")), None)
    if inside is None:
        return None
    choose("split", split or "test", ("test", "train"))
    numbers = range(1, 6)
    wanted = [f"data_batch_{n}" for n in numbers] if split == "train" else ["test_batch"]
    meta = _batch(tree, f"{inside}batches.meta") if tree.has(f"{inside}batches.meta") else {}
    names = [name.decode() for name in _column(meta, b"label_names")]
    items, pixels = [], {}
    for batch in wanted:
        if not tree.has(inside + batch):
            raise ValueError(f"{tree.root}: expected the batch {batch}, but it is missing")
        where = str(tree.root / inside / batch)
        found = _batch(tree, inside + batch)
        with parsing(where, "pixels and labels of CIFAR-10"):
            planes = np.asarray(found[b"data"]).reshape(-1, 3, SIDE, SIDE)
            if planes.dtype != np.uint8:
                raise ValueError(f"got pixels of type {planes.dtype}")
            for place, (plane, index) in enumerate(zip(planes, found[b"labels"], strict=True)):
                known = class_index(index, where, last=9)
                label = names[known] if known < len(names) else ""
                item = Item(name=f"{batch}/{place:05d}", label=label, index=known)
                items.append(item)
                pixels[item.name] = plane.transpose(1, 2, 0)
    return _Cifar10(layout="cifar10", items=items, pixels=pixels)


def _column(table: Mapping[bytes, Any], name: bytes) -> list[bytes]:
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(item, bytes) for item in found):
        raise ValueError(f"batches.meta: expected a list of names as {name.decode()}")
    return found


class _Arrays(pickle.Unpickler):
    """Reads lists, numbers, text and arrays; refuses a pickle that names anything else."""

    def find_class(self, module: str, name: str) -> Any:
        import _codecs

        if (module, name) == ("_codecs", "encode"):
            return _codecs.encode
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
            rebuild = np.zeros(0).__reduce__()[0]
            known: dict[str, Any] = {
                "_reconstruct": rebuild, "ndarray": np.ndarray, "dtype": np.dtype,
            }  # fmt: skip
            if name in known:
                return known[name]
        raise ValueError(f"expected arrays alone, got {module}.{name}")


def _batch(tree: Tree, name: str) -> dict[bytes, Any]:
    with parsing(str(tree.root / name), "a batch of CIFAR-10"), tree.open(name) as file:
        found = _Arrays(file, encoding="bytes").load()
        if not isinstance(found, dict):
            raise ValueError(f"got a {type(found).__name__} instead of a dictionary")
        return found


def read_cub(tree: Tree, split: str | None) -> DataSet | None:
    """CUB-200-2011: `images`, `images.txt`, `image_class_labels.txt` and `train_test_split.txt`.

    With a folder of gaze maps (`NUMBER.jpg` or `.png`), or else with `fixations.csv`, every image
    has a map: where one is lacking, reading it is an error. Bounding boxes and parts are not read.

    Source of the maps: Rong, Xu, Akata and Kasneci, "Human attention in fine-grained
    classification", BMVC 2021 (arXiv 2111.01628), CUB-GHA as released:
    `CUB_GHA/<number of the image>.jpg`.
    """
    root = next((r for r in ("", "CUB_200_2011/") if tree.has(f"{r}train_test_split.txt")), None)
    if root is None or not tree.has(f"{root}images.txt"):
        return None
    choose("split", split or "test", ("test", "train"))
    wanted = "1" if split == "train" else "0"
    names, labels, parts = (
        dict(tree.rows(f"{root}{name}.txt", 2, maxsplit=1))
        for name in ("images", "image_class_labels", "train_test_split")
    )
    classes = dict(tree.rows(f"{root}classes.txt", 2, maxsplit=1, missing_ok=True))
    folders = {str(PurePosixPath(name).parent) for name in tree.images(root.rstrip("/"))}
    gaze = next((f"{root}{g}" for g in GAZE if f"{root}{g}" in folders), None)
    tree.check_inside(f"{root}images.txt", list(names.values()), f"{root}images/")
    maps, fixations = dict[str, str](), None
    if gaze:
        tree.check_inside(f"{root}images.txt", [f"{n}.jpg" for n in names], f"{gaze}/")
        png = {n for n in names if tree.has(f"{gaze}/{n}.png")}
        maps = {n: f"{gaze}/{n}.{'png' if n in png else 'jpg'}" for n in names}
    else:
        files = {number: f"{root}images/{name}" for number, name in names.items()}
        fixations = read_fixations(tree, root, files)
        if fixations is not None:
            maps = dict.fromkeys(names, f"{root}{FIXATIONS}")
    items = []
    for number, name in names.items():
        if number not in labels or number not in parts:
            raise ValueError(
                f"{tree.root}: expected a class and a part for image {number} ({name}) in "
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
                    index=class_index(label, where, 1, 200) - 1,
                    attention=maps.get(number),
                )
            )
    items.sort(key=lambda item: item.name)
    if fixations is None:
        return Files(layout="cub", items=items, tree=tree)
    return FixatedFiles(layout="cub", items=items, tree=tree, fixations=fixations)
