"""Means over blocks of a sequence, and the error of a map that is made of their mean.

Block means turn correlated terms into nearly independent ones; the jackknife carries their spread
through a map that thresholds. All samples of a batch are treated at once, and each as if alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from moreaugrad.score.inputs import lengths
from moreaugrad.solvers.degrees import student_factor
from moreaugrad.solvers.z_scores import LeftOut

FEWEST = 4
"""Fewest blocks from which an error is estimated."""
MOST, MOST_OF_FEW = 16, 32
"""Most blocks kept; more for inputs of few entries, because each block then says less."""
FEW = 64
"""Most entries of an input of few entries."""
ALTERNATING = 0.8
"""Ratio of errors, of joined blocks to their halves, below which the halves are anticorrelated."""
LONG = 8
"""Terms in a block from which on errors are estimated after every eighth part of all blocks, not
every fourth."""
SPLITS = 16
"""Divisions of blocks into halves."""

Mapped = Callable[[Tensor], Tensor]
"""A map `[B, n]` of means `[B, n]`."""


@dataclass(frozen=True, eq=False)
class Tails:
    """The last part of each sample's sequence, of which the mean is taken."""

    mean: Tensor
    """The mean of each item of the terms, `[B, k, n]`."""
    terms: Tensor
    """The mean of the first item over each whole block, `[J, B, n]`."""
    valid: Tensor
    """Which blocks are part of a sample's tail, `[J, B]`: the last ones."""
    start: Tensor
    """The number of the tail's first term, `[B]`."""
    stop: int
    """The number after that of the last term."""

    @property
    def blocks(self) -> Tensor:
        """How many whole blocks each tail has, `[B]`."""
        return self.valid.sum(0)

    def left_out(self) -> Iterator[LeftOut]:
        """Each of the whole blocks, of the first item."""
        apart, _ = centred(self.terms, self.valid)
        count = self.blocks.to(apart).clamp_min(2)
        for block, valid in zip(apart, self.valid, strict=True):
            yield LeftOut(-block / (count - 1)[:, None], valid * (count - 1) / count)


class Blocks:
    """Sums of consecutive terms of k items in at most `most` blocks `[B, k, n]` of equal length.

    When all blocks are full, neighbours are merged and the length doubles: memory stays bounded for
    any length of the sequence, and blocks become longer than its correlation.
    """

    def __init__(self, like: Tensor, most: int = MOST) -> None:
        self._most = most
        self._length = 1
        self._sums: list[Tensor] = []
        self._filled = 1  # terms in the last block
        # A sample's first block that counts.
        self._first = torch.zeros(len(like), dtype=torch.long, device=like.device)

    def add(self, *items: Tensor) -> None:
        """Append one term of each sample: its items, `[B, n]` each."""
        if self._sums and self._filled < self._length:
            for at, item in enumerate(items):
                self._sums[-1][:, at].add_(item)
            self._filled += 1
            return
        if len(self._sums) == self._most:
            self._sums = [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)]
            self._first = (self._first + 1) // 2
            self._length *= 2
        self._sums.append(torch.stack(items, dim=1))
        self._filled = 1

    def restart(self, where: Tensor) -> None:
        """Discard all terms so far from the mean of the samples `where` `[B]` is True."""
        self._first = torch.where(where, len(self._sums), self._first)

    def select(self, rows: Tensor) -> None:
        """Keep these samples only."""
        self._sums = [block[rows] for block in self._sums]
        self._first = self._first[rows]

    @property
    def due(self) -> bool:
        """Whether it is time to estimate errors.

        At growing intervals, because a test that is repeated often succeeds by chance, and because
        the host waits for its result.
        """
        finer = self._most // MOST
        between = FEWEST * finer if self._length < LONG else FEWEST * finer // 2
        between *= finer if self._length == 1 else 1
        return self._filled == self._length and len(self._sums) % between == 0

    def tails(self) -> Tails:
        """The part of each sample's sequence since its last restart.

        Leading blocks, at most half of them, are left out where that lowers the estimated variance
        of the first item's mean (MSER: White, 1997).
        """
        partial = self._filled % self._length
        whole = len(self._sums) - bool(partial)
        terms = torch.stack([block[:, 0] for block in self._sums[:whole]]) / self._length
        place = torch.arange(len(self._sums), device=terms.device)[:, None]
        # A restart leaves the block out that was open then; at the end there may be no later one.
        first = self._first.clamp_max(len(self._sums) - 1)
        first = first + _truncation(terms, place[:whole] >= first)
        kept = place >= first
        mean = torch.zeros_like(self._sums[0])
        for block, weight in zip(self._sums, kept.to(mean.dtype), strict=True):
            mean.addcmul_(block, weight[:, None, None])
        stop = self._length * whole + partial
        count = stop - self._length * first
        mean /= count[:, None, None]
        return Tails(mean, terms, kept[:whole], self._length * first, stop)


