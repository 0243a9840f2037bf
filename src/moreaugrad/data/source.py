"""Sources of images: named files, a data set on disk, or synthetic cells, each as a `DataSet`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moreaugrad.data.cells import CLASS_NAMES, Cells
from moreaugrad.data.dataset import DataSet, Item, files_digest
from moreaugrad.data.images import Picture, find_images, load_image
from moreaugrad.data.layouts import AUTO, WHOLE, open_dataset
from moreaugrad.data.scans import slices_of
from moreaugrad.data.tree import SPLITS, open_tree
from moreaugrad.files.atomic import file_digest
from moreaugrad.files.foreign import FILE_LIMIT, check_named, readable, regular_file
from moreaugrad.registry import choose
from moreaugrad.settings import expect

if TYPE_CHECKING:
    from PIL.Image import Image

FILES, CELLS = "files", "cells"
"""Layouts of the data sets that are not read from a folder or archive."""
TRAIN, VAL, TEST = "train", "val", "test"
CELL_COUNTS = {TRAIN: 4096, VAL: 1024, TEST: 1024}
CELL_SEEDS = {TRAIN: 0, VAL: 2**31, TEST: 2**30}
"""Added to the seed, so that no two parts of the cells have the same image."""
CELL_SIZE = 64


def open_source(
    source: str | Path,
    *,
    layout: str = AUTO,
    split: str | None = None,
    size: int = CELL_SIZE,
    seed: int = 0,
    count: int | None = None,
    min_feature_fraction: float = 0.0,
) -> DataSet:
    """Open a data set: a folder, a zip archive of one, or "cells", drawn when they are loaded.

    layout: one of `LAYOUTS`, or "auto".
    split: "train", "val" or "test". If there is no such part, "test" means "val", and "train" a
    data set without parts. By default the first of "val", "test" and "train" that exists; "test"
    for cells.
    size (in pixels), seed, count, min_feature_fraction: of cells, see `Cells`.
    Errors: ValueError for a source that does not fit.
    """
    if source == CELLS:
        split = choose("split", split or TEST, CELL_COUNTS)
        known = 0 <= seed < min(filter(None, CELL_SEEDS.values()))
        expect(known, "seed", "a number from 0 to 2^30 - 1", seed)
        cells = Cells(
            size=size,
            seed=seed + CELL_SEEDS[split],
            count=CELL_COUNTS[split] if count is None else count,
            min_feature_fraction=min_feature_fraction,
        )
        items = [_cell_item(cells, index) for index in range(len(cells))]
        return _CellSet(layout=CELLS, items=items, classes=CLASS_NAMES, cells=cells)
    check_named("data", source)
    if split is None:
        return open_dataset(source, layout=layout)
    choose("split", split, SPLITS)
    tree = open_tree(source)
    parts = [part for part in SPLITS if tree.has_folder(part)]
    if split == TEST and split not in parts and VAL in parts:
        split = VAL
    try:
        return open_dataset(tree, layout=layout, split=split)
    except ValueError:
        if split != TRAIN or parts:
            raise
        found = open_dataset(tree, layout=layout)
        # In other layouts the training part is named, and damaged: this is another part.
        if found.layout not in WHOLE:
            raise
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _CellSet(DataSet):
    """Synthetic cells with 8 bits; their attention map is the ground truth.

    The map is 102 of 255 on the object and 230 on the feature of its class; an empty image has
    zeros. cells: what is drawn.
    """

    cells: Cells

    def load(self, item: Item) -> Picture:
        from PIL import Image

        return Image.fromarray(_drawn(self.cells, item.name)[0])

    def load_attention(self, item: Item) -> Image:
        from PIL import Image

        return Image.fromarray(_drawn(self.cells, item.name)[1])

    def digest(self, item: Item) -> str:
        return f"size {self.cells.size}, at least {self.cells.min_feature_fraction:g}"


def _cell_item(cells: Cells, index: int) -> Item:
    name, label = f"cell {index} of seed {cells.seed}", cells.label(index)
    return Item(name=name, label=CLASS_NAMES[label], index=label, attention=name)


@lru_cache(maxsize=4)
def _drawn(cells: Cells, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The image and its ground truth; a cache, as they are loaded one after the other."""
    image, _, heat = cells[int(name.split()[1])]
    both = (image.permute(1, 2, 0), heat)
    pixels, truth = ((values.numpy() * 255).round().astype(np.uint8) for values in both)
    return pixels, truth


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedFiles(DataSet):
    """Files that a user named, by files, folders or globs; their classes are not known.

    paths: files by the names of their items.
    """

    paths: dict[str, Path]

    @classmethod
    def of(cls, names: Iterable[str]) -> NamedFiles:
        """The files of `find_images`. Errors: ValueError."""
        return cls.at(find_images(names))

    @classmethod
    def at(cls, found: Iterable[Path]) -> NamedFiles:
        """Files under names that tell them apart."""
        # Those that a configuration cannot name come last: the others have the same places there.
        files = sorted(found, key=lambda file: not _writable(file))
        alike = Counter(file.name for file in files)
        titles = [file.name if alike[file.name] == 1 else _below(file, files) for file in files]
        paths = dict(zip(map(readable, titles), files, strict=True))
        return cls(layout=FILES, items=[Item(name=title) for title in paths], paths=paths)

    def recordable(self, items: Iterable[Item]) -> tuple[str, ...]:
        """The files of items that a configuration, which is in UTF-8, can name."""
        files = (self.paths[item.name] for item in items)
        return tuple(str(file) for file in files if _writable(file))

    def load(self, item: Item) -> Picture:
        return load_image(self.file(item))

    def file(self, item: Item) -> Path:
        """Errors: ValueError for a name that no configuration can have."""
        file = self.paths[item.name]
        if not _writable(file):
            raise ValueError(
                f"{readable(str(file))}: expected a name in UTF-8, to be recorded; "
                "rename the file or its folder"
            )
        return file

    def digest(self, item: Item) -> str:
        try:
            path = self.paths[item.name]
            if path.is_dir():  # the slices of a scan
                return files_digest((one.name, file_digest(one)) for one in slices_of(path))
            return file_digest(regular_file(path, "an image", limit=FILE_LIMIT))
        except (ValueError, OSError):
            return ""


def _writable(file: Path) -> bool:
    return readable(str(file)) == str(file)


def _below(file: Path, files: Sequence[Path]) -> str:
    """The path of a file, relative to the common folder of all."""
    common = os.path.commonpath([other.absolute() for other in files])
    return Path(os.path.relpath(file, common)).as_posix()
