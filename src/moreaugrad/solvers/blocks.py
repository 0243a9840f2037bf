"""Batch means: the mean of a long correlated sequence of vectors, and the error of a map of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

FEWEST = 4
"""Blocks below which nothing is said of an error."""
MOST, MOST_OF_FEW = 16, 32
"""Blocks kept at most; for inputs of few entries more, because each says less of the error."""
FEW = 64
"""Entries up to which an input has few."""
ALTERNATING = 0.8
"""Ratio of errors, of joined blocks to their halves, below which the halves are anticorrelated."""
LEVEL = 0.975
"""Where Student's distribution is compared with the normal one."""


class Blocks:
    """Sums of consecutive pairs of terms `[B, 2, n]` in at most `most` blocks of equal length.

    When all are full, neighbours are merged and the length doubles: memory stays bounded however
    long the sequence, and blocks outgrow its correlation.
    """

    def __init__(self, batch: int, most: int = MOST) -> None:
        self._most = most
        self._length = 1
        self._sums: list[Tensor] = []
        self._filled = 1  # terms in the last block
        self._first = [0] * batch  # a sample's first block that counts

    def add(self, term: Tensor) -> None:
        if self._sums and self._filled < self._length:
            self._sums[-1] += term
            self._filled += 1
            return
        if len(self._sums) == self._most:
            self._sums = [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)]
            self._first = [-(-first // 2) for first in self._first]
            self._length *= 2
        self._sums.append(term.clone())
        self._filled = 1

    def restart(self, row: int) -> None:
        """Leaves out all that came so far in the mean of this sample."""
        self._first[row] = len(self._sums)

    def select(self, rows: Tensor) -> None:
        self._sums = [block[rows] for block in self._sums]
        self._first = [self._first[row] for row in rows.tolist()]

    def due(self, row: int) -> bool:
        """Whether enough blocks count for this sample to judge it; not while the last is filling.

        Not at each of many short blocks: a chance that is tried often comes true.
        """
        count = len(self._sums) - self._first[row]
        whole = self._filled == self._length and count % (self._most // MOST) == 0
        return whole and count >= self._most // 2

    def tail(self, row: int) -> tuple[Tensor, Tensor]:
        """A sample's mean pair `[2, n]`, and the mean of its first term over each block, `[J, n]`.

        Leading blocks are left out where that lowers the estimated variance of the first one's
        mean (MSER: White, 1997), at most half of them.
        """
        blocks = torch.stack([block[row] for block in self._sums[self._first[row] :]])
        partial = self._filled % self._length
        whole = blocks[:-1] if partial else blocks
        terms = whole[:, 0] / self._length
        dropped = _truncation(terms) if len(whole) >= FEWEST else 0
        count = self._length * (len(whole) - dropped) + partial
        return blocks[dropped:].sum(0) / count, terms[dropped:]


def _truncation(terms: Tensor) -> int:
    """The number d <= J / 2 of leading terms that minimises var(rest) / len(rest)."""
    count = len(terms)
    after = torch.arange(count, 0, -1, device=terms.device, dtype=terms.dtype)
    # sum of squares about the mean of each tail, from inner products of the terms alone
    inner = (terms - terms.mean(0)) @ (terms - terms.mean(0)).T
    tails = inner.flip(0, 1).cumsum(0).cumsum(1).diagonal().flip(0)
    squares = inner.diagonal().flip(0).cumsum(0).flip(0)
    variance = (squares - tails / after) / (after * (after - 1))
    return int(variance[: count // 2 + 1].argmin())


def jackknife(terms: Tensor, mapped: Callable[[Tensor], Tensor]) -> Tensor:
    """Standard error of `mapped(mean of terms)`, a number; infinite for too few terms.

    Delete-one through `mapped`, because the error of a thresholded map is not the thresholded
    error; the largest over terms joined by 1, 2, 4, ..., because short blocks overlook correlation.
    """
    if len(terms) < FEWEST:
        return terms.new_tensor(torch.inf)
    spreads: list[Tensor] = []
    finest = len(terms)
    while len(terms) >= FEWEST:
        count = len(terms)
        centre = terms.mean(0)
        left_out = mapped(centre + (centre - terms) / (count - 1))
        apart = (left_out - left_out.mean(0)) * ((count - 1) / count) ** 0.5
        spread = student(apart) * apart.norm()
        if finest > MOST and len(spreads) == 1 and spread < ALTERNATING * spreads[0]:
            spreads.pop()  # short blocks that swing back and forth overstate the error
        spreads.append(spread)
        terms = terms[count % 2 :]
        terms = (terms[::2] + terms[1::2]) / 2
    return torch.stack(spreads).amax()


def student(deviations: Tensor) -> float:
    """How much wider Student's t makes the error that centred rows `[J, n]` show; at least 1.

    Rows that vary along few directions say little of their own spread. With d the effective number
    of directions, (sum of C's eigenvalues)^2 / (sum of their squares) for the rows' covariance C,
    it has (J - 1) d degrees of freedom (Satterthwaite, 1946).
    """
    from scipy.special import ndtri, stdtrit

    inner = (deviations @ deviations.T).double()
    total = float(inner.trace())
    if not 0 < total < math.inf:
        return 1.0
    free = len(deviations) - 1
    # J rows make 1 / d too large by about 1 / (J - 1).
    ratio = float(inner.square().sum()) / total**2 - 1 / free
    degrees = free / max(ratio, 1e-6) if free > 1 else 1.0
    return float(stdtrit(degrees, LEVEL) / ndtri(LEVEL))
