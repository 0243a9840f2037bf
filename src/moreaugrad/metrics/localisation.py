"""Maps compared with ground truth: a mask, a gaze map, or bands of background, object and feature.

All take `values` `[B, ...]`, one number for each place: reduce the channels first, for example
by `maps.abs().sum(1)`, or by the signed sum for bands. The mask or ground truth has the same shape.
They return `[B]` in float64: NaN for maps that are zero everywhere or not finite, for masks of all
places or none, and for a fraction of nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from moreaugrad.metrics.maps import (
    Floats,
    ascending,
    by_sample,
    check,
    check_ratio,
    inner,
    ranks,
    sample,
)
from moreaugrad.pictures import levels
from moreaugrad.registry import choose
from moreaugrad.settings import Documented, expect

Mask = NDArray[np.bool_]
Bands = NDArray[np.intp]

MEASURES = ("accuracy", "recall", "precision", "false-positive-rate")
NORMALISATIONS = ("max", "display")
EDGES = (0.3, 0.7)


def auroc(values: Tensor, mask: Tensor) -> Tensor:
    """P(v_in > v_out) + P(v_in = v_out) / 2 for a place inside the mask and one outside.

    >>> values = mg.metrics.auroc(maps.sum(1), maps.sum(1) > 2)

    The area under the receiver operating characteristic, in its Mann-Whitney form.
    """

    def score(values: Floats, inside: Mask) -> float:
        hits = int(inside.sum())
        above = float(ranks(values)[inside].sum()) - hits * (hits + 1) / 2
        return above / (hits * (inside.size - hits))

    return _against(score, values, mask)


def average_precision(values: Tensor, mask: Tensor) -> Tensor:
    """AP = sum_t (R_t - R_{t-1}) P_t over the distinct values t, from the largest down.

    Equal values enter together, so the order of a sparse map's zeros does not matter; a map without
    information has the fraction of places that are in the mask.
    """

    def score(values: Floats, inside: Mask) -> float:
        order, starts, sizes = ascending(-values)
        hits = np.add.reduceat(inside[order], starts, dtype=np.float64)
        return inner(hits / hits.sum(), hits.cumsum() / sizes.cumsum())

    return _against(score, values, mask)


def pointing_game(values: Tensor, mask: Tensor) -> Tensor:
    """1 where the largest value lies in the mask, else 0; of several largest values, the fraction.

    Source: Zhang et al. (2018). Differs: no tolerance around the object.
    """

    def score(values: Floats, inside: Mask) -> float:
        return float(inside[values == values.max()].mean())

    return _against(score, values, mask)


def gaze_overlap(values: Tensor, mask: Tensor, *, ratio: float = 0.05, blur: float = 0.0) -> Tensor:
    """|top_k(|v|) and top_k(gaze)| / k, k = round(ratio x places): `[B]`, in [0, 1].

    mask: the gaze map itself. Of equal values at the threshold (8-bit gaze maps and sparse maps
    have many), random ones count: the result is the mean over all choices, in both maps
    independently, so that a map without information has about `ratio`. blur: standard deviation in
    pixels of a Gaussian that is first applied to |v|, `[B, H, W]` only; the paper mentions none.
    Source: AdvGrad section 5.3, on CUB-GHA.
    """
    check_ratio(ratio)
    expect(0 <= blur < math.inf, "blur", "pixels >= 0 (0: none)", blur)
    expect(not blur or values.ndim == 3, "blur", "maps [B, H, W]", list(values.shape))

    def score(values: Floats, gaze: Floats) -> float:
        size = np.abs(values)
        size = ndimage.gaussian_filter(size, blur) if blur else size
        k = max(1, round(ratio * size.size))
        return inner(_in_top(size, k), _in_top(gaze, k)) / k

    return by_sample(score, values, mask)


def _in_top(values: Floats, k: int) -> Floats:
    """The probability of each place to be among the k largest, with ties broken at random."""
    flat = values.ravel()
    last = np.partition(flat, flat.size - k)[flat.size - k]
    above, equal = flat > last, flat == last
    chance = (k - np.count_nonzero(above)) / np.count_nonzero(equal)
    return np.where(above, 1.0, np.where(equal, chance, 0.0))


def _against(score: Callable[[Floats, Mask], float], values: Tensor, mask: Tensor) -> Tensor:
    def with_mask(values: Floats, mask: Floats) -> float:
        inside = mask.ravel() != 0
        return math.nan if inside.all() else score(values.ravel(), inside)

    return by_sample(with_mask, values, mask)


@dataclass(frozen=True, kw_only=True, eq=False)
class Confusion(metaclass=Documented, heading="Attributes"):
    """Numbers of places, predicted by a map compared with the ground truth.

    >>> values = torch.linspace(-1, 1, 12).reshape(1, 3, 4)
    >>> recall = mg.metrics.five_band_confusion(values, values).measure("recall")

    float64 `[..., B]`, NaN where a map is undefined.
    """

    hits: Tensor
    """Prediction and ground truth are the same band, not 0."""
    false_alarms: Tensor
    """The prediction is not 0, and the ground truth is another band."""
    rejections: Tensor
    """Prediction and ground truth are 0."""
    misses: Tensor
    """The prediction is 0, and the ground truth is not."""

    def measure(self, name: str) -> Tensor:
        """ "accuracy", "recall", "precision" or "false-positive-rate"; NaN for 0 / 0.

        The released code has 0 there, and adds 1e-6 to other denominators, which are at least 1.
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
    """The confusion of bands -2 .. 2, with values divided by their largest magnitude.

    truth: ground truth in [-1, 1]; of synthetic cells 0 for the background, 0.4 for the object, 0.9
    for the feature of the class. edges, truth_edges: the edges (a, b) for values and ground truth.
    Bands are open below and closed above: a value of b is in band 1, a value of -b in band -2.
    Source: Tjoa and Guan (2020); AdvGrad section 5.1.
    """
    of_map, of_truth = _edges("edges", edges), _edges("truth_edges", truth_edges)

    def predict(values: Floats) -> Bands:
        return _bands(values / np.abs(values).max(), of_map)

    return _confusion(predict, values, lambda known: _bands(known, of_truth), truth)