def _truncation(terms: Tensor, valid: Tensor) -> Tensor:
    """The numbers d <= J / 2 of leading terms that minimise var(rest) / len(rest), `[B]`.

    terms `[J, B, n]`, of which the last ones of each sample are `valid` `[J, B]`.
    """
    count = valid.sum(0)
    rows = centred(terms, valid)[0].movedim(0, 1)
    # sum of squares about the mean of each tail, from inner products of the terms alone
    inner = rows @ rows.mT
    tails = inner.flip(1, 2).cumsum(1).cumsum(2).diagonal(dim1=1, dim2=2).flip(1)
    squares = inner.diagonal(dim1=1, dim2=2).flip(1).cumsum(1).flip(1)
    place = torch.arange(len(terms), device=terms.device)
    after = len(terms) - place
    variance = (squares - tails / after) / (after * (after - 1))
    first = (len(terms) - count)[:, None]
    allowed = (place >= first) & (place <= first + count[:, None] // 2)
    best = torch.where(allowed, variance, torch.inf).argmin(1) - first[:, 0]
    return torch.where(count >= FEWEST, best, 0)


def centred(terms: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The valid terms `[J, B, n]` minus their mean, 0 elsewhere; and the mean `[B, n]`."""
    kept = torch.where(valid[..., None], terms, 0.0)
    mean = kept.sum(0) / valid.sum(0).clamp_min(1)[:, None]
    return torch.where(valid[..., None], terms - mean, 0.0), mean


def sequence_error(tails: Tails, mapped: Mapped) -> Tensor:
    """Standard error `[B]` of `mapped(mean of the terms)` for correlated sequences.

    Jackknife (delete one) through `mapped`, because the error of a thresholded map is not the
    thresholded error. It is the largest over terms joined by 1, 2, 4, ..., because short blocks
    miss correlation; infinite for fewer than four terms.
    """
    terms, valid, finest = tails.terms, tails.valid, tails.blocks
    worst = torch.where(finest < FEWEST, torch.inf, torch.zeros_like(terms[0, :, 0]))
    lone = finest > MOST
    while len(terms) >= FEWEST:
        count = valid.sum(0)
        judged = count >= FEWEST
        deviations, mean = centred(terms, valid)
        left_out = torch.stack([
            mapped(mean - apart / (count - 1).clamp_min(1)[:, None]) for apart in deviations
        ])  # fmt: skip
        number = count.to(mean)
        apart = centred(left_out, valid)[0] * ((number - 1) / number).sqrt()[:, None]
        spread = student_factor(apart, count) * _root_of_squares(apart)
        # Short blocks that alternate in sign overstate the error.
        alternate = lone & (spread < ALTERNATING * worst)
        lone = lone & (alternate | (len(terms) == len(tails.terms)))
        largest = torch.where(alternate, spread, torch.maximum(worst, spread))
        worst = torch.where(judged, largest, worst)
        odd = len(terms) % 2
        terms = (terms[odd::2] + terms[odd + 1 :: 2]) / 2
        valid = valid[odd::2] & valid[odd + 1 :: 2]
    return worst


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


def left_out(blocks: Sequence[range], terms: Sequence[Tensor]) -> Iterator[LeftOut]:
    """Each of the blocks, from their means `[B, n]`."""
    total, mean = sum(map(len, blocks)), mean_of_blocks(blocks, terms)
    for block, term in zip(blocks, terms, strict=True):
        rest = total - len(block)
        weight = torch.full_like(mean[:, 0], rest / total)
        yield LeftOut((mean - term) * (len(block) / rest), weight)


def block_error(blocks: Sequence[range], terms: Sequence[Tensor], mapped: Mapped) -> Tensor:
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
    count = torch.full_like(centre[:, 0], len(blocks), dtype=torch.long)
    wider = student_factor(apart, count)
    return wider * _root_of_squares(apart)


def half_error(blocks: Sequence[range], terms: Sequence[Tensor], mapped: Mapped) -> Tensor:
    """Like `block_error`, for a map that jumps, as one that keeps its largest entries.

    A jump shows too often among means without one block, which are close to the whole mean. Means
    of half of the blocks are as far from it as it is from the expectation (half-sampling: McCarthy,
    1966); `SPLITS` halves are drawn, with their other halves.
    """
    count = len(blocks) - len(blocks) % 2
    if count < 2:
        return torch.full_like(terms[0][:, 0], torch.nan)
    sizes = terms[0].new_tensor([len(block) for block in blocks])
    sums = torch.stack([size * term for size, term in zip(sizes, terms, strict=True)])
    whole = mean_of_blocks(blocks, terms)
    centre = mapped(whole)
    square = torch.zeros_like(whole[:, 0], dtype=torch.float64)
    draw = np.random.Generator(np.random.Philox(key=[count, SPLITS]))
    for _ in range(SPLITS):
        order = torch.from_numpy(draw.permutation(len(blocks))[:count]).to(whole.device)
        for half in (order[: count // 2], order[count // 2 :]):
            apart = mapped(sums[half].sum(0) / sizes[half].sum()) - centre
            square += apart.double().square().sum(1) / (2 * SPLITS)
    deviations = torch.stack(list(terms)) - whole
    wider = student_factor(deviations, torch.full_like(whole[:, 0], count, dtype=torch.long))
    return wider * square.sqrt().to(whole)


def _root_of_squares(apart: Tensor) -> Tensor:
    """Of each sample, over all rows `[J, B, n]`: `[B]`."""
    return lengths(lengths(apart, 2), 0)


def relative(error: Tensor, values: Tensor) -> Tensor:
    """An error's length `[B]` over the length of values `[B, n]`; 0 where the error is 0."""
    return torch.where(error == 0, error, error / lengths(values))
