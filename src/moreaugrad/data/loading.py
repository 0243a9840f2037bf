"""Batches of examples: the same ones in the same order, however many processes make them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moreaugrad.data.augment import Augment, keyed
from moreaugrad.data.examples import Examples
from moreaugrad.data.workers import Workers
from moreaugrad.score.noise import KEYS

Request = tuple[int, list[list[int]]]
"""An epoch and, for each piece of a batch, which examples it holds."""


@dataclass(frozen=True)
class Batch:
    """x `[B, 3, S, S]` float32 in [0, 1], y `[B]` and ids `[B]` int64, attention `[B, 1, S, S]`.

    ids: each example's place in the whole set. attention: in [0, 1]; None in a set without.
    """

    x: Tensor
    y: Tensor
    ids: Tensor
    attention: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def pin_memory(self) -> Batch:
        attention = None if self.attention is None else self.attention.pin_memory()
        return Batch(self.x.pin_memory(), self.y.pin_memory(), self.ids.pin_memory(), attention)


class Loader:
    """Examples in batches, in an order that is a function of (seed, epoch).

    shuffle: else as they lie, for evaluation. drop_last: without the last batch where it is not
    full; by default when shuffled. workers: processes that make batches; 0 is this one. pin: into
    page-locked memory, for a GPU.
    Errors: ValueError for no batch at all.
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
        """Batches in an epoch."""
        whole, rest = divmod(len(self.examples), self.batch)
        return whole + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> Sequence[int]:
        """The examples of an epoch, first to last."""
        count = len(self.examples)
        if not self.shuffle:
            return range(count)
        shuffled: list[int] = keyed(self.seed, epoch, KEYS).permutation(count).tolist()
        return shuffled

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """All batches from number `start` on."""
        for (batch,) in self.pieces(epoch, (0,), 1, start=start):
            yield batch

    def pieces(
        self, epoch: int, wanted: Sequence[int], shards: int, *, start: int = 0
    ) -> Iterator[list[Batch]]:
        """Of each batch, cut into `shards` runs of rows whose lengths differ by at most one, those
        with these numbers. Read one epoch at a time."""
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
    """Makes whole batches, so that one message brings each from its worker."""

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
            picture, attention = self.augment(
                examples.pixels(row), seed=self.seed, epoch=epoch, key=key
            )
            pixels[place] = picture
            if attention is not None:
                greys[place, 0] = attention
        return Batch(
            torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(255),
            examples.labels[rows],
            examples.ids[rows],
            torch.from_numpy(greys).float().div_(255) if examples.has_attention else None,
        )
