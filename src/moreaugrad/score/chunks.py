"""How many network passes are done at once, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")

# Entries of the input in one pass: 16 photos of 3 x 224 x 224, 128 images of 3 x 32 x 32. Larger
# chunks are slower per sample on a CPU (page faults and cache misses of big activations) and
# gain nothing; an accelerator wants more.
CPU_ENTRIES, CPU_MOST = 2_500_000, 128
DEVICE_ENTRIES, DEVICE_MOST = 40_000_000, 2048
# Bytes of activations in one pass on a CPU, once they are known: networks of tables fill the first
# with thousands of rows, and no network takes more than the second.
CPU_FULL, CPU_LARGEST = 100_000_000, 2_000_000_000


@dataclass(eq=False)
class Chunks:
    """The chunk size shared by all parts of one computation; it shrinks when memory runs out.

    most: rows that `fit` may go up to; None keeps the size, which the user has set.
    """

    size: int
    most: int | None = None

    @classmethod
    def of(cls, batch_size: int | None, like: Tensor) -> Chunks:
        """`batch_size`, or a size from the device and the entries of a row of `like` `[B, n]`."""
        if batch_size is not None:
            if batch_size < 1:
                raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
            return cls(batch_size)
        on_cpu = like.device.type == "cpu"
        entries, most = (CPU_ENTRIES, CPU_MOST) if on_cpu else (DEVICE_ENTRIES, DEVICE_MOST)
        fitting = max(1, entries // max(1, like.shape[1]))
        return cls(min(most, fitting), fitting if on_cpu else None)

    def fit(self, row_bytes: int) -> None:
        """Chooses the size again, by the bytes of activations that a row keeps for its gradient."""
        if self.most is not None and row_bytes > 0:
            full, largest = CPU_FULL // row_bytes, CPU_LARGEST // row_bytes
            self.size = max(1, min(max(self.size, full), largest, self.most))

    def guarded(self, work: Callable[[], T]) -> T | None:
        """The result of `work`, or None when memory ran out: then the size has been halved.

        Errors: MemoryError when a single pass does not fit.
        """
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if self.size == 1:
                raise MemoryError(
                    "not enough memory for the pass of one sample; use a smaller input or model, "
                    "reduced precision, or another device"
                ) from error
        self.size //= 2
        return None

    def over(self, rows: Tensor, work: Callable[[Tensor], Tensor], width: int = 1) -> Tensor:
        """`work` on consecutive rows that fill a pass, `width` places each; its results, joined."""
        found: list[Tensor] = []
        at = 0
        while at < len(rows):
            part = rows[at : at + max(1, self.size // width)]
            done = self.guarded(partial(work, part))
            if done is None:  # the chunk size was halved, so start over here
                continue
            found.append(done)
            at += len(part)
        return torch.cat(found)


@contextmanager
def activations(model: object) -> Iterator[list[int]]:
    """Bytes of each tensor that passes keep for their gradient while open, weights left out."""
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    known = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        with suppress(RuntimeError):  # sparse tensors and others without a storage do not count
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                known.add(storage.data_ptr())
                sizes.append(storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield sizes


def out_of_memory(error: BaseException) -> bool:
    """Whether a smaller pass may help."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text
