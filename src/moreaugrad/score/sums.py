"""Sums over noise samples of what a network computes on the way, entry by entry.

They are made of small pieces, which stay in the cache of a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

CACHED = 2**17
"""Entries summed at once on a CPU."""

Parts = Callable[..., Iterable[Tensor]]
"""From columns `[m, k]` of tensors to what is summed of them; each is used before the next is made.
"""


@dataclass(eq=False)
class Term:
    """Sums over noise samples of tensors of one shape: a row for each sample and half."""

    shape: torch.Size
    """The shape of a row, in the order of memory."""
    last: bool
    """Whether channels are the last axis in memory."""
    totals: list[Tensor] = field(default_factory=list)
    """`[R, K]`"""

    @classmethod
    def of(cls, x: Tensor) -> Term:
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        last = last and not x.is_contiguous()
        return cls(x.movedim(1, -1).shape[1:] if last else x.shape[1:], last)

    def add(self, weights: Tensor, tensors: Sequence[Tensor], parts: Parts) -> None:
        flat = [(x.movedim(1, -1) if self.last else x).flatten(1) for x in tensors]
        width = flat[0].shape[1]
        size = max(1, CACHED // len(flat[0])) if weights.device.type == "cpu" else width
        for at in range(0, width, size):
            columns = slice(at, at + size)
            pieces = [x[:, columns] for x in flat]
            pieces = [x.to(weights.dtype) if x.is_floating_point() else x for x in pieces]
            for index, part in enumerate(parts(*pieces)):
                if index == len(self.totals):
                    self.totals.append(weights.new_zeros(len(weights), width))
                self.totals[index][:, columns] += _sums(weights, part)

    def means(self, rows: Tensor, count: Tensor) -> list[Tensor]:
        found = [total.index_select(0, rows).div_(count[:, None]) for total in self.totals]
        found = [mean.reshape(-1, *self.shape) for mean in found]
        return [mean.movedim(-1, 1) for mean in found] if self.last else found

    def select(self, rows: Tensor) -> Term:
        return Term(self.shape, self.last, [total[rows] for total in self.totals])


def _sums(weights: Tensor, part: Tensor) -> Tensor:
    """Sums of rows; those that are not finite must not reach others as 0 * NaN."""
    if weights.device.type == "cpu":  # the host would wait for the answer of an accelerator
        found = weights @ part
        if np.isfinite(found.numpy()).all():
            return found
    return weights @ part.nan_to_num()


@dataclass(eq=False)
class Sums:
    """What is summed of one call of an activation or a pooling."""

    shape: tuple[int, ...]
    """The shape of its input, without the rows."""
    count: Tensor
    """Noise samples summed, `[R]`."""
    terms: list[Term] = field(default_factory=list)

    def add(self, weights: Tensor, terms: Iterable[tuple[Sequence[Tensor], Parts]]) -> None:
        """weights `[R, m]`: 1 where a row of the pass belongs. terms: tensors `[m, ...]`, and what
        is summed of them."""
        self.count = self.count + weights.sum(1)
        with torch.autocast(weights.device.type, enabled=False):
            for index, (tensors, parts) in enumerate(terms):
                if index == len(self.terms):
                    self.terms.append(Term.of(tensors[0]))
                self.terms[index].add(weights, tensors, parts)

    def means(self, rows: Tensor) -> list[Tensor]:
        """The means of all that is summed, for the rows of a pass."""
        count = self.count[rows]
        return [mean for term in self.terms for mean in term.means(rows, count)]

    def select(self, rows: Tensor) -> Sums:
        return Sums(self.shape, self.count[rows], [term.select(rows) for term in self.terms])
