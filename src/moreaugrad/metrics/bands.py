"""Maps against a truth in steps: nothing, localisation, discriminative feature.

All take `values` `[B, ...]`, one number per place (the signed sum over channels for bands, any
reduction for the binary score), and `truth` of the same shape in [-1, 1]: of synthetic cells 0 for
background, 0.4 for the object, 0.9 for what tells its class. Truth is cut at fixed levels, maps
after normalisation. `[B]` in float64; NaN for maps that are zero everywhere or not finite, and
where a share is of nothing.
Source: Tjoa and Guan (2020); AdvGrad section 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.metrics.maps import Floats, check, sample
from moreaugrad.pictures import levels
from moreaugrad.registry import choose

Bands = NDArray[np.intp]

MEASURES = ("accuracy", "recall", "precision", "false-positive-rate")
NORMALISATIONS = ("max", "display")
EDGES = (0.3, 0.7)


@dataclass(frozen=True, kw_only=True, eq=False)
class Confusion:
    """Places by what a map says and what is true, float64 `[..., B]`; NaN where a map is undefined.

    A hit is a place whose truth and whose prediction are not 0 and the same; a false alarm is a
    prediction that is not 0 where the truth is another band, 0 or not.
    """

    hits: Tensor
    false_alarms: Tensor
    rejections: Tensor
    misses: Tensor

    def measure(self, name: str) -> Tensor:
        """One of `MEASURES`; NaN for 0 / 0, where the released code has 0.

        The released code adds 1e-6 to the other denominators, which are at least 1.
        """
        hits, alarms, right = self.hits, self.false_alarms, self.rejections
        match choose("measure", name, MEASURES):
            case "accuracy":
                return (hits + right) / (hits + alarms + right + self.misses)
            case "recall":
                return hits / (hits + self.misses)
            case "precision":
                return hits / (hits + alarms)
            case _:
                return alarms / (alarms + right)


def five_band_confusion(
    values: Tensor,
    truth: Tensor,
    *,
    edges: Sequence[float] = EDGES,
    truth_edges: Sequence[float] = EDGES,
) -> Confusion:
    """Both in bands -2 .. 2, values after division by their largest magnitude.

    edges: the two (a, b); bands are open below and closed above: a value of b is in 1, one
    of -b in -2. truth_edges: those of the truth.
    """
    of_map, of_truth = _edges("edges", edges), _edges("truth_edges", truth_edges)

    def predict(values: Floats) -> Bands:
        return _bands(values / np.abs(values).max(), of_map)

    return _against(predict, values, lambda known: _bands(known, of_truth), truth)


def five_band(
    values: Tensor,
    truth: Tensor,
    *,
    measure: str = "accuracy",
    edges: Sequence[float] = EDGES,
    truth_edges: Sequence[float] = EDGES,
) -> Tensor:
    """One of `MEASURES` of the five-band confusion, `[B]`.

    Recall is NaN for a truth without a feature (the empty class), precision for a map that has no
    places outside band 0; the released code counts both as 0.
    """
    found = five_band_confusion(values, truth, edges=edges, truth_edges=truth_edges)
    return found.measure(measure)


def five_band_sweep(
    values: Tensor, truth: Tensor, *, step: float = 0.02, count: int = 11
) -> Confusion:
    """The soft version, `[count, B]`: edges of the maps lowered by i step, i = 0 .. count - 1.

    The metric's own sweep ends at (0.1, 0.5); that of the experiments, (0.005, 56), at
    (0.025, 0.425). The truth's edges stay.
    """
    if count < 1 or not step > 0 or not step * (count - 1) < EDGES[0]:
        raise ValueError(
            "step, count: expected at least one pair of levels, the last above 0; "
            f"got step {step!r} and count {count!r}"
        )
    found = [
        five_band_confusion(values, truth, edges=[edge - i * step for edge in EDGES])
        for i in range(count)
    ]
    return Confusion(
        hits=torch.stack([each.hits for each in found]),
        false_alarms=torch.stack([each.false_alarms for each in found]),
        rejections=torch.stack([each.rejections for each in found]),
        misses=torch.stack([each.misses for each in found]),
    )


def binary_confusion(
    values: Tensor,
    truth: Tensor,
    *,
    threshold: float = 0.1,
    normalisation: str = "max",
    truth_edge: float = EDGES[1],
) -> Confusion:
    """Normalised |values| above `threshold` against truth above `truth_edge`.

    normalisation: "max" divides by the largest magnitude, "display" is that of pictures (the 99th
    percentile becomes 1). The paper does not state its own; it cannot be the band edge 0.3.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold: expected a number from 0 to below 1, got {threshold!r}")
    choose("normalisation", normalisation, NORMALISATIONS)

    def predict(values: Floats) -> Bands:
        size = np.abs(values)
        scaled = size / size.max() if normalisation == "max" else levels.normalise(size)
        return (scaled > threshold).astype(np.intp)

    def mark(known: Floats) -> Bands:
        return (known > truth_edge).astype(np.intp)

    return _against(predict, values, mark, truth)


def binary(
    values: Tensor,
    truth: Tensor,
    *,
    measure: str = "accuracy",
    threshold: float = 0.1,
    normalisation: str = "max",
    truth_edge: float = EDGES[1],
) -> Tensor:
    """One of `MEASURES` of the binary confusion, `[B]`; NaN where that is 0 / 0."""
    found = binary_confusion(
        values, truth, threshold=threshold, normalisation=normalisation, truth_edge=truth_edge
    )
    return found.measure(measure)


def _against(
    predict: Callable[[Floats], Bands],
    values: Tensor,
    mark: Callable[[Floats], Bands],
    truth: Tensor,
) -> Confusion:
    check(values, truth)
    counts = np.full((4, len(values)), math.nan)
    for row in range(len(values)):
        known = truth[row].detach().cpu().double().numpy()
        if not (np.abs(known) <= 1).all():
            raise ValueError(f"truth: expected values in [-1, 1], got others in sample {row}")
        found = sample(values[row])
        if found is not None:
            counts[:, row] = _count(predict(found), mark(known))
    hits, alarms, right, misses = torch.from_numpy(counts).to(values.device)
    return Confusion(hits=hits, false_alarms=alarms, rejections=right, misses=misses)


def _count(predicted: Bands, true: Bands) -> tuple[int, int, int, int]:
    said, same = predicted != 0, predicted == true
    parts = (said & same, said & ~same, ~said & same, ~said & ~same)
    hits, alarms, right, misses = (int(part.sum()) for part in parts)
    return hits, alarms, right, misses


def _bands(values: Floats, edges: Floats) -> Bands:
    found: Bands = np.searchsorted(edges, values, side="left") - 2
    return found


def _edges(name: str, edges: Sequence[float]) -> Floats:
    """(-b, -a, a, b). Errors: ValueError unless 0 < a < b < 1."""
    if len(edges) != 2 or not 0 < edges[0] < edges[1] < 1:
        raise ValueError(f"{name}: expected two numbers 0 < a < b < 1, got {list(edges)}")
    low, high = edges
    return np.array([-high, -low, low, high])
