"""How many network passes are done at once, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

# Entries of the input in one pass: 16 photos of 3 x 224 x 224, 128 pictures of 3 x 32 x 32. Larger
# chunks are slower per sample on a processor (page faults and cache misses of big activations) and
# gain nothing; an accelerator wants more.
CPU_ENTRIES, CPU_MOST = 2_500_000, 128
DEVICE_ENTRIES, DEVICE_MOST = 40_000_000, 2048


@dataclass(eq=False)
class Chunks:
    """The chunk size shared by all parts of one computation; it shrinks when memory runs out."""

    size: int

    @classmethod
    def of(cls, batch_size: int | None, like: Tensor) -> Chunks:
        if batch_size is not None:
            if batch_size < 1:
                raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
            return cls(batch_size)
        on_cpu = like.device.type == "cpu"
        entries, most = (CPU_ENTRIES, CPU_MOST) if on_cpu else (DEVICE_ENTRIES, DEVICE_MOST)
        return cls(max(1, min(most, entries // max(1, like.shape[1]))))

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


def out_of_memory(error: BaseException) -> bool:
    """Whether a smaller pass may help."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text
