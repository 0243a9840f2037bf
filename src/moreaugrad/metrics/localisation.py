"""Where a map points, against a mask of where it should.

All take `values` `[B, ...]`, one number per place (larger is more important: reduce channels
first, for example `maps.abs().sum(1)`), and `mask` of the same shape, non-zero where the truth is.
They return `[B]` in float64: NaN where the mask holds all places or none, and for maps that are
zero everywhere or not finite (SPEC 0.7).
"""

from __future__ import annotations

import torch
from torch import Tensor

from moreaugrad.metrics.maps import defined


def auroc(values: Tensor, mask: Tensor) -> Tensor:
    """P(v_in > v_out) + P(v_in = v_out) / 2 for a place inside the mask and one outside.

    Source: the Mann-Whitney form of the area under the receiver operating characteristic.
    """
    flat, inside = _flat(values, mask)
    found = torch.full((len(flat),), torch.nan, dtype=torch.float64, device=flat.device)
    for row in _scored(flat, inside).nonzero()[:, 0].tolist():
        unique, place = torch.unique(flat[row], return_inverse=True)
        hits = torch.bincount(place[inside[row]], minlength=len(unique)).double()
        misses = torch.bincount(place[~inside[row]], minlength=len(unique)).double()
        below = misses.cumsum(0) - misses
        found[row] = (hits * (below + misses / 2)).sum() / (hits.sum() * misses.sum())
    return found


def average_precision(values: Tensor, mask: Tensor) -> Tensor:
    """AP = sum_t (R_t - R_{t-1}) P_t over the distinct values t, from the largest down.

    Equal values enter together, so the order of a sparse map's zeros does not matter; a map that
    tells nothing scores the mask's share of the places.
    """
    flat, inside = _flat(values, mask)
    found = torch.full((len(flat),), torch.nan, dtype=torch.float64, device=flat.device)
    for row in _scored(flat, inside).nonzero()[:, 0].tolist():
        unique, place = torch.unique(-flat[row], return_inverse=True)
        hits = torch.bincount(place[inside[row]], minlength=len(unique)).double()
        chosen = torch.bincount(place, minlength=len(unique)).double().cumsum(0)
        found[row] = (hits / hits.sum() * hits.cumsum(0) / chosen).sum()
    return found


def pointing_game(values: Tensor, mask: Tensor) -> Tensor:
    """1 where the largest value lies in the mask, else 0; of equal largest ones, their share.

    Source: Zhang et al. (2018). Differs: no tolerance around the object.
    """
    flat, inside = _flat(values, mask)
    largest = flat == flat.amax(1, keepdim=True)
    found = (largest & inside).sum(1).double() / largest.sum(1)
    return found.where(_scored(flat, inside), torch.nan)


def _flat(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    if values.shape != mask.shape or values.ndim < 2:
        raise ValueError(
            "expected values and a mask of one shape [B, ...], got "
            f"{list(values.shape)} and {list(mask.shape)}; reduce the map's channels first"
        )
    return values.detach().flatten(1), mask.flatten(1) != 0


def _scored(flat: Tensor, inside: Tensor) -> Tensor:
    return defined(flat) & inside.any(1) & ~inside.all(1)
