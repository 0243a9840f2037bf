"""The group norm: maps of few blocks, and perturbations of blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.penalties import groups
from moreaugrad.penalties.base import (
    Penalty,
    Weight,
    check_weight,
    indicator,
    over,
    times,
    within,
)
from moreaugrad.registry import choose
from moreaugrad.score.inputs import per_sample


@dataclass(frozen=True, eq=False)
class GroupL2(Penalty):
    """R(u) = eta sum_S ||u_S||_2 over blocks S of pixels; its prox shrinks whole blocks.

    >>> delta = mg.GroupL2(0.5, size=4).maximiser(x)

    Source: MoreauGrad definition 4, appendix B.1; AdvGrad section 4.3, proposition 2.
    """

    eta: Weight
    """Weight >= 0: a number, or one for each sample, `[B]`."""
    size: groups.Size = 14
    """Side of a block in pixels, or one for each spatial axis; "tokens" is a group for each
    position of samples `[positions, features]`."""
    channels: str = "joint"
    """Whether all channels of a block are one group ("joint"), or each has its own ("separate")."""
    index: groups.Labels | None = None
    """The groups as integer labels instead (superpixels, groups of features): of the sample's
    shape, or of its positions (`[H, W]` of `[C, H, W]`, `[T]` of `[C, T]`, `[L]` of `[L, D]`)."""

    def __post_init__(self) -> None:
        check_weight("eta", self.eta)
        if isinstance(self.size, str):
            choose("size", self.size, (groups.TOKENS,))
        if self.index is not None:
            object.__setattr__(self, "index", groups.labels(self.index))

    def partition(self, u: Tensor) -> groups.Partition:
        shape = tuple(u.shape[1:])
        if self.index is not None:
            return groups.explicit(shape, self.index, self.size == groups.TOKENS)
        if isinstance(self.size, str):
            return groups.tokens(shape)
        return groups.patches(shape, self.size, self.channels)

    def value(self, u: Tensor) -> Tensor:
        return times(self.eta, self.partition(u).norms(u.flatten(1)).sum(1))

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        partition, flat = self.partition(u), u.flatten(1)
        norms = partition.norms(flat)
        threshold = per_sample(self.eta, norms) * per_sample(tau, norms)
        # A group of zeros stays zero; the guard keeps 0 / 0 out.
        shrink = (norms - threshold).clamp_min(0) / norms.clamp_min(torch.finfo(u.dtype).tiny)
        return (flat * partition.spread(shrink)).reshape(u.shape)

    def prox_root(self, result: Tensor, tau: Weight, v: Tensor) -> Tensor:
        """On a block of norm n that is shrunk by a: sqrt(1 - a / n) across it, 1 along it."""
        partition, flat, given = self.partition(v), result.flatten(1), v.flatten(1)
        norms = partition.norms(flat)
        threshold = per_sample(self.eta, norms) * per_sample(tau, norms)
        keep = norms / (norms + threshold).clamp_min(torch.finfo(v.dtype).tiny)
        axis = flat / partition.spread(norms).clamp_min(torch.finfo(v.dtype).tiny)
        along = axis * partition.spread(partition.sums(axis * given))
        found = partition.spread(keep.sqrt()) * (given - along) + along
        return torch.where(partition.spread(norms) > 0, found, 0.0).reshape(v.shape)

    def conjugate(self, d: Tensor) -> Tensor:
        return indicator(within(self.partition(d).norms(d.flatten(1)).amax(1), self.eta), d)

    def maximiser(self, g: Tensor) -> Tensor:
        partition, flat = self.partition(g), g.flatten(1)
        return (per_sample(self.eta, flat) * partition.directions(flat)).reshape(g.shape)

    def magnitudes(self, u: Tensor) -> Tensor:
        return over(self.partition(u).norms(u.flatten(1)), self.eta)
