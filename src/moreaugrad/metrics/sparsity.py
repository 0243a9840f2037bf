"""How concentrated a map is."""

from __future__ import annotations

import torch
from torch import Tensor


def defined(flat: Tensor) -> Tensor:
    """`[B]`: finite and not zero everywhere; other maps have no scores (SPEC 0.7)."""
    return torch.isfinite(flat).all(1) & (flat != 0).any(1)


def zeros(maps: Tensor) -> Tensor:
    """Share of entries that are exactly zero, `[B, ...]` -> `[B]`; NaN for a map that is not
    finite."""
    flat = maps.flatten(1)
    share = (flat == 0).double().mean(1)
    return share.where(torch.isfinite(flat).all(1), torch.nan)


def gini(maps: Tensor) -> Tensor:
    """G = sum_k (2k - N - 1) c_(k) / (N ||c||_1), c = |A| in ascending order, `[B, ...]` -> `[B]`.

    0 for a constant map, 1 - 1/N for a single entry; scale invariant. Entries count one by one:
    sum over the channels first for a number per pixel. NaN for a zero map and for one that is not
    finite. Source: Hurley and Rickard (2009), SPEC 8.1.
    """
    flat = maps.flatten(1)
    # A common factor would let the sum of large maps overflow; it cancels.
    size = flat.abs().double()
    size = size / size.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    ascending = size.sort(1).values
    count = flat.shape[1]
    rank = torch.arange(1, count + 1, device=maps.device, dtype=torch.float64)
    found = (ascending * (2 * rank - count - 1)).sum(1) / (count * ascending.sum(1))
    return found.where(defined(flat), torch.nan)