def five_band(
    values: Tensor,
    truth: Tensor,
    *,
    measure: str = "accuracy",
    edges: Sequence[float] = EDGES,
    truth_edges: Sequence[float] = EDGES,
) -> Tensor:
    """A measure of the five-band confusion, `[B]`; see `Confusion.measure`.

    Recall is NaN where the ground truth is empty, precision where the whole map is in band 0; the
    released code counts both as 0.
    """
    found = five_band_confusion(values, truth, edges=edges, truth_edges=truth_edges)
    return found.measure(measure)


def five_band_sweep(
    values: Tensor, truth: Tensor, *, step: float = 0.02, count: int = 11
) -> Confusion:
    """The soft version, `[count, B]`: edges of the values lowered by i step, i = 0 .. count - 1.

    The paper's metric ends at (0.1, 0.5); its experiments, with step 0.005 and count 56, at
    (0.025, 0.425). The edges of the ground truth do not change.
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
    names = [item.name for item in fields(Confusion)]
    return Confusion(**{n: torch.stack([getattr(each, n) for each in found]) for n in names})


def binary_confusion(
    values: Tensor,
    truth: Tensor,
    *,
    threshold: float = 0.1,
    normalisation: str = "max",
    truth_edge: float = EDGES[1],
) -> Confusion:
    """Normalised |values| above `threshold` compared with ground truth above `truth_edge`.

    normalisation: "max" divides by the largest magnitude; "display" by the 99th percentile, as in
    images. The paper does not state its threshold; it cannot be the band edge 0.3.
    Source: AdvGrad section 5.1.
    """
    expect(0 <= threshold < 1, "threshold", "a number from 0 to below 1", threshold)
    choose("normalisation", normalisation, NORMALISATIONS)

    def predict(values: Floats) -> Bands:
        size = np.abs(values)
        scaled = size / size.max() if normalisation == "max" else levels.normalise(size)
        return (scaled > threshold).astype(np.intp)

    def mark(known: Floats) -> Bands:
        return (known > truth_edge).astype(np.intp)

    return _confusion(predict, values, mark, truth)


def binary(
    values: Tensor,
    truth: Tensor,
    *,
    measure: str = "accuracy",
    threshold: float = 0.1,
    normalisation: str = "max",
    truth_edge: float = EDGES[1],
) -> Tensor:
    """A measure of the binary confusion, `[B]`; see `Confusion.measure`."""
    found = binary_confusion(
        values, truth, threshold=threshold, normalisation=normalisation, truth_edge=truth_edge
    )
    return found.measure(measure)


def _confusion(
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
            predicted, true = predict(found), mark(known)
            marked, same = predicted != 0, predicted == true
            parts = (marked & same, marked & ~same, ~marked & same, ~marked & ~same)
            counts[:, row] = [np.count_nonzero(part) for part in parts]
    hits, alarms, right, misses = torch.from_numpy(counts).to(values.device)
    return Confusion(hits=hits, false_alarms=alarms, rejections=right, misses=misses)


def _bands(values: Floats, edges: Floats) -> Bands:
    found: Bands = np.searchsorted(edges, values, side="left") - 2
    return found


def _edges(name: str, edges: Sequence[float]) -> Floats:
    """(-b, -a, a, b). Errors: ValueError unless 0 < a < b < 1."""
    known = len(edges) == 2 and 0 < edges[0] < edges[1] < 1
    expect(known, name, "two numbers 0 < a < b < 1", list(edges))
    low, high = edges
    return np.array([-high, -low, low, high])
