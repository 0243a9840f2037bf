"""Batch means: the mean of a long correlated sequence of vectors, and the error of a map of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Blocks:
    """Sums of consecutive terms `[B, n]` in at most `most` blocks of equal length.

    When all are full, neighbours are merged and the length doubles: memory stays bounded however
    long the sequence, and blocks outgrow its correlation.
    """

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._length = 1
        self._sums: list[Tensor] = []
        self._filled = 0  # terms in the last block

    def add(self, term: Tensor) -> None:
        if self._sums and self._filled < self._length:
            self._sums[-1] += term
            self._filled += 1
            return
        if len(self._sums) == self._most:
            self._sums = [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)]
            self._length *= 2
        self._sums.append(term.clone())
        self._filled = 1

    def select(self, rows: Tensor) -> None:
        self._sums = [block[rows] for block in self._sums]

    @property
    def complete(self) -> bool:
        """No block is partly filled, and there are enough of them for a standard error."""
        return self._filled == self._length and len(self._sums) >= self._most // 2

    def mean(self) -> Tensor:
        total = torch.stack(self._sums).sum(0) if len(self._sums) > 1 else self._sums[0].clone()
        return total / ((len(self._sums) - 1) * self._length + self._filled)

    def jackknife(self, mapped: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The map of the mean, `[B, n]`, and its delete-one-block standard error, `[B]`.

        The error of a thresholded map is not the thresholded error; leaving out one block at a
        time carries the mean's error through the threshold. Only complete blocks enter.
        """
        full = self._sums if self._filled == self._length else self._sums[:-1]
        count = len(full)
        total = torch.stack(full).sum(0)
        whole = mapped(self.mean())
        left_out = [mapped((total - block) / ((count - 1) * self._length)) for block in full]
        centre = torch.stack(left_out).mean(0)
        spread = torch.stack([(item - centre).square().sum(1) for item in left_out]).sum(0)
        return whole, (spread * (count - 1) / count).sqrt()
