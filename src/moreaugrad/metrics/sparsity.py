"""How concentrated a map is."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.metrics.maps import AS_IS, Floats, array, by_sample, check, inner, real, reals


def zeros(maps: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Share of (real) entries that are exactly zero, `[B, ...]` -> `[B]`; NaN for a map that is not
    finite, and for one of padding alone."""
    check(maps)
    masks = None if mask is None else reals(mask, maps)

    def score(a: NDArray[np.floating]) -> float:
        known = a.size and np.isfinite(a).all()
        return 1 - np.count_nonzero(a) / a.size if known else math.nan

    samples = [array(sample) for sample in maps]
    if masks is not None:
        samples = [real(*pair) for pair in zip(samples, masks, strict=True)]
    found = [score(sample) for sample in samples]
    return torch.tensor(found, dtype=torch.float64, device=maps.device)


def gini(maps: Tensor, *, reduction: str = AS_IS, mask: Tensor | None = None) -> Tensor:
    """G = sum_k (2k - N - 1) c_(k) / (N ||c||_1), c = |A| in ascending order, `[B, ...]` -> `[B]`.

    0 for a constant map, 1 - 1/N for a single entry; scale invariant. Entries count one by one;
    reduction "abs-sum" gives a number per pixel. NaN for a zero map and for one that is not
    finite. mask: True at the entries that count, as in `explanation.mask`.
    Source: Hurley and Rickard (2009).
    """

    def score(a: Floats) -> float:
        size = np.sort(np.abs(a), axis=None)
        count = len(size)
        weights = np.arange(1 - count, count, 2, dtype=np.float64)
        return inner(weights, size) / (count * float(size.sum()))

    return by_sample(score, maps, reduction=reduction, mask=mask)


def entropy(
    maps: Tensor, *, reduction: str = AS_IS, relative: bool = False, mask: Tensor | None = None
) -> Tensor:
    """H = -sum_i p_i ln p_i, p = |A| / ||A||_1, `[B, ...]` -> `[B]`, in nats.

    0 for a single entry, ln N for a constant map. relative: H / ln N, in [0, 1] (0 where N = 1).
    mask: True at the entries that count, as in `explanation.mask`.
    Source: Bhatt et al. (2020), arXiv 2005.00631.
    """

    def score(a: Floats) -> float:
        size = np.abs(a).ravel()
        p = size[size > 0]
        p = p / p.sum()
        # A rounded sum of one entry's share may be a little below 0.
        found = max(0.0, -inner(p, np.log(p)))
        return found / np.log(size.size) if relative and size.size > 1 else found

    return by_sample(score, maps, reduction=reduction, mask=mask)
