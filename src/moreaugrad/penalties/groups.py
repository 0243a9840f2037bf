"""Groups of an input's entries, and the group norm: maps of few blocks, perturbations of blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
from moreaugrad.score.inputs import Shape, lengths, per_sample
from moreaugrad.settings import expect

AUTO, TOKENS, BLOCKS = "auto", "tokens", "blocks"
NAMED = (AUTO, TOKENS, BLOCKS)
Size = int | Sequence[int] | str
"""Size of groups: the side of blocks, one for each spatial axis, or one of `NAMED`."""
Labels = Tensor | Sequence[Any]
"""Integer labels of groups: a tensor, an array, or a sequence (of sequences) of integers."""

GRID = 16
"""Number of blocks along each spatial axis, if their size is automatic."""
CHANNELS = 4
"""Largest number of channels of an image."""
FILLED = 4
"""How many times the entries of a sample the padded groups may have; beyond, large groups are cut
into pieces."""


@dataclass(frozen=True, eq=False)
class Partition:
    """The groups of a sample's n entries.

    label `[n]`: the group of each entry. members `[G, S]`: the entries of each group; groups
    smaller than the largest are filled with the index n, which stands for a zero. Sums are gathers
    of members instead of scatter-adds, so they have the same bits on every device. Where one group
    is far larger than the others, such as the background of an atlas, rows of members are pieces of
    groups, and `pieces` is the partition of rows into the groups.
    """

    label: Tensor
    members: Tensor
    pieces: Partition | None = None

    def norms(self, flat: Tensor) -> Tensor:
        """Euclidean norm of each group: `[B, n]` to `[B, G]`."""
        return self._reduced(flat, lambda entries: lengths(entries, 2))

    def directions(self, flat: Tensor) -> Tensor:
        """Each group divided by its norm, `[B, n]`; a group of zeros stays zero."""
        norms, kind = self.norms(flat), torch.finfo(flat.dtype)
        least = (kind.tiny / kind.eps) ** 0.5
        found = flat / self.spread(norms.clamp_min(least))
        small = norms < least
        if not bool(small.any()):
            return found
        # Squares of such small entries would vanish, so divide by the largest entry first.
        peaks = self._reduced(flat.abs(), lambda entries: entries.amax(dim=2))
        scaled = flat / self.spread(peaks.clamp_min(kind.tiny))
        norms = self.norms(scaled)
        scaled = scaled / self.spread(torch.where(norms > 0, norms, 1.0))
        return torch.where(self.spread(small), scaled, found)

    def sums(self, flat: Tensor) -> Tensor:
        """Sum over each group: `[B, n]` to `[B, G]`."""
        return self._reduced(flat, lambda entries: entries.sum(dim=2))

    def _reduced(self, flat: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """A number of each group: `[B, n]` to `[B, G]`. reduce: `[B, G, S]` to `[B, G]`, of pieces
        first and then of their results."""
        entries = torch.nn.functional.pad(flat, (0, 1))[:, self.members.to(flat.device)]
        found = reduce(entries)
        return found if self.pieces is None else self.pieces._reduced(found, reduce)

    def spread(self, per_group: Tensor) -> Tensor:
        """The number of each group, for all its entries: `[B, G]` to `[B, n]`."""
        return per_group[:, self.label.to(per_group.device)]


def chosen(group: Size, shape: Shape, layer: nn.Module | None, padded: bool) -> Size:
    """The `size` of `GroupL2` for samples of that shape.

    "auto": tokens at an embedding, else blocks in images, signals of one channel and volumes.
    "blocks": about `GRID` along each spatial axis. layer: the module whose output is explained.
    padded: whether there is a mask.
    Errors: ValueError if "auto" would be a guess, or if the blocks' size would depend on padding.
    """
    embedded = isinstance(layer, nn.Embedding) and len(shape) > 1
    if group == AUTO and embedded:
        return TOKENS
    if embedded and group != TOKENS:
        raise ValueError(
            f"group: an embedding's output {shape} has no blocks, its last axis being one vector; "
            "expected 'tokens', or labels of any groups with index="
        )
    if group == AUTO:
        _check_certain(shape, layer)
    elif group != BLOCKS:
        return group
    if padded:
        raise ValueError(
            "group: expected the blocks' size with a mask, because the automatic size would "
            "depend on how much padding there is"
        )
    return [max(1, round(length / GRID)) for length in _spatial(shape)]


def _check_certain(shape: Shape, layer: nn.Module | None) -> None:
    """Checks that positions follow channels in a sample's shape. Errors: ValueError if unclear."""
    if len(shape) == 1:
        raise ValueError(
            f"group: no automatic groups for samples of shape {shape}, whose entries may be the "
            "columns of a table; give labels with index=[0, 0, 1, ...], or, where neighbours "
            "belong together as in a signal, the length of the runs or group='blocks'"
        )
    known = isinstance(layer, (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm))
    if len(shape) == 2 and shape[0] > 1 and not known:
        raise ValueError(
            f"group: no automatic groups for samples of shape {shape}, which may be [positions, "
            "features] or [channels, time]; give group='tokens' for a group of each position, or "
            "group='blocks' or the blocks' length along time"
        )
    few = [axis for axis, length in enumerate(shape) if length <= CHANNELS]
    last = layer is not None and len(shape) == 3 and shape[0] == shape[1] != shape[2]
    if len(shape) > 2 and not known and (last or (len(few) == 1 and few[0] > 0)):
        raise ValueError(
            f"group: no automatic groups for samples of shape {shape}, whose channels seem not to "
            "come first; give labels with index=, or the blocks' size, one for each axis after "
            "the first"
        )


