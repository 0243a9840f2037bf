"""Batches of examples, the same ones in the same order for any number of worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from moreaugrad.data.augment import Augment, keyed
from moreaugrad.data.examples import Examples
from moreaugrad.score.noise import KEYS
from moreaugrad.settings import Documented

Request = tuple[int, list[list[int]]]
"""An epoch and, for each piece of a batch, the indices of its examples."""
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
        if count < 0:
            raise ValueError(f"workers: expected a number of processes >= 0, got {count}")
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
        if batch < 1:
            raise ValueError(f"batch: expected at least one example, got {batch}")
        if len(self) == 0:
            raise ValueError(
                f"batch: expected at most the {len(examples)} examples that there are, got {batch}"
            )
        self._workers = Workers(_Maker(examples, augment, seed), workers, pin=pin)

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
        outside = [shard for shard in wanted if not 0 <= shard < shards]
        if outside:
            raise ValueError(f"shard: expected a number from 0 to {shards - 1}, got {outside[0]}")
        order = self.order(epoch)
        requests: list[Request] = []
        for number in range(start, len(self)):
            rows = list(order[number * self.batch : (number + 1) * self.batch])
            cuts = [len(rows) * shard // shards for shard in range(shards + 1)]
            requests.append((epoch, [rows[cuts[shard] : cuts[shard + 1]] for shard in wanted]))
        yield from self._workers(requests)


@dataclass(frozen=True)
class _Maker:
    """Makes whole batches, so that each is one message from a worker."""

    examples: Examples
    augment: Augment
    seed: int

    def __call__(self, request: Request) -> list[Batch]:
        epoch, pieces = request
        return [self._piece(epoch, rows) for rows in pieces]

    def _piece(self, epoch: int, rows: list[int]) -> Batch:
        side, examples = self.augment.size, self.examples
        pixels = np.empty((len(rows), side, side, 3), dtype=np.uint8)
        greys = np.empty((len(rows), 1, side, side), dtype=np.uint8)
        for place, row in enumerate(rows):
            key = int(examples.ids[row])
            image, attention = self.augment(
                examples.pixels(row), seed=self.seed, epoch=epoch, key=key
            )
            pixels[place] = image
            if attention is not None:
                greys[place, 0] = attention
        return Batch(
            torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(255),
            examples.labels[rows],
            examples.ids[rows],
            torch.from_numpy(greys).float().div_(255) if examples.has_attention else None,
        )
