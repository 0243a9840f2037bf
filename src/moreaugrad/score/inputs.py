"""The inputs of a model: flat vectors, masks, further arguments, units of pixels; and batches.

Solvers work on one matrix `[B, n]`, a row for each sample; `Layout` says where each input lies in
it. A masked entry (padding) keeps its value in every network pass, so that the score is a function
of the real entries alone, and its gradient at the masked ones is exactly zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, cast

import torch
from torch import Tensor

from moreaugrad.settings import Documented, expect

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where each input lies in the flat `[B, n]` matrix that solvers work on.

    shapes: the inputs' shapes without the batch dimension. dtypes: the inputs', which are also
    those of maps.
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
        """What each row loses when cast to the inputs' dtypes, as a fraction of its length, `[B]`.

        Small entries vanish in float16, and large ones overflow.
        """
        if all(dtype.itemsize >= flat.dtype.itemsize for dtype in self.dtypes):
            return torch.zeros_like(flat[:, 0])
        kept = self.flatten([part.double() for part in self.restore(flat)])
        length = flat.double().norm(dim=1)
        found = torch.where(length > 0, (kept - flat).norm(dim=1) / length, 0.0)
        return found.to(flat)


def working_dtype(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """float64 if an input has it, else float32; only network passes run in reduced precision."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def per_sample(value: float | Tensor, like: Tensor) -> Tensor:
    """A number, or one for each sample `[B]`, shaped to broadcast against `like` `[B, ...]`."""
    if isinstance(value, (int, float)):
        return like.new_full((), value)  # made on the device, for which the host need not wait
    weight = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return weight.reshape(-1, *[1] * (like.ndim - 1)) if weight.ndim else weight


