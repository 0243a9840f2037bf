"""What all metrics share: samples one at a time in float64, and undefined maps.

Sums, sorts and filters process one sample after the other: a batch then gives the same values as
its samples alone, in the memory of a few samples. numpy's sorts are several times faster than
torch's on a CPU, so maps on another device are copied one sample at a time.
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
from moreaugrad.settings import Documented, expect

Floats = NDArray[np.float64]

AS_IS = "none"
REDUCTIONS = (AS_IS, *levels.REDUCTIONS)
"""Over the channels, the first axis of images `[C, H, W]` and volumes `[C, D, H, W]`: none (every
entry counts separately), sum_c |A|, sum_c A, max_c |A|."""

SAFE = 300
"""Maps whose magnitude is beyond 2^(+-SAFE) are scaled, so that squares and sums stay finite."""


@dataclass(frozen=True, kw_only=True)
class Aggregate(metaclass=Documented, heading="Attributes"):
    """The mean of a metric over samples.

    >>> mean = mg.metrics.aggregate(mg.metrics.gini(maps)).mean
    """

    mean: float
    """Mean of the samples for which the metric is defined; NaN without any."""
    defined: int
    """Number of these samples."""
    undefined: int
    """Number of the other samples."""


def aggregate(values: Tensor) -> Aggregate:
    """The mean of `[B]` without its NaNs, with their number; NaN where all are undefined."""
    known = values[~values.isnan()].double()
    return Aggregate(
        mean=float(known.mean()) if len(known) else float("nan"),
        defined=len(known),
        undefined=len(values) - len(known),
    )


def defined(flat: Tensor) -> Tensor:
    """Which maps are finite and not zero everywhere, `[B]`; others have no value."""
    return torch.isfinite(flat).all(1) & (flat != 0).any(1)


def by_sample(
    score: Callable[..., float],
    *maps: Tensor,
    reduction: str = AS_IS,
    mask: Tensor | None = None,
) -> Tensor:
    """`score` of the samples of each of `maps`, `[B]` in float64, on the maps' device.

    score: is called with samples that are reduced and in float64. A sample is NaN, without a call,
    where one of its maps is not finite, or zero everywhere before or after the reduction.
    mask: True at real entries, of the maps' shape, like `explanation.mask`; samples are then flat
    and without padding (a pixel is real where one of its channels is).
    Errors: ValueError or TypeError for maps of different shapes, or without a batch dimension.
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


def reduced(maps: Tensor, how: str) -> Tensor:
    """Maps `[B, ...]` reduced as `by_sample` reduces its samples, differentiably."""
    if how == AS_IS or (how == "sum" and maps.ndim < 4):
        return maps
    if how == "sum":
        return maps.sum(1)
    magnitude = maps.abs()
    if maps.ndim < 4:
        return magnitude
    return magnitude.sum(1) if how == "abs-sum" else magnitude.amax(1)


def inner(a: Floats, b: Floats) -> float:
    """<a, b> by numpy's sum: the result of a BLAS depends on its number of threads."""
    return float((a * b).sum())


def ascending(values: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """The order of flat values, and the start and length of each run of equal values."""
    order = np.argsort(values)
    sorted_ = values[order]
    begins = np.empty(values.size, dtype=bool)
    begins[0] = True
    np.not_equal(sorted_[1:], sorted_[:-1], out=begins[1:])
    starts = np.flatnonzero(begins)
    return order, starts, np.diff(starts, append=values.size)


def ranks(values: Floats) -> Floats:
    """Ranks from 1, flattened; equal values have their mean rank."""
    flat = values.ravel()
    order, starts, sizes = ascending(flat)
    shared = starts + (sizes + 1) / 2
    found = np.empty(flat.size)
    found[order] = shared if len(starts) == flat.size else np.repeat(shared, sizes)
    return found


def reals(mask: Tensor, maps: Tensor) -> NDArray[np.bool_]:
    """The mask as an array. Errors: ValueError for one of another shape or type than the maps'."""
    if mask.dtype is not torch.bool or mask.shape != maps.shape:
        raise ValueError(
            f"mask: expected a boolean tensor of the maps' shape {list(maps.shape)}, as "
            f"explanation.mask is, got {mask.dtype} of {list(mask.shape)}"
        )
    return np.asarray(mask.cpu().numpy())


def real(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """The real entries of a sample, or its real pixels, flat."""
    return values[mask if mask.ndim == values.ndim else mask.any(0)]


def check(*maps: Tensor) -> None:
    """Errors: TypeError for other objects than tensors; ValueError for different shapes."""
    for each in maps:
        if not isinstance(each, Tensor):
            raise TypeError(
                f"maps: expected a tensor [B, ...], got {type(each).__name__}; for an explanation "
                "of several inputs, pass one of its parts"
            )
    shapes = [list(each.shape) for each in maps]
    if len(shapes[0]) < 2 or any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            "maps: expected a batch [B, ...], and the same shape for all; got "
            f"{' and '.join(map(str, shapes))}"
        )
    expect(0 not in shapes[0][1:], "maps", "at least one entry in each sample", shapes[0])


def check_ratio(value: float) -> None:
    """Errors: ValueError unless `ratio` is in (0, 1]."""
    expect(0 < value <= 1, "ratio", "a number above 0 and up to 1", value)


def sample(part: Tensor, reduction: str = AS_IS) -> Floats | None:
    """A sample's map, reduced, in float64; None where it is undefined."""
    values = np.asarray(array(part), dtype=np.float64)
    top = max(values.max(), -values.min())
    if not 0 < top < np.inf:  # nor NaN
        return None
    exponent = int(np.frexp(top)[1])
    if abs(exponent) > SAFE:
        # A power of two is exact: equal entries stay equal, and different ones different.
        values = np.ldexp(values, SAFE * (1 if exponent > 0 else -1) - exponent)
    if reduction != AS_IS:
        values = _over_channels(values, reduction)
    return values if values.any() else None


def _over_channels(values: Floats, how: str) -> Floats:
    """`levels.reduce`, which takes the third axis from the end for channels, of a volume too."""
    if values.ndim < 4:
        return levels.reduce(values, how)
    rows = values.reshape(len(values), -1, values.shape[-1])
    return levels.reduce(rows, how).reshape(values.shape[1:])


def array(sample: Tensor) -> NDArray[np.floating]:
    """A sample as an array; half precision becomes float64."""
    sample = sample.detach().cpu()
    if sample.dtype not in (torch.float32, torch.float64):
        sample = sample.double()
    return np.asarray(sample.numpy())
