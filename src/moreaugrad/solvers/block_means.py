"""The mean of a gradient over a fixed number of noise samples, with its standard error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.centre import HALVES, Centre
from moreaugrad.score.inputs import lengths
from moreaugrad.solvers.blocks import FEWEST, block_error, half_error, left_out, mean_of_blocks
from moreaugrad.solvers.shrinkage import Bands, Shrinkage
from moreaugrad.solvers.solution import Solution, Status
from moreaugrad.solvers.z_scores import Measured, z_scores

BLOCKS = 32
"""Most groups of noise samples from whose means the standard error is estimated."""
RECORDED = 256
"""Noise samples from which a centre's statistics are taken: more hardly improve it."""

Each = Callable[[Tensor, Tensor], Tensor]
"""What is averaged: of gradients `[m, n]` and the samples `[m]` that they belong to, `[m, n]`."""


@dataclass(frozen=True, eq=False)
class BlockMeans:
    """Means over blocks of noise samples, and the mean over all of them, perhaps shrunk."""

    blocks: list[range]
    """The noise samples of each block."""
    terms: Tensor
    """The mean over each block, `[J, B, n]`."""
    evaluations: int
    """Evaluations of each sample."""
    mask: Tensor | None = None
    """False at padding, `[B, n]`; None: there is none."""
    shrinkage: Shrinkage | None = None
    """How the mean is shrunk towards a centre; None for the plain mean."""
    lacking: str = ""
    """Why there is no centre, where one was asked for."""

    @classmethod
    def of(cls, bound: BoundScore, each: Each | None = None, centred: bool = False) -> BlockMeans:
        """The mean over the score's `samples` noise samples, of the gradient or of `each`.

        centred: shrink it towards the gradient through mean activation derivatives.
        """

        def work(points: Tensor, rows: Tensor) -> tuple[Tensor]:
            gradient = bound.value_and_grad_at(points, rows)[1]
            return (gradient if each is None else each(gradient, rows),)

        samples = bound.passes
        size = 2 * -(-samples // (2 * BLOCKS))  # even: antithetic pairs stay together
        blocks = [range(at, min(at + size, samples)) for at in range(0, samples, size)]
        centre = Centre(bound) if centred and len(blocks) >= FEWEST else None
        recorded = bound if centre is None or centre.lacking else centre.recording(bound)
        first = min(samples, -(-RECORDED // size) * size)
        sums = [
            score.block_sums(work, None, part, 1, size)[0]
            for score, part in ((recorded, range(first)), (bound, range(first, samples)))
            if part
        ]
        terms = sums[0] if len(sums) == 1 else torch.cat(sums)
        terms /= _sizes(blocks, bound.origin)[:, None, None]
        found = cls(blocks, terms, samples, bound.mask)
        if centre is None:
            return found
        centres = None if centre.lacking else centre.gradients(bound)
        if centres is None or centre.lacking:
            return replace(found, lacking=centre.lacking)
        shrinkage = found._towards(centres, bound)
        return replace(found, shrinkage=shrinkage, evaluations=samples + HALVES)

    def _towards(self, centres: Tensor, bound: BoundScore) -> Shrinkage:
        """The shrinkage for centres `[2, B, n]`, made of the even and the odd blocks."""
        counts = _sizes(self.blocks, centres)
        bands = Bands.of(bound, centres)
        # sum_j m_j |term_j - mean|^2 / (J - 1) estimates the variance of one noise sample.
        apart = bands.coefficients(self.terms - self._mean).square()
        weights = counts / ((len(counts) - 1) * counts.sum())
        variance = bands.sums(torch.einsum("j,jbn->bn", weights, apart))
        halves = [
            torch.einsum("j,jbn->bn", counts[half::HALVES], self.terms[half::HALVES])
            / counts[half::HALVES].sum()
            for half in range(HALVES)
        ]
        return Shrinkage.of(bands, torch.stack(halves), variance, centres)

    @cached_property
    def _mean(self) -> Tensor:
        return mean_of_blocks(self.blocks, self.terms.unbind())

    @cached_property
    def mean(self) -> Tensor:
        """`[B, n]`."""
        return self._mean if self.shrinkage is None else self.shrinkage(self._mean)

    @cached_property
    def unvaried(self) -> Tensor:
        """Whether all blocks have the same mean, `[B]`."""
        return (self.terms == self.terms[0]).all(2).all(0)

    def marked(self, maps: Solution) -> Solution:
        """The maps of these means, UNVARIED where all blocks have the same: equal terms have no
        error, but their sum has rounding."""
        if len(self.blocks) == 1:
            return maps
        error = maps.error.masked_fill(self.unvaried, 0.0)
        return maps.marked(Status.UNVARIED, self.unvaried, error)

    def error(self, mapped: Callable[[Tensor], Tensor], jumps: bool = False) -> Tensor:
        """Standard error `[B]` of mapped(mean); NaN for a single block. jumps: whether `mapped` is
        not continuous."""
        shrunk = self.shrinkage or (lambda means: means)
        error = half_error if jumps else block_error
        spread = error(self.blocks, self.terms.unbind(), lambda m: mapped(shrunk(m)))
        if self.shrinkage is None:
            return spread
        bias = mapped(self.mean + self.shrinkage.doubt) - mapped(self.mean)
        return torch.hypot(spread, lengths(bias))

    def z_scores(self, measured: Callable[[Tensor], Measured]) -> Tensor | None:
        """z-scores of a map's entries, by what decides about them, given a mean; None for a single
        block, NaN where all blocks have the same mean."""
        if len(self.blocks) == 1:
            return None
        blocks, how = left_out(self.blocks, self.terms.unbind()), dict[str, Tensor]()
        if self.shrinkage is not None:
            error = self.error(lambda mean: measured(mean).values)
            how = {"error": error, "doubt": self.shrinkage.doubt}
        found = z_scores(measured, self.mean, blocks, mask=self.mask, **how)
        return found.masked_fill(self.unvaried[:, None], torch.nan)

    @property
    def used(self) -> dict[str, object]:
        """Settings to report where the centre that was asked for is lacking."""
        return {"centre_lacking": self.lacking} if self.lacking else {}


def _sizes(blocks: list[range], like: Tensor) -> Tensor:
    """The number of noise samples in each block, `[J]`."""
    return like.new_tensor([len(block) for block in blocks])
