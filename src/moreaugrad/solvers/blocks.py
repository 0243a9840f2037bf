"""Errors of means: the standard error of a map that is made of a mean over noise samples.

Block means turn correlated terms into nearly independent ones; the jackknife carries their spread
through a map that thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

FEWEST = 4
"""Fewest blocks from which an error is estimated."""
MOST, MOST_OF_FEW = 16, 32
"""Most blocks kept; more for inputs of few entries, because each block then says less."""
FEW = 64
"""Most entries of an input of few entries."""
ALTERNATING = 0.8
"""Ratio of errors, of joined blocks to their halves, below which the halves are anticorrelated."""
LEVEL = 0.975
"""Quantile at which Student's distribution is compared with the normal one."""


@dataclass(frozen=True, eq=False)
class Tail:
    """The last part of one sample's sequence, of which the mean is taken."""

    mean: Tensor
    """The mean of each item of the terms, `[k, n]`."""
    terms: Tensor
    """The mean of the first item over each whole block, `[J, n]`."""
    steps: range
    """The numbers of its terms."""


class Blocks:
    """Sums of consecutive terms `[B, k, n]` in at most `most` blocks of equal length.

    When all blocks are full, neighbours are merged and the length doubles: memory stays bounded for
    any length of the sequence, and blocks become longer than its correlation.
    """

    def __init__(self, batch: int, most: int = MOST) -> None:
        self._most = most
        self._length = 1
        self._sums: list[Tensor] = []
        self._filled = 1  # terms in the last block
        self._first = [0] * batch  # a sample's first block that counts

    def add(self, term: Tensor) -> None:
        """Append one term of each sample, `[B, k, n]`."""
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
        """Discard all terms so far from the mean of this sample."""
        self._first[row] = len(self._sums)

    def select(self, rows: Tensor) -> None:
        """Keep these samples only."""
        self._sums = [block[rows] for block in self._sums]
        self._first = [self._first[row] for row in rows.tolist()]

    @property
    def due(self) -> bool:
        """Whether it is time to estimate errors.

        At growing intervals, because a test that is repeated often succeeds by chance.
        """
        finer = self._most // MOST
        between = FEWEST * finer**2 if self._length == 1 else 2 * finer
        return self._filled == self._length and len(self._sums) % between == 0

    def tail(self, row: int) -> Tail:
        """The part of a sample's sequence since its last restart.

        Leading blocks, at most half of them, are left out where that lowers the estimated variance
        of the first item's mean (MSER: White, 1997).
        """
        # A restart leaves the block out that was open then; at the end there may be no later one.
        first = min(self._first[row], len(self._sums) - 1)
        blocks = torch.stack([block[row] for block in self._sums[first:]])
        partial = self._filled % self._length
        whole = blocks[:-1] if partial else blocks
        terms = whole[:, 0] / self._length
        dropped = _truncation(terms) if len(whole) >= FEWEST else 0
        count = self._length * (len(whole) - dropped) + partial
        start = self._length * (first + dropped)
        mean = blocks[dropped:].sum(0) / count
        return Tail(mean, terms[dropped:], range(start, start + count))


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


def sequence_error(terms: Tensor, mapped: Callable[[Tensor], Tensor]) -> Tensor:
    """Standard error of `mapped(mean of terms)`, a number, for a correlated sequence `[J, n]`.

    Jackknife (delete one) through `mapped`, because the error of a thresholded map is not the
    thresholded error. Returns the largest over terms joined by 1, 2, 4, ..., because short blocks
    miss correlation; infinity for too few terms.
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
        spread = student_factor(apart) * apart.norm()
        if finest > MOST and len(spreads) == 1 and spread < ALTERNATING * spreads[0]:
            spreads.pop()  # short blocks that alternate in sign overstate the error
        spreads.append(spread)
        terms = terms[count % 2 :]
        terms = (terms[::2] + terms[1::2]) / 2
    return torch.stack(spreads).amax()


def student_factor(deviations: Tensor) -> float:
    """Factor >= 1 by which Student's t widens the error estimated from centred rows `[J, n]`.

    Rows that vary along few directions give a poor estimate of their own spread. With the effective
    number of directions d = (sum of C's eigenvalues)^2 / (sum of their squares), C the rows'
    covariance, the estimate has (J - 1) d degrees of freedom (Satterthwaite, 1946).
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


def paired_blocks(samples: int) -> list[range]:
    """Noise samples in at most 16 blocks of whole antithetic pairs, of nearly equal size."""
    pairs = samples // 2
    count = min(MOST, pairs)
    ends = [2 * (pairs * k // count) for k in range(count)] + [samples] if count else [0, samples]
    return [range(low, high) for low, high in pairwise(ends)]


def mean_of_blocks(blocks: Sequence[range], terms: Sequence[Tensor]) -> Tensor:
    """The mean over all noise samples, from the means over blocks."""
    sums = [len(block) * term for block, term in zip(blocks, terms, strict=True)]
    return torch.stack(sums).sum(0) / sum(map(len, blocks))


def block_error(
    blocks: Sequence[range], terms: Sequence[Tensor], mapped: Callable[[Tensor], Tensor]
) -> Tensor:
    """Standard error `[B]` of mapped(mean over noise samples), from the blocks' means `[B, n]`.

    Jackknife (delete one block) through `mapped`, widened by `student_factor`. NaN for fewer than
    two blocks.
    """
    total = sum(map(len, blocks))
    if len(blocks) < 2:
        return torch.full_like(terms[0][:, 0], torch.nan)
    sums = [len(block) * term for block, term in zip(blocks, terms, strict=True)]
    whole = total * mean_of_blocks(blocks, terms)
    maps = [
        mapped((whole - part) / (total - len(block)))
        for block, part in zip(blocks, sums, strict=True)
    ]
    centre = torch.stack(maps).mean(0)
    weights = centre.new_tensor([(total - len(block)) / total for block in blocks]).sqrt()
    apart = (torch.stack(maps) - centre) * weights[:, None, None]
    wider = centre.new_tensor([student_factor(rows) for rows in apart.unbind(1)])
    return wider * apart.double().square().sum((0, 2)).sqrt().to(terms[0])


def relative(error: Tensor, values: Tensor) -> Tensor:
    """An error's length `[B]` over the length of values `[B, n]`; 0 where the error is 0."""
    return torch.where(error == 0, error, error / values.norm(dim=1))
