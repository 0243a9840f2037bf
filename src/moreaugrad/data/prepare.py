"""Reading a data set once: unreadable images are left out, the others are kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moreaugrad.data.augment import Array, Pixels, fitted
from moreaugrad.data.examples import Examples
from moreaugrad.data.images import Size
from moreaugrad.data.loading import Workers, ranges
from moreaugrad.files.names import some

Progress = Callable[[int, int], None]
BLOCK, CHUNK = 64 * 2**20, 32


def prepare(
    examples: Examples,
    *,
    resize: Size | None = None,
    memory: float = 4e9,
    max_unreadable: float = 0.01,
    workers: int = 0,
    progress: Progress | None = None,
) -> Examples:
    """Read every image and attention map once; returns the readable ones, which are then resized.

    resize: as in `Augment.first`; images are kept at that size, and resizing them again changes
    nothing. memory: bytes to keep images in; the others are read again each time.
    max_unreadable: largest fraction of images that may be left out; they are listed in
    `unreadable` of the result.
    workers: processes that read; 0 is this process. progress: called with (images read, all).
    Errors: ValueError that names the first files, if too many cannot be read, if an attention map
    has another size than its image, or if it is zero everywhere although others of its class are
    not (a class without an object, like the empty cells, has no attention at all).

    >>> examples = mg.data.prepare(mg.data.open_examples("cells", size=32, count=8))
    """
    store, readable = _Store(examples.read, resize, memory), list[int]()
    failed, blank = list[str](), dict[int, bool]()
    count = len(examples)
    reading = Workers(_ExampleReader(examples, resize), workers)(ranges(count, CHUNK))
    for index, found in enumerate(found for chunk in reading for found in chunk):
        if isinstance(found, str):
            failed.append(found)
        else:
            readable.append(index)
            store.add(int(examples.ids[index]), found)
            if found[1] is not None:
                blank[index] = not found[1].any()
        if progress is not None:
            progress(index + 1, count)
    if len(failed) > max_unreadable * count:
        raise ValueError(
            f"{len(failed)} of the {count} images of {examples.name} cannot be read, "
            f"more than the {max_unreadable:.2%} allowed: {some(failed, '; ')}"
        )
    _refuse_blank(examples, blank)
    if not readable:
        raise ValueError(f"{examples.name}: expected at least one image")
    return replace(examples.subset(readable), read=store.read, unreadable=tuple(failed))


@dataclass(frozen=True)
class _ExampleReader:
    """Reads examples; returns an error message for one that cannot be read."""

    examples: Examples
    resize: Size | None

    def __call__(self, indices: Sequence[int]) -> list[Pixels | str]:
        return [self._read(index) for index in indices]

    def _read(self, index: int) -> Pixels | str:
        try:
            image, attention = self.examples.pixels(index)
        except ValueError as error:
            return str(error)
        height, width = image.shape[:2]
        if attention is not None and attention.shape != (height, width):
            raise ValueError(
                f"{self.examples.describe(index)}: expected an attention map of the image's "
                f"{width} x {height} pixels, got one of "
                f"{attention.shape[1]} x {attention.shape[0]}"
            )
        try:
            return fitted((image, attention), self.resize)
        except ValueError as error:  # it is too long for its width
            return f"{self.examples.describe(index)}: {error}"


def _refuse_blank(examples: Examples, blank: dict[int, bool]) -> None:
    seen = {int(examples.labels[index]) for index, empty in blank.items() if not empty}
    wrong = [i for i, empty in blank.items() if empty and int(examples.labels[i]) in seen]
    if wrong:
        names = [examples.describe(index) for index in wrong]
        raise ValueError(
            f"expected attention maps with values above 0, but {len(wrong)} are zero everywhere: "
            f"{some(names, '; ')}"
        )


class _Store:
    """Images by id, kept in large blocks of memory, which forked workers share without copies."""

    def __init__(self, read: Callable[[int], Pixels], resize: Size | None, memory: float) -> None:
        self._read, self._resize, self._left = read, resize, int(memory)
        self._block, self._used = np.empty(0, dtype=np.uint8), 0
        self._kept: dict[int, Pixels] = {}

    def read(self, key: int) -> Pixels:
        """Image and map, resized."""
        return self._kept.get(key) or fitted(self._read(key), self._resize)

    def add(self, key: int, pixels: Pixels) -> None:
        """Keep both unless the memory is used up."""
        image, attention = pixels
        size = image.nbytes + (0 if attention is None else attention.nbytes)
        if size <= self._left:
            self._left -= size
            self._kept[key] = self._put(image), None if attention is None else self._put(attention)

    def _put(self, pixels: Array) -> Array:
        if self._used + pixels.nbytes > len(self._block):
            self._block = np.empty(max(BLOCK, pixels.nbytes), dtype=np.uint8)
            self._used = 0
        start, self._used = self._used, self._used + pixels.nbytes
        kept = self._block[start : self._used].reshape(pixels.shape)
        kept[...] = pixels
        kept.flags.writeable = False
        return kept
