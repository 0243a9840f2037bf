"""Reading a whole set once: what cannot be read is left out, the rest is kept where it fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from moreaugrad.data.augment import Array, Pixels, fitted
from moreaugrad.data.examples import Examples, Subset
from moreaugrad.data.images import Size
from moreaugrad.data.workers import Workers

Progress = Callable[[int, int], None]
SHOWN = 5
BLOCK, CHUNK = 64 * 2**20, 32


class PreparedExamples(Subset):
    """The readable examples of a set, resized, as many of them in memory as fit.

    unreadable: what was left out, and why. kept: how many are in memory.
    """

    def __init__(
        self,
        whole: Examples,
        indices: list[int],
        unreadable: tuple[str, ...],
        resize: Size | None,
        store: Store,
    ) -> None:
        super().__init__(whole, indices)
        self.unreadable, self._resize, self._store = unreadable, resize, store

    @property
    def kept(self) -> int:
        return sum(index in self._store for index in self.indices)

    def pixels(self, index: int) -> Pixels:
        place = self.indices[index]
        return self._store.get(place) or fitted(self.whole.pixels(place), self._resize)


def prepare(
    examples: Examples,
    *,
    resize: Size | None = None,
    memory: float = 4e9,
    max_unreadable: float = 0.01,
    workers: int = 0,
    progress: Progress | None = None,
) -> PreparedExamples:
    """Reads every picture and attention map of a set once.

    resize: as `Augment.first`; pictures are kept at that size, and resizing them again changes
    nothing. memory: bytes to keep them in; what does not fit is read again each time.
    max_unreadable: the largest share of pictures that may be left out.
    workers: processes that read; 0 is this one. progress: called with (pictures read, all).
    Errors: ValueError that names the first files, where too many cannot be read, an attention map
    is of another size than its picture, or zero everywhere though others of its class are not (a
    class without an object, like the empty cells, has no attention at all).
    """
    store, readable = Store(memory), list[int]()
    failed, blank = list[str](), dict[int, bool]()
    count = len(examples)
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    reading = Workers(_ExampleReader(examples, resize), workers)(chunks)
    for index, found in enumerate(found for chunk in reading for found in chunk):
        if isinstance(found, str):
            failed.append(found)
        else:
            readable.append(index)
            store.add(index, found)
            if found[1] is not None:
                blank[index] = not found[1].any()
        if progress is not None:
            progress(index + 1, count)
    if len(failed) > max_unreadable * count:
        raise ValueError(
            f"{len(failed)} of the {count} pictures of {examples.name} cannot be read, "
            f"more than the {max_unreadable:.2%} allowed: {_first(failed)}"
        )
    _refuse_blank(examples, blank)
    if not readable:
        raise ValueError(f"{examples.name}: expected at least one picture")
    return PreparedExamples(examples, readable, tuple(failed), resize, store)


@dataclass(frozen=True)
class _ExampleReader:
    """Reads examples; of one that cannot be read, the reason."""

    examples: Examples
    resize: Size | None

    def __call__(self, indices: Sequence[int]) -> list[Pixels | str]:
        return [self._read(index) for index in indices]

    def _read(self, index: int) -> Pixels | str:
        try:
            picture, attention = self.examples.pixels(index)
        except ValueError as error:
            return str(error)
        height, width = picture.shape[:2]
        if attention is not None and attention.shape != (height, width):
            raise ValueError(
                f"{self.examples.describe(index)}: expected an attention map of the picture's "
                f"{width} x {height} pixels, got one of "
                f"{attention.shape[1]} x {attention.shape[0]}"
            )
        try:
            return fitted((picture, attention), self.resize)
        except ValueError as error:  # it is too long for its width
            return f"{self.examples.describe(index)}: {error}"


def _refuse_blank(examples: Examples, blank: dict[int, bool]) -> None:
    seen = {int(examples.labels[index]) for index, empty in blank.items() if not empty}
    wrong = [i for i, empty in blank.items() if empty and int(examples.labels[i]) in seen]
    if wrong:
        names = [examples.describe(index) for index in wrong]
        raise ValueError(
            f"expected attention maps with values above 0, but {len(wrong)} are zero everywhere: "
            f"{_first(names)}"
        )


def _first(names: list[str]) -> str:
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more


class Store:
    """Pictures in large blocks of memory, which forked worker processes share untouched."""

    def __init__(self, memory: float) -> None:
        self._left = int(memory)
        self._block, self._used = np.empty(0, dtype=np.uint8), 0
        self._kept: dict[int, Pixels] = {}

    def __contains__(self, key: int) -> bool:
        return key in self._kept

    def add(self, key: int, pixels: Pixels) -> None:
        """Keeps both unless memory is used up."""
        picture, attention = pixels
        size = picture.nbytes + (0 if attention is None else attention.nbytes)
        if size <= self._left:
            self._left -= size
            kept = None if attention is None else self._put(attention)
            self._kept[key] = (self._put(picture), kept)

    def get(self, key: int) -> Pixels | None:
        return self._kept.get(key)

    def _put(self, pixels: Array) -> Array:
        if self._used + pixels.nbytes > len(self._block):
            self._block = np.empty(max(BLOCK, pixels.nbytes), dtype=np.uint8)
            self._used = 0
        start, self._used = self._used, self._used + pixels.nbytes
        kept = self._block[start : self._used].reshape(pixels.shape)
        kept[...] = pixels
        kept.flags.writeable = False
        return kept
