"""What a Gaussian mean of numbers in [0, 1] keeps under a perturbation of its input.

h-bar(x) = E h(x + z), z ~ N(0, sigma^2 I), 0 <= h_i <= 1: Phi^-1(h-bar_i) is 1/sigma-Lipschitz in
the Euclidean norm, whatever h. Source: Levine et al. (2019).
"""

from __future__ import annotations

import torch
from torch import Tensor


def overlap_of_bounds(
    estimate: Tensor,
    lower: Tensor,
    upper: Tensor,
    radii: Tensor,
    *,
    sigma: float,
    count: int,
    deviation: float = 0.0,
) -> Tensor:
    """Share of the `count` largest entries of `estimate` that are among the largest at x' too,
    at least, for every x' within each of the `radii` `[R]` of x: `[B, R]`.

    estimate, lower, upper: `[B, n]`, lower <= h-bar(x) <= upper. The map at x' is h-bar(x'), or one
    that is off by at most `deviation` at every entry.

    With L_i the least lower bound of the first i ranks and U_j the greatest upper bound of the
    ranks from j on, the first i ranks stay above all from 2 K - i + 1 on where
    Phi(Phi^-1(L_i) - r / sigma) - Phi(Phi^-1(U_(2K-i+1)) + r / sigma) > 2 deviation;
    then the K largest at x' hold i of the first K ranks. Where 2 K - i + 1 > n that is always so.
    """
    order = estimate.argsort(dim=1, descending=True, stable=True)
    low = torch.special.ndtri(lower.double().gather(1, order)).cummin(1).values
    high = torch.special.ndtri(upper.double().gather(1, order)).flip(1).cummax(1).values.flip(1)
    always = max(0, 2 * count - estimate.shape[1])
    ranks = torch.arange(always, count, device=estimate.device)
    shift = (radii.to(low) / sigma)[None, :, None]
    worst, best = low[:, None, ranks] - shift, high[:, None, 2 * count - 1 - ranks] + shift
    if deviation == 0:  # Phi would round what lies far in its tails
        above = worst > best
    else:
        above = torch.special.ndtr(worst) - torch.special.ndtr(best) > 2 * deviation
    kept: Tensor = (always + above.sum(2)).double() / count
    return kept


def radii_against_rank(
    estimate: Tensor, lower: Tensor, upper: Tensor, *, sigma: float, rank: int
) -> Tensor:
    """Each entry's radius `[B, n]` within which it stays above all that rank `rank` or lower.

    sigma / 2 (Phi^-1(lower_i) - max_(j >= rank) Phi^-1(upper_j)), and 0 where that is negative.
    Ranks count from 1 in the order of `estimate`, largest first; arguments as above.
    """
    if not 1 <= rank <= estimate.shape[1]:
        raise ValueError(f"rank: expected 1 to {estimate.shape[1]}, got {rank!r}")
    order = estimate.argsort(dim=1, descending=True, stable=True)[:, rank - 1 :]
    below = torch.special.ndtri(upper.double().gather(1, order)).amax(1, keepdim=True)
    own = torch.special.ndtri(lower.double())
    return torch.where(own > below, sigma / 2 * (own - below), 0.0)
