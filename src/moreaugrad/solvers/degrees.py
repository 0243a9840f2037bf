"""How much a spread that is estimated from few rows says: degrees of freedom, and how Student's t
widens an error for them.

Rows that vary along few directions give a poor estimate of their own spread. With the effective
number of directions d = (sum of C's eigenvalues)^2 / (sum of their squares), C the rows'
covariance, the estimate has (J - 1) d degrees of freedom of J rows (Satterthwaite, 1946).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from moreaugrad.score.inputs import lengths

LEVEL, NODES = 0.975, 513
"""Quantile at which Student's distribution is compared with the normal one, and the nodes between
which the ratio is interpolated in 1 / (degrees of freedom), to 2e-6."""
LEAST = 1e-6
"""Least 1 / d."""


def student_factor(deviations: Tensor, count: Tensor) -> Tensor:
    """Factors `[B]` >= 1 by which Student's t widens the error estimated from centred rows.

    deviations: `[J, B, n]`, of which `count` `[B]` rows are not just zeros.
    """
    ratio, free = _concentration(deviations, count)
    # J rows make 1 / d too large by about 1 / (J - 1).
    inverse = torch.where(free > 1, (ratio - 1 / free).clamp_min(LEAST) / free, 1.0)
    return torch.where(ratio.isnan(), 1.0, _widened(inverse))


def pooled_degrees(deviations: Tensor, count: Tensor) -> Tensor:
    """Degrees of freedom `[B]` of the variances of all entries together, from centred rows.

    Entries that vary together say no more than one of them, however many they are.
    """
    length = lengths(deviations, 0)
    scaled = deviations / torch.where(length > 0, length, 1.0)
    ratio, free = _concentration(scaled, count)
    # As above, but for rows along one direction, whose ratio is exactly 1.
    few = 1 / free
    inverse = torch.where(free > 1, ((ratio - few) / (1 - few)).clamp_min(LEAST), 1.0)
    return torch.where(ratio.isnan(), torch.inf, free / inverse)


def _concentration(deviations: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """1 / d of the rows themselves `[B]`, NaN where they do not vary, and J - 1."""
    rows = deviations.movedim(0, 1)
    rows = rows / rows.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    inner = rows @ rows.mT
    total = inner.diagonal(dim1=1, dim2=2).sum(1)
    known = (total > 0) & torch.isfinite(total)
    inner = inner / torch.where(known, total, 1.0)[:, None, None]
    ratio = inner.square().sum((1, 2)).masked_fill(~known, torch.nan)
    return ratio, (count - 1).clamp_min(1).to(deviations)


def _widened(inverse: Tensor) -> Tensor:
    """Quantile of Student's t over that of the normal distribution, at 1 / (degrees of freedom)."""
    table = _student_quantiles(inverse.dtype, inverse.device)
    place = inverse.nan_to_num().clamp(0, 1) * (NODES - 1)
    low = place.long().clamp_max(NODES - 2)
    return torch.lerp(table[low], table[low + 1], place - low)


@lru_cache
def _student_quantiles(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What `_widened` interpolates, at `NODES` values from 0 to 1."""
    from scipy.special import ndtri, stdtrit

    degrees = 1 / np.linspace(0, 1, NODES)[1:]
    ratios = np.concatenate([[1.0], stdtrit(degrees, LEVEL) / ndtri(LEVEL)])
    return torch.from_numpy(ratios).to(device, dtype)