def per_channel(name: str, values: float | Sequence[float], layout: Layout, like: Tensor) -> Tensor:
    """A number, or one for each channel, expanded to every entry `[n]`.

    Errors: ValueError for a number of channels that differs from the inputs'.
    """
    given = (values,) if isinstance(values, (int, float)) else tuple(values)
    column = torch.tensor(given, dtype=like.dtype, device=like.device)
    parts = []
    for shape, size in zip(layout.shapes, layout.sizes, strict=True):
        expected = f"a number, or {shape[0]} (one for each channel)"
        expect(len(given) in (1, shape[0]), name, expected, len(given))
        parts.append(column.repeat_interleave(size // len(given)))
    return torch.cat(parts)


def flat_scale(std: float | Sequence[float], layout: Layout, like: Tensor) -> Tensor:
    """`std` expanded to every entry `[n]`. Errors: ValueError for a number that is not positive."""
    given = (std,) if isinstance(std, (int, float)) else std
    expect(all(0 < value < math.inf for value in given), "std", "numbers > 0", std)
    return per_channel("std", std, layout, like)


MaskLike = Tensor | Sequence[Tensor | None] | None
"""True at real positions: a tensor, or one for each of several inputs (None: all are real)."""


def flat_mask(mask: MaskLike, layout: Layout, like: Tensor) -> Tensor | None:
    """The mask of every entry `[B, n]`, on the device of `like` `[B, n]`; None without a mask.

    Errors: TypeError or ValueError for another type or shape than the inputs have, and for a
    sample of padding alone.
    """
    if mask is None:
        return None
    given = tuple(mask) if isinstance(mask, (tuple, list)) else (mask,)
    batch, count = len(like), len(layout.shapes)
    expect(len(given) == count, "mask", f"one for each of the {count} inputs", len(given))
    parts = [
        _entries(each, batch, shape, like.device)
        for each, shape in zip(given, layout.shapes, strict=True)
    ]
    flat = layout.flatten(parts)
    empty = (~flat.any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(
            "mask: expected at least one real position (True) in each sample, got none in "
            f"sample(s) {empty[:10]}"
        )
    return flat


def _entries(mask: object, batch: int, shape: Shape, device: torch.device) -> Tensor:
    """One input's mask, expanded to its full shape."""
    full = (batch, *shape)
    if mask is None:
        return torch.ones(full, dtype=torch.bool, device=device)
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask: expected a boolean tensor, got {type(mask).__name__}")
    found = mask.to(device)
    if found.dtype is not torch.bool:
        whole = not (found.is_floating_point() or found.is_complex())
        if not whole or bool(((found != 0) & (found != 1)).any()):
            raise TypeError(
                "mask: expected True (or 1) at real positions and False (or 0) at padding, got "
                f"{found.dtype}{' with other values' if whole else ''}"
            )
        found = found.bool()
    got = tuple(found.shape)
    whole = len(got) == len(full) and got[0] == batch
    if whole and all(size in (1, length) for size, length in zip(got, full, strict=True)):
        return found.expand(full)
    if len(got) < 2 or got != full[: len(got)]:
        raise ValueError(
            f"mask: expected the shape of the input {full}, in which axes of length 1 stand for "
            f"all positions, or its leading axes, as {full[:2]}; got {got}"
        )
    return found.reshape(*got, *[1] * (len(full) - len(got))).expand(full)


def spread(flat: Tensor, real: Tensor | None = None) -> Tensor:
    """max - min of each row's real entries, `[B]`; 0 without real entries."""
    if real is None:
        return flat.amax(1) - flat.amin(1)
    top = flat.masked_fill(~real, -torch.inf).amax(1)
    return torch.where(real.any(1), top - flat.masked_fill(~real, torch.inf).amin(1), 0.0)


def lengths(values: Tensor, dim: int = 1) -> Tensor:
    """Euclidean lengths along an axis, in the values' dtype.

    Squares are summed in double precision: those of a gradient of 1e-23, as a probability near 0 or
    1 has, are zero in single precision.
    """
    wide = torch.float32 if values.device.type == "mps" else torch.float64  # which it lacks
    found: Tensor = torch.linalg.vector_norm(values, dim=dim, dtype=wide)
    return found.to(values)


def common(numbers: Tensor) -> int | Tensor:
    """The number that all of `[B]` equal, read on the host; themselves where they differ."""
    found = set(numbers.tolist())
    return found.pop() if len(found) == 1 else numbers


SORTED = 4
"""Rows up to which a GPU sorts: its selection of a rank keeps one multiprocessor busy for each."""


def rank_from_top(values: Tensor, rank: int | Tensor) -> Tensor:
    """The `rank`-th largest of each row `[B, G]`, from 1 on; one rank, or `[B]`. Returns `[B]`."""
    if isinstance(rank, int) and not (values.is_cuda and len(values) <= SORTED):
        return values.kthvalue(values.shape[1] + 1 - rank, dim=1).values
    ordered = values.sort(dim=1, descending=True).values
    if isinstance(rank, int):
        return ordered[:, rank - 1]
    return ordered.gather(1, rank[:, None] - 1)[:, 0]


PIXEL, INPUT = "pixel", "input"
UNITS = (INPUT, PIXEL)
"""Units of lengths: those of the network's input, or of pixels before the normalisation."""


@dataclass(frozen=True, kw_only=True)
class InputSpace(metaclass=Documented):
    """Pixels in [low, high]; the network takes x = (pixel - mean) / std, for each channel.

    >>> space = mg.InputSpace(mean=(0.5,) * 3, std=(0.25,) * 3)

    It is declared once for a model; attacks, metrics and certificates take the box of valid inputs
    and the units of lengths from it.
    """

    mean: float | tuple[float, ...] = 0.0
    """Number that is subtracted from a pixel, or one for each channel."""
    std: float | tuple[float, ...] = 1.0
    """Number that the difference is divided by, or one for each channel."""
    low: float = 0.0
    """Smallest value of a pixel."""
    high: float = 1.0
    """Largest value of a pixel."""

    def __post_init__(self) -> None:
        ordered = -math.inf < self.low < self.high < math.inf
        expect(ordered, "low and high", "low < high", (self.low, self.high))

    def scale(self, layout: Layout, like: Tensor) -> Tensor:
        """std of every entry `[n]`: the length in pixels of one unit of input."""
        return flat_scale(self.std, layout, like)

    def box(self, layout: Layout, like: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest valid input, `[n]` each."""
        scale, mean = self.scale(layout, like), self._mean(layout, like)
        return (self.low - mean) / scale, (self.high - mean) / scale

    def pixels(self, x: Tensor, layout: Layout) -> Tensor:
        """Inputs `[B, n]` as pixels."""
        return x * self.scale(layout, x) + self._mean(layout, x)

    def inputs(self, pixels: Tensor, layout: Layout) -> Tensor:
        """Pixels `[B, n]` as inputs."""
        return (pixels - self._mean(layout, pixels)) / self.scale(layout, pixels)

    def _mean(self, layout: Layout, like: Tensor) -> Tensor:
        return per_channel("mean", self.mean, layout, like)


def take(args: tuple[object, ...], follows: tuple[bool, ...], rows: Tensor) -> tuple[object, ...]:
    """Arguments for these samples. follows: which of them have one row for each sample."""
    return tuple(
        arg[rows.to(arg.device)] if isinstance(arg, Tensor) and along else arg
        for arg, along in zip(args, follows, strict=True)
    )


class Batched:
    """A dataclass whose fields have an entry for each sample, or one value for all.

    Fields with an entry for each sample: a tensor `[B, ...]`, a tuple of such tensors or of B other
    objects, a mapping with such tensors, and an object with a method `select`. All other fields
    are the same for all samples.
    """

    def select(self, rows: Tensor) -> Self:
        """The record of some of the samples."""
        record = cast(Any, self)
        changed = {item.name: _picked(getattr(self, item.name), rows) for item in fields(record)}
        return cast(Self, replace(record, **changed))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The record of several groups of samples, in order."""
        if len(parts) == 1:
            return parts[0]
        names = [item.name for item in fields(cast(Any, cls))]
        return cls(**{name: _joined([getattr(part, name) for part in parts]) for name in names})


def _picked(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, tuple):
        if value and isinstance(value[0], Tensor):
            return tuple(part[rows] for part in value)
        return tuple(value[row] for row in rows.tolist())
    if isinstance(value, Mapping):
        return {k: v[rows] if isinstance(v, Tensor) else v for k, v in value.items()}
    select = getattr(value, "select", None)
    return value if select is None else select(rows)


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, tuple):
        if first and isinstance(first[0], Tensor):
            return tuple(map(torch.cat, zip(*values, strict=True)))
        return sum(values, ())
    if isinstance(first, Mapping):
        return {
            name: torch.cat([each[name] for each in values]) if isinstance(found, Tensor) else found
            for name, found in first.items()
        }
    return first