@lru_cache(maxsize=64)
def tokens(shape: Shape) -> Partition:
    """A group for each position, all axes but the last, with its features along the last."""
    expect(len(shape) >= 2, "group", "samples [positions, features] for 'tokens'", shape)
    return from_labels(
        torch.arange(math.prod(shape[:-1]), device="cpu").repeat_interleave(shape[-1])
    )


def patches(shape: Shape, size: int | Sequence[int], channels: str) -> Partition:
    """Non-overlapping blocks of `size` entries along each spatial axis.

    `shape` is `(features,)`, or `(channels, *spatial)` with one to three spatial axes. channels
    "joint": a group has all channels of its block; "separate": one group for each channel.
    If `size` does not divide an axis, its last groups are smaller.
    Source: MoreauGrad appendix B.1 (16 x 16 groups). The released code has 14 x 14 pixels, joint;
    that of AdvGrad has separate channels.
    """
    spatial = _spatial(shape)
    if not 1 <= len(spatial) <= 3:
        raise ValueError(
            "group: expected inputs with 1 to 3 spatial axes after the channels, "
            f"got a sample of shape {shape}; give an explicit partition (index=)"
        )
    sizes = tuple(size) if isinstance(size, Sequence) else (size,) * len(spatial)
    integers = all(isinstance(s, int) and not isinstance(s, bool) for s in sizes)
    if len(sizes) != len(spatial) or not integers or min(sizes) < 1:
        raise ValueError(
            f"group: expected a size >= 1, or one for each of the {len(spatial)} spatial axes, "
            f"got {size!r}"
        )
    if any(s > length for s, length in zip(sizes, spatial, strict=True)):
        raise ValueError(
            f"group: size {sizes} does not fit into a sample with spatial shape {spatial}"
        )
    choose("channels", channels, ("joint", "separate"))
    return _patches(shape, sizes, channels == "separate")


@lru_cache(maxsize=64)
def _patches(shape: Shape, sizes: tuple[int, ...], separate: bool) -> Partition:
    spatial = _spatial(shape)
    label = torch.zeros(spatial, dtype=torch.long, device="cpu")
    for axis, (length, size) in enumerate(zip(spatial, sizes, strict=True)):
        position = torch.arange(length, device="cpu") // size
        view = [1] * len(spatial)
        view[axis] = length
        label = label * math.ceil(length / size) + position.reshape(view)
    if len(shape) > 1:
        offset = label.new_tensor(range(shape[0])) * (int(label.max()) + 1) * int(separate)
        label = label + offset.reshape(-1, *[1] * len(spatial))
    return from_labels(label)


def _spatial(shape: Shape) -> Shape:
    return shape[1:] if len(shape) > 1 else shape


def from_labels(index: Tensor) -> Partition:
    """The partition in which entries with the same label form a group."""
    label = torch.unique(index.reshape(-1).cpu(), return_inverse=True)[1]
    counts = torch.bincount(label)
    size, entries, groups = int(counts.max()), label.numel(), len(counts)
    if size * groups > FILLED * entries:
        size = math.ceil(entries / groups)
    rows = -(-counts // size)
    order, every = torch.argsort(label, stable=True), torch.arange(entries, device="cpu")
    place = torch.empty_like(label)
    place[order] = every - _starts(counts)[label[order]]
    members = label.new_full((int(rows.sum()), size), entries)
    members[_starts(rows)[label] + place // size, place % size] = every
    if int(rows.max()) == 1:
        return Partition(label, members)
    row = torch.arange(groups, device="cpu").repeat_interleave(rows)
    return Partition(label, members, from_labels(row))


def _starts(counts: Tensor) -> Tensor:
    return counts.cumsum(0) - counts


def labels(index: Labels) -> Tensor:
    """Group labels as a tensor. Errors: TypeError for entries that are no integers."""
    if isinstance(index, Tensor):
        if index.is_floating_point() or index.is_complex() or index.dtype is torch.bool:
            raise TypeError(f"index: expected integer group labels, got {index.dtype}")
        return index.detach().long()
    entries = np.array(index, dtype=object)  # keeps each entry's own type
    for entry in entries.flat:
        if isinstance(entry, bool) or not isinstance(entry, (int, np.integer)):
            raise TypeError(
                f"index: expected integer group labels, got {entry!r} ({type(entry).__name__}) "
                "among them"
            )
    return torch.from_numpy(entries.astype(np.int64))


def explicit(shape: Shape, index: Labels, positions_first: bool = False) -> Partition:
    """Groups from labels of the sample's shape, or of its positions.

    Positions are the axes after the first, the channels, or before the last, the features of
    `[positions, features]`; `positions_first` decides if both are possible.
    Errors: TypeError as for `labels`; ValueError for labels of another shape.
    """
    found = labels(index)
    given = tuple(found.shape)
    first = len(shape) > 1 and given == shape[:-1]
    last = len(shape) > 1 and given == shape[1:] and not positions_first
    if first and last:
        raise ValueError(
            f"index: labels of shape {given} may be those of the first or of the last axes of "
            f"samples of shape {shape}; give labels of that shape, or group='tokens' for the first"
        )
    if given != shape and not first and not last:
        raise ValueError(
            f"index: expected group labels of shape {shape} or, for all features (channels last) "
            f"together, {shape[:-1]}, for all channels together, {shape[1:]}, got {given}"
        )
    return from_labels((found[..., None] if first else found).expand(shape))


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
    """Whether all channels of a block are one group ("joint") or each is its own ("separate")."""
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

    def margins(self, u: Tensor, tau: Weight) -> Tensor:
        partition = self.partition(u)
        norms = partition.norms(u.flatten(1))
        threshold = per_sample(self.eta, norms) * per_sample(tau, norms)
        return partition.spread(norms - threshold).reshape(u.shape)
