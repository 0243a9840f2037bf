"""Single entries of the Hessian of a score, or of its mean under noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moreaugrad.explainers.derivatives import score_model
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import Batched, Layout
from moreaugrad.solvers.blocks import MOST, block_error, mean_of_blocks

PIXEL = "pixel"
LEAST = 1e-6
"""Noise in an entry counts as at least so many standard deviations."""


@dataclass(frozen=True, eq=False)
class Selection(Batched):
    """The entries or pixels of each sample.

    index: `[B, k]`. valid: which of them there are, `[B, k]`. members: the entries of the flat
    input that each has, `[B, k, C]`.
    """

    index: Tensor
    valid: Tensor
    members: Tensor

    @property
    def count(self) -> int:
        return self.index.shape[1]

    @classmethod
    def largest(cls, layout: Layout, maps: Sequence[Tensor], per: str, most: int) -> Selection:
        """The largest ones in the maps, in the order of their size, at most `most`."""
        channels = 1
        if per == PIXEL:
            shapes = layout.shapes
            if len(shapes) > 1 or len(shapes[0]) < 2:
                raise ValueError(
                    "per: 'pixel' is for one input [C, ...] with channels, got inputs of shapes "
                    f"{list(shapes)}"
                )
            channels = shapes[0][0]
        flat = layout.flatten([part.detach().abs() for part in maps]).nan_to_num()
        size = flat.view(len(flat), channels, -1).sum(1)
        count = min(most, max(1, int((size > 0).sum(1).max())))
        index = size.argsort(dim=1, descending=True, stable=True)[:, :count]
        steps = torch.arange(channels, device=index.device) * size.shape[1]
        return cls(index, size.gather(1, index) > 0, index[:, :, None] + steps)

    def sums(self, flat: Tensor) -> Tensor:
        """Of each one the sum over its members, `[B, k]`; 0 where there is none."""
        found = flat.gather(1, self.members.flatten(1)).view(self.members.shape).sum(2)
        return found * self.valid

    def added(self, flat: Tensor, amounts: Tensor, columns: slice) -> Tensor:
        """Copies of `flat` `[B, n]`, each with the members of one of the columns changed by the
        amount `[B, k]`: `[B c, n]`."""
        members, change = self.members[:, columns], (amounts * self.valid)[:, columns, None]
        copies = flat[:, None].repeat(1, members.shape[1], 1)
        return copies.scatter_add_(2, members, change.expand(members.shape)).flatten(0, 1)


def exact(bound: BoundScore, units: Selection) -> tuple[Tensor, Tensor]:
    """H_S and its asymmetry from products with the Hessian, `[B, k, k]` each."""
    product, zeros = score_model(bound), torch.zeros_like(bound.origin)
    ones = torch.ones_like(bound.origin[:, :1]).expand(units.index.shape)
    columns = [
        units.sums(product(units.added(zeros, ones, slice(at, at + 1)), bound.rows))
        for at in range(units.count)
    ]
    found = torch.stack(columns, 1)
    return _symmetric(found), (found - found.mT).abs() / 2


def sampled(bound: BoundScore, units: Selection) -> tuple[Tensor, Tensor]:
    """H_S of the mean score and its standard error, `[B, k, k]` each.

    With v a unit vector and t = v'z, Stein's identity in t alone is H v = E g(x + z) t / sigma^2 =
    E (g(x + z_ + t v) - g(x + z_ - t v)) t / (2 sigma^2), z_ the part of z across v. Distances t of
    the density t^2 N(t) / sigma^2, those of three normal numbers, weigh all differences alike.
    """
    count, channels = units.count, units.members.shape[2]
    assert bound.sigma is not None
    levels = bound.sigma.expand_as(bound.origin).gather(1, units.members[:, :, 0])

    def work(points: Tensor, rows: Tensor) -> tuple[Tensor]:
        own, level = units.select(rows), levels[rows] / channels**0.5
        along = own.sums(points - bound.origin[rows]) / channels
        step = level * _of_three((along / level).abs())
        many = max(1, bound.chunks.size // (2 * len(points)))
        columns = []
        for at in range(0, count, many):
            part = slice(at, min(at + many, count))
            copies = torch.arange(len(points), device=points.device)
            copies = copies.repeat_interleave(part.stop - at)
            there, back = (
                own.select(copies)
                .sums(bound.value_and_grad_at(own.added(points, move, part), rows[copies])[1])
                .view(len(points), -1, count)
                for move in (step - along, -step - along)
            )
            columns.append((there - back) / (2 * step[:, part, None]))
        found = torch.cat(columns, 1)
        return (_symmetric(found),)

    size = 2 * -(-bound.samples // (2 * MOST))  # even: antithetic pairs stay together
    blocks = [range(at, min(at + size, bound.samples)) for at in range(0, bound.samples, size)]
    (sums,) = bound.block_sums(work, None, range(bound.samples), 2 * count, size)
    # The error of each value by itself.
    terms = [total.reshape(-1, 1) / len(block) for total, block in zip(sums, blocks, strict=True)]
    values, error = mean_of_blocks(blocks, terms), block_error(blocks, terms, lambda mean: mean)
    # Sums of the same terms differ by rounding from place to place.
    return _symmetric(values.view(sums.shape[1:])), _symmetric(error.view(sums.shape[1:]))


def _symmetric(matrices: Tensor) -> Tensor:
    return (matrices + matrices.mT) / 2


def _of_three(size: Tensor) -> Tensor:
    """Lengths of three normal numbers, at the quantiles of these magnitudes of one."""
    from scipy.special import erfc, gammainccinv

    # A length of zero, which only rounding makes, cannot be divided by.
    beyond = erfc(size.double().clamp_min(LEAST).cpu().numpy() / 2**0.5)
    return torch.from_numpy(np.sqrt(2 * gammainccinv(1.5, beyond))).to(size)
