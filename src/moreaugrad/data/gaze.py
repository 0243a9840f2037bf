"""Attention maps of human gaze, from recorded fixations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from moreaugrad.data.dataset import Files, Item
from moreaugrad.data.tree import Tree
from moreaugrad.files.foreign import parsing
from moreaugrad.settings import expect

FIXATIONS, SIZES = "fixations.csv", "sizes.csv"
HEADS = {
    FIXATIONS: ("image_id", "x", "y", "milliseconds"),
    SIZES: ("image_id", "original_width", "original_height"),
}
LEAST = 100.0
"""Milliseconds of a fixation that counts."""
SPREAD = 75 / 1080
"""Standard deviation of a fixation's Gaussian, as a fraction of the image's height."""

Point = tuple[float, float, float]
"""x and y, as fractions of the width and height or in pixels, and milliseconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fixations:
    """What people looked at in an image. size: width and height that the points are in, in pixels;
    None for those of the image itself."""

    points: Sequence[Point]
    size: tuple[float, float] | None

    def map(self, width: int, height: int) -> Image.Image | None:
        """A sum of Gaussians, weighted by how long each fixation lasted, as an image in grey of
        that size whose largest value is 255; None where all of them are far outside.

        Source: the released script of CUB-GHA. Differs: the last fixation counts too, and no short
        one does.
        """
        across, down = self.size or (width, height)
        deviation = SPREAD * height
        total = np.zeros((height, width))
        for x, y, weight in self.points:
            rows, columns = (
                np.exp(-(((np.arange(length) - at * length / given) / deviation) ** 2) / 2)
                for at, length, given in ((y, height, down), (x, width, across))
            )
            total += weight * np.outer(rows, columns)
        top = total.max()
        if not top > 0:
            return None
        return Image.fromarray((255 * total / top).round().astype(np.uint8))


@dataclass(frozen=True, kw_only=True, eq=False)
class FixatedFiles(Files):
    """Files whose attention maps are made of fixations, by the names of the images."""

    fixations: Mapping[str, Fixations]

    def digest(self, item: Item) -> str:
        own = repr(self.fixations.get(item.name))
        return f"{self.tree.digest(item.name)} {hashlib.sha256(own.encode()).hexdigest()[:16]}"

    def load_attention(self, item: Item) -> Image.Image | None:
        """Errors: ValueError for an image that nobody fixated for long enough."""
        if item.attention is None:
            return None
        own = self.fixations.get(item.name)
        found = None if own is None else own.map(*self.load(item).size)
        if found is None:
            raise ValueError(
                f"{self.tree.root / item.attention}: expected fixations in {item.name} of at "
                f"least {LEAST:g} ms, got none"
            )
        return found


def read_fixations(tree: Tree, root: str, names: Mapping[str, str]) -> dict[str, Fixations] | None:
    """Of images by name, from `fixations.csv` and perhaps `sizes.csv`; None without the first.

    names: of the images, by number. Errors: ValueError for a table without the columns, and for an
    image whose size is not in the other one.
    """
    if not tree.has(f"{root}{FIXATIONS}"):
        return None
    sizes = {
        number: (float(width), float(height))
        for number, width, height in _table(tree, root, SIZES, missing_ok=True)
    }
    where, points = str(tree.root / f"{root}{SIZES}"), dict[str, list[Point]]()
    for number, *words in _table(tree, root, FIXATIONS):
        x, y, milliseconds = map(float, words)
        if number in names and milliseconds >= LEAST:
            points.setdefault(number, []).append((x, y, milliseconds))
    for number in points if sizes else ():
        size = sizes.get(number)
        known = size is not None and min(size) > 0
        expect(known, where, f"width and height > 0 of image {number}", size)
    return {
        names[number]: Fixations(points=own, size=sizes.get(number))
        for number, own in points.items()
    }


def _table(tree: Tree, root: str, name: str, *, missing_ok: bool = False) -> list[list[str]]:
    """The columns of `HEADS` of a table with a first line of names. Numbers are checked."""
    lines = [line for line in tree.lines(f"{root}{name}", missing_ok=missing_ok) if line.strip()]
    if missing_ok and not lines:
        return []
    where, found = str(tree.root / f"{root}{name}"), []
    with parsing(where, f"a table with the columns {', '.join(HEADS[name])} and numbers in it"):
        head, *rows = [line.split(",") for line in lines]
        places = [head.index(column) for column in HEADS[name]]
        for row in rows:
            words = [row[place].strip() for place in places]
            if not all(np.isfinite(float(word)) for word in words[1:]):
                raise ValueError(f"got {row}")
            found.append(words)
    return found
