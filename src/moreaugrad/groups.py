"""Partitions of one input's entries into groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from moreaugrad.layout import Shape


@dataclass(frozen=True, eq=False)
class Partition:
    """`label` `[n]`: the group of each entry. `members` `[G, S]`: the entries of each group.

    Groups smaller than the largest are filled up with the index `n`, where `norms` reads a zero.
    A gather instead of a scatter-add: the same bits on every device.
    """

    label: Tensor
    members: Tensor

    def norms(self, flat: Tensor) -> Tensor:
        """Euclidean norm of every group: `[B, n]` to `[B, G]`."""
        padded = torch.nn.functional.pad(flat, (0, 1))
        found: Tensor = padded[:, self.members.to(flat.device)].norm(dim=2)
        return found

    def directions(self, flat: Tensor) -> Tensor:
        """Every group divided by its norm, `[B, n]`; a group of zeros stays zero."""
        norms, kind = self.norms(flat), torch.finfo(flat.dtype)
        least = (kind.tiny / kind.eps) ** 0.5
        found = flat / self.spread(norms.clamp_min(least))
        small = norms < least
        if not bool(small.any()):
            return found
        # Squares of so small entries would vanish: divided by the largest of them first.
        padded = torch.nn.functional.pad(flat, (0, 1))
        peaks = padded[:, self.members.to(flat.device)].abs().amax(dim=2)
        scaled = flat / self.spread(peaks.clamp_min(kind.tiny))
        norms = self.norms(scaled)
        scaled = scaled / self.spread(torch.where(norms > 0, norms, 1.0))
        return torch.where(self.spread(small), scaled, found)

    def sums(self, flat: Tensor) -> Tensor:
        """Sum over every group: `[B, n]` to `[B, G]`."""
        padded = torch.nn.functional.pad(flat, (0, 1))
        return padded[:, self.members.to(flat.device)].sum(dim=2)

    def spread(self, per_group: Tensor) -> Tensor:
        """One number per group to each of its entries: `[B, G]` to `[B, n]`."""
        return per_group[:, self.label.to(per_group.device)]


def patches(shape: Shape, size: int | Sequence[int], channels: str) -> Partition:
    """Non-overlapping blocks of `size` entries along each spatial axis.

    `shape` is `(features,)`, or `(channels, *spatial)` with one to three spatial axes. channels
    "joint": one group holds all channels of its block; "separate": one group for each channel.
    Where `size` does not divide an axis its last groups are smaller.
    Source: MoreauGrad appendix B.1 (16 x 16 groups). The released code has 14 x 14 pixels, joint;
    that of AdvGrad has them separate.
    """
    spatial = shape[1:] if len(shape) > 1 else shape
    if not 1 <= len(spatial) <= 3:
        raise ValueError(
            "group: expected inputs with 1 to 3 spatial axes after the channels, "
            f"got a sample of shape {shape}; give an explicit partition (index=)"
        )
    sizes = tuple(size) if isinstance(size, Sequence) else (size,) * len(spatial)
    if len(sizes) != len(spatial) or any(not isinstance(s, int) or s < 1 for s in sizes):
        raise ValueError(
            f"group: expected a size >= 1, or one for each of the {len(spatial)} spatial axes, "
            f"got {size!r}"
        )
    if any(s > length for s, length in zip(sizes, spatial, strict=True)):
        raise ValueError(
            f"group: size {sizes} does not fit into a sample with spatial shape {spatial}"
        )
    if channels not in ("joint", "separate"):
        raise ValueError(f"channels: expected 'joint' or 'separate', got {channels!r}")
    return _patches(shape, sizes, channels == "separate")


@lru_cache(maxsize=64)
def _patches(shape: Shape, sizes: tuple[int, ...], separate: bool) -> Partition:
    spatial = shape[1:] if len(shape) > 1 else shape
    label = torch.zeros(spatial, dtype=torch.long)
    for axis, (length, size) in enumerate(zip(spatial, sizes, strict=True)):
        position = torch.arange(length) // size
        view = [1] * len(spatial)
        view[axis] = length
        label = label * math.ceil(length / size) + position.reshape(view)
    if len(shape) > 1:
        offset = torch.arange(shape[0]) * (int(label.max()) + 1) * int(separate)
        label = label + offset.reshape(-1, *[1] * len(spatial))
    return from_labels(label)


def from_labels(index: Tensor) -> Partition:
    """The partition in which entries with the same label form a group (labels need no order)."""
    label = torch.unique(index.reshape(-1).cpu(), return_inverse=True)[1]
    counts = torch.bincount(label)
    members = torch.full((len(counts), int(counts.max())), label.numel(), dtype=torch.long)
    order = torch.argsort(label, stable=True)
    start = torch.tensor([0, *itertools.accumulate(counts.tolist())])
    members[label[order], torch.arange(label.numel()) - start[label[order]]] = order
    return Partition(label, members)


def explicit(shape: Shape, index: Tensor) -> Partition:
    """Groups given as labels: of the sample's shape, or without its channels (then joint)."""
    if index.is_floating_point() or index.is_complex():
        raise TypeError(f"index: expected integer group labels, got {index.dtype}")
    if tuple(index.shape) == shape[1:]:
        index = index.expand(shape)
    if tuple(index.shape) != shape:
        raise ValueError(
            f"index: expected group labels of shape {shape} or, for all channels together, "
            f"{shape[1:]}, got {tuple(index.shape)}"
        )
    return from_labels(index)
