"""Reading examples: all of them once, and then in batches, by any number of worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from moreaugrad.data.augment import Augment, Pixels, fitted, keyed
from moreaugrad.data.examples import Examples
from moreaugrad.data.images import Size
from moreaugrad.files.foreign import some
from moreaugrad.score.noise import KEYS
from moreaugrad.settings import Documented, expect

Request = tuple[int, list[list[int]]]
"""An epoch and, for each piece of a batch, the indices of its examples."""
Progress = Callable[[int, int], None]
CHUNK = 32
"""Images that are read as one request."""
Q = TypeVar("Q")
A = TypeVar("A")


def ranges(count: int, size: int) -> list[range]:
    """The numbers below `count` in runs of `size`, as requests to `Workers`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class Workers(Generic[Q, A]):
    """Answer requests in other processes, in order and a few ahead; a `DataLoader` transports them.

    count: number of processes, which are kept for the next requests; 0 is this process.
    pin: put tensors into page-locked memory.
    Errors: a ValueError that `answer` raises, unchanged, in place of its answer.
    """

    def __init__(self, answer: Callable[[Q], A], count: int = 0, *, pin: bool = False) -> None:
        expect(count >= 0, "workers", "a number of processes >= 0", count)
        self._requests: _Requests[Q] = _Requests()
        self._loader: DataLoader[A | ValueError] = DataLoader(
            _Answers(answer),
            batch_size=None,
            sampler=self._requests,
            num_workers=count,
            collate_fn=_as_it_is,
            pin_memory=pin,
            persistent_workers=count > 0,
            # Without one, the loader would use the global generator.
            generator=torch.Generator().manual_seed(0),
        )

    def __call__(self, requests: Sequence[Q]) -> Iterator[A]:
        """The answers; read or close one iterator before the next call."""
        self._requests.now = requests
        for answer in self._loader:
            if isinstance(answer, ValueError):
                raise answer
            yield answer


class _Requests(Sampler[Q]):
    def __init__(self) -> None:
        self.now: Sequence[Q] = ()

    def __iter__(self) -> Iterator[Q]:
        return iter(self.now)

    def __len__(self) -> int:
        return len(self.now)


class _Answers(Dataset[A | ValueError], Generic[Q, A]):
    def __init__(self, answer: Callable[[Q], A]) -> None:
        self.answer = answer

    def __getitem__(self, request: Q) -> A | ValueError:
        try:
            return self.answer(request)
        except ValueError as error:  # Raised in a worker, its message would be pages long.
            return error


def _as_it_is(answer: A) -> A:
    return answer


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
    kept, left = dict[int, Pixels](), memory
    readable, failed, blank = list[int](), list[str](), dict[int, bool]()
    count = len(examples)
    reading = Workers(partial(_read, examples, resize), workers)(ranges(count, CHUNK))
    for index, found in enumerate(found for chunk in reading for found in chunk):
        if isinstance(found, str):
            failed.append(found)
        else:
            readable.append(index)
            parts = [part for part in found if part is not None]
            if len(parts) == 2:
                blank[index] = not parts[1].any()
            if (size := sum(part.nbytes for part in parts)) <= left:
                left -= size
                kept[int(examples.ids[index])] = found
                for part in parts:
                    part.flags.writeable = False
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
    read = partial(_kept_or_read, kept, examples.read, resize)
    return replace(examples.subset(readable), read=read, unreadable=tuple(failed))


def _kept_or_read(
    kept: Mapping[int, Pixels], read: Callable[[int], Pixels], resize: Size | None, key: int
) -> Pixels:
    return kept.get(key) or fitted(read(key), resize)


def _read(examples: Examples, resize: Size | None, indices: Sequence[int]) -> list[Pixels | str]:
    """Images and maps, resized; an error message instead of one that cannot be read."""
    return [_read_one(examples, resize, index) for index in indices]


def _read_one(examples: Examples, resize: Size | None, index: int) -> Pixels | str:
    try:
        image, attention = examples.pixels(index)
    except ValueError as error:
        return str(error)
    name, (height, width) = examples.describe(index), image.shape[:2]
    if attention is not None and attention.shape != (height, width):
        raise ValueError(
            f"{name}: expected an attention map of the image's {width} x {height} pixels, got one "
            f"of {attention.shape[1]} x {attention.shape[0]}"
        )
    try:
        return fitted((image, attention), resize)
    except ValueError as error:  # it is too long for its width
        return f"{name}: {error}"


