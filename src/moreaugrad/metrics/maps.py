"""What all metrics share: samples one at a time in float64, and what an undefined one is.

Sums, sorts and filters run on one sample after the other: a batch then gives what its samples
give alone, and the memory is that of a few samples. numpy's sorts are several times faster than
torch's on a processor, so maps on another device are brought over a sample at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.pictures import levels
from moreaugrad.registry import choose

Floats = NDArray[np.float64]

AS_IS = "none"
REDUCTIONS = (AS_IS, *levels.REDUCTIONS)
"""Over the channels: every entry by itself, sum_c |A|, sum_c A, or max_c |A|."""

SAFE = 300
"""Magnitudes beyond 2^(+-SAFE) are brought there, so that squares and sums stay finite."""


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """Mean of the samples that have a value, and how many have and have not."""

    mean: float
    defined: int
    undefined: int


def aggregate(values: Tensor) -> Aggregate:
    """The mean of `[B]` without its NaNs, with their count; NaN where all are undefined."""
    known = values[~values.isnan()].double()
    return Aggregate(
        mean=float(known.mean()) if len(known) else float("nan"),
        defined=len(known),
        undefined=len(values) - len(known),
    )


def defined(flat: Tensor) -> Tensor:
    """`[B]`: finite and not zero everywhere; other maps have no scores."""
    return torch.isfinite(flat).all(1) & (flat != 0).any(1)


def by_sample(
    score: Callable[..., float],
    *maps: Tensor,
    reduction: str = AS_IS,
    mask: Tensor | None = None,
) -> Tensor:
    """`score` of one sample of each of `maps`: `[B]`, float64, on the maps' device.

    Samples reach it reduced and in float64. A sample is NaN without being asked where one of its
    maps is zero everywhere, before or after the reduction, or not finite.
    mask: True at real entries, of the maps' shape, as an explanation has it; then samples reach it
    flat and without the others (a pixel is real where one of its channels is).
    Errors: ValueError or TypeError for maps of other shapes than each other's, or of no batch.
    """
    check(*maps)
    masks = None if mask is None else reals(mask, maps[0])
    choose("reduction", reduction, REDUCTIONS)
    found = np.full(len(maps[0]), np.nan)
    for row, parts in enumerate(zip(*maps, strict=True)):
        samples = [sample(part, reduction) for part in parts]
        known = [each for each in samples if each is not None]
        if masks is not None:
            known = [left for each in known if (left := real(each, masks[row])).any()]
        if len(known) == len(samples):
            found[row] = score(*known)
    return torch.from_numpy(found).to(maps[0].device)


def inner(a: Floats, b: Floats) -> float:
    """<a, b>, by numpy's own sum: that of a BLAS depends on its threads."""
    return float((a * b).sum())


def ascending(values: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """For flat values: their order, and where each run of equal ones starts and how long it is."""
    order = np.argsort(values)
    sorted_ = values[order]
    begins = np.empty(values.size, dtype=bool)
    begins[0] = True
    np.not_equal(sorted_[1:], sorted_[:-1], out=begins[1:])
    starts = np.flatnonzero(begins)
    return order, starts, np.diff(starts, append=values.size)


def ranks(values: Floats) -> Floats:
    """Ranks from 1, equal values sharing their mean rank, flattened."""
    flat = values.ravel()
    order, starts, sizes = ascending(flat)
    shared = starts + (sizes + 1) / 2
    found = np.empty(flat.size)
    found[order] = shared if len(starts) == flat.size else np.repeat(shared, sizes)
    return found


def reals(mask: Tensor, maps: Tensor) -> NDArray[np.bool_]:
    """The mask of these maps. Errors: ValueError for one of another shape or type."""
    if mask.dtype is not torch.bool or mask.shape != maps.shape:
        raise ValueError(
            f"mask: expected a boolean tensor of the maps' shape {list(maps.shape)}, as "
            f"explanation.mask is, got {mask.dtype} of {list(mask.shape)}"
        )
    return np.asarray(mask.cpu().numpy())


def real(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """The real ones of a sample's entries, or of its pixels, flat."""
    return values[mask if mask.ndim == values.ndim else mask.any(-3)]


def check(*maps: Tensor) -> None:
    """Errors: TypeError for what is no tensor; ValueError for shapes that are not all the same."""
    for each in maps:
        if not isinstance(each, Tensor):
            raise TypeError(
                f"maps: expected a tensor [B, ...], got {type(each).__name__}; of an explanation "
                "of several inputs, give one of its parts"
            )
    shapes = [list(each.shape) for each in maps]
    if len(shapes[0]) < 2 or any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            "maps: expected a batch [B, ...], and the same shape for all; got "
            f"{' and '.join(map(str, shapes))}"
        )
    if 0 in shapes[0][1:]:
        raise ValueError(f"maps: expected at least one entry in each sample, got {shapes[0]}")


def share(name: str, value: float) -> float:
    """`value` if it is a share. Errors: ValueError where it is not in (0, 1]."""
    if not 0 < value <= 1:
        raise ValueError(f"{name}: expected a number above 0 and up to 1, got {value!r}")
    return value


def sample(part: Tensor, reduction: str = AS_IS) -> Floats | None:
    """One sample's map, reduced, in float64; None where it has no score."""
    values = np.asarray(array(part), dtype=np.float64)
    top = max(values.max(), -values.min())
    if not 0 < top < np.inf:  # nor NaN
        return None
    exponent = int(np.frexp(top)[1])
    if abs(exponent) > SAFE:
        # A power of two: exact, so that equal entries stay equal and others do not become so.
        values = np.ldexp(values, SAFE * (1 if exponent > 0 else -1) - exponent)
    if reduction != AS_IS:
        values = levels.reduce(values, reduction)
    return values if values.any() else None


def array(sample: Tensor) -> NDArray[np.floating]:
    """One sample for numpy; reduced precision, which it lacks, becomes float64."""
    sample = sample.detach().cpu()
    if sample.dtype not in (torch.float32, torch.float64):
        sample = sample.double()
    return np.asarray(sample.numpy())
