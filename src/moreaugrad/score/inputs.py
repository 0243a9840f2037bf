"""Several inputs as one flat vector per sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where each input lies in the flat `[B, n]` matrix that solvers work on.

    `shapes` are the inputs' shapes without the batch dimension, in order; `dtypes` those that the
    maps are given back in.
    """

    shapes: tuple[Shape, ...]
    dtypes: tuple[torch.dtype, ...]

    @classmethod
    def of(cls, inputs: Sequence[Tensor]) -> Layout:
        return cls(tuple(tuple(x.shape[1:]) for x in inputs), tuple(x.dtype for x in inputs))

    @property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        """Entries of one sample, over all inputs."""
        return sum(self.sizes)

    def flatten(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts `[B, *shape]` to one matrix `[B, n]`."""
        if len(parts) == 1:
            return parts[0].reshape(parts[0].shape[0], -1)
        return torch.cat([part.reshape(part.shape[0], -1) for part in parts], dim=1)

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """A matrix `[B, n]` to parts `[B, *shape]`, in the matrix's own dtype (views)."""
        parts = torch.split(flat, self.sizes, dim=1)
        return tuple(
            part.reshape(flat.shape[0], *shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        )

    def restore(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Like `split`, each part in the dtype of its input."""
        return tuple(
            part.to(dtype) for part, dtype in zip(self.split(flat), self.dtypes, strict=True)
        )

    def lost(self, flat: Tensor) -> Tensor:
        """What each row loses in the inputs' dtypes, as a fraction of its length, `[B]`.

        Small entries vanish in float16, and large ones overflow.
        """
        if all(dtype.itemsize >= flat.dtype.itemsize for dtype in self.dtypes):
            return torch.zeros_like(flat[:, 0])
        kept = self.flatten([part.double() for part in self.restore(flat)])
        length = flat.double().norm(dim=1)
        found = torch.where(length > 0, (kept - flat).norm(dim=1) / length, 0.0)
        return found.to(flat)


def working_dtype(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """float64 when an input has it, else float32: reduced precision is for network passes only."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def per_sample(value: float | Tensor, like: Tensor) -> Tensor:
    """A number, or one number per sample `[B]`, shaped to broadcast against `like` `[B, ...]`."""
    weight = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return weight.reshape(-1, *[1] * (like.ndim - 1)) if weight.ndim else weight


def per_channel(name: str, values: float | Sequence[float], layout: Layout, like: Tensor) -> Tensor:
    """A number, or one for each channel, for every entry `[n]`.

    Errors: ValueError for a number of channels that differs from the inputs'.
    """
    given = (values,) if isinstance(values, (int, float)) else tuple(values)
    column = torch.tensor(given, dtype=like.dtype, device=like.device)
    parts = []
    for shape, size in zip(layout.shapes, layout.sizes, strict=True):
        if len(given) not in (1, shape[0]):
            raise ValueError(
                f"{name}: expected a number, or {shape[0]} (one for each channel), got {len(given)}"
            )
        parts.append(column.repeat_interleave(size // len(given)))
    return torch.cat(parts)


def flat_scale(std: float | Sequence[float], layout: Layout, like: Tensor) -> Tensor:
    """`std` for every entry `[n]`. Errors: ValueError for a number that is not positive."""
    given = (std,) if isinstance(std, (int, float)) else std
    if not all(0 < value < float("inf") for value in given):
        raise ValueError(f"std: expected numbers > 0, got {std!r}")
    return per_channel("std", std, layout, like)