def _refuse_blank(examples: Examples, blank: dict[int, bool]) -> None:
    seen = {int(examples.labels[index]) for index, empty in blank.items() if not empty}
    wrong = [i for i, empty in blank.items() if empty and int(examples.labels[i]) in seen]
    if wrong:
        names = [examples.describe(index) for index in wrong]
        raise ValueError(
            f"expected attention maps with values above 0, but {len(wrong)} are zero everywhere: "
            f"{some(names, '; ')}"
        )


@dataclass(frozen=True)
class Batch(metaclass=Documented, heading="Attributes"):
    """A batch of examples.

    >>> batch = mg.data.Batch(x, y, ids=torch.tensor([0]))
    """

    x: Tensor
    """Images `[B, 3, S, S]` in [0, 1], float32."""
    y: Tensor
    """Labels `[B]`, int64."""
    ids: Tensor
    """The index of each example in the whole data set, `[B]`, int64."""
    attention: Tensor | None = None
    """Maps `[B, 1, S, S]` in [0, 1], float32; None for a data set without maps."""

    def __len__(self) -> int:
        return len(self.x)

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory; the `DataLoader` calls it."""
        attention = None if self.attention is None else self.attention.pin_memory()
        return Batch(self.x.pin_memory(), self.y.pin_memory(), self.ids.pin_memory(), attention)


class Loader:
    """Examples in batches, in an order that is a function of (seed, epoch).

    examples, augment: the images, and how each is changed. batch: examples in a batch.
    shuffle: False keeps the order of the examples, for evaluation.
    drop_last: leave out the last batch if it is not full; by default only when shuffling.
    workers: processes that make batches; 0 is this process. pin: page-locked memory, for a GPU.
    Errors: ValueError if there is not a single batch.

    >>> examples = mg.data.open_examples("cells", size=32, count=8)
    >>> loader = mg.data.Loader(examples, mg.data.Augment(size=32), batch=4)
    >>> shapes = [batch.x.shape for batch in loader.epoch(0)]
    """

    def __init__(
        self,
        examples: Examples,
        augment: Augment,
        *,
        batch: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool | None = None,
        workers: int = 0,
        pin: bool = False,
    ) -> None:
        self.examples, self.augment, self.batch, self.seed = examples, augment, batch, seed
        self.shuffle = shuffle
        self.drop_last = shuffle if drop_last is None else drop_last
        expect(batch >= 1, "batch", "at least one example", batch)
        known = f"at most the {len(examples)} examples that there are"
        expect(len(self) > 0, "batch", known, batch)
        self._workers = Workers(partial(_pieces, examples, augment, seed), workers, pin=pin)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        whole, rest = divmod(len(self.examples), self.batch)
        return whole + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> Sequence[int]:
        """Indices of the examples of an epoch, in order."""
        count = len(self.examples)
        if not self.shuffle:
            return range(count)
        shuffled: list[int] = keyed(self.seed, epoch, KEYS).permutation(count).tolist()
        return shuffled

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from number `start` on."""
        for (batch,) in self.pieces(epoch, (0,), 1, start=start):
            yield batch

    def pieces(
        self, epoch: int, wanted: Sequence[int], shards: int, *, start: int = 0
    ) -> Iterator[list[Batch]]:
        """For each batch of an epoch, the pieces with the numbers in `wanted`.

        A batch is cut into `shards` runs of rows, whose lengths differ by at most one. Read one
        epoch at a time.
        """
        for shard in wanted:
            expect(0 <= shard < shards, "shard", f"a number from 0 to {shards - 1}", shard)
        order = self.order(epoch)
        requests: list[Request] = []
        for number in range(start, len(self)):
            rows = list(order[number * self.batch : (number + 1) * self.batch])
            cuts = [len(rows) * shard // shards for shard in range(shards + 1)]
            requests.append((epoch, [rows[cuts[shard] : cuts[shard + 1]] for shard in wanted]))
        yield from self._workers(requests)


def _pieces(examples: Examples, augment: Augment, seed: int, request: Request) -> list[Batch]:
    """All pieces of a batch, so that they are one message from a worker."""
    epoch, pieces = request
    return [_piece(examples, augment, seed, epoch, rows) for rows in pieces]


def _piece(
    examples: Examples, augment: Augment, seed: int, epoch: int, rows: Sequence[int]
) -> Batch:
    side = augment.size
    images = np.empty((len(rows), side, side, 3), dtype=np.uint8)
    maps = np.zeros((len(rows), 1, side, side), dtype=np.uint8)
    for place, row in enumerate(rows):
        key = int(examples.ids[row])
        images[place], attention = augment(examples.pixels(row), seed=seed, epoch=epoch, key=key)
        if attention is not None:
            maps[place, 0] = attention
    return Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div_(255),
        examples.labels[rows],
        examples.ids[rows],
        torch.from_numpy(maps).float().div_(255) if examples.has_attention else None,
    )
