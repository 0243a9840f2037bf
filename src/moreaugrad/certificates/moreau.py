"""How fast MoreauGrad's maps change with the input, and how far their largest entries then stay.

For a score whose Hessian has its eigenvalues in [-weak_convexity, smoothness] everywhere, and
rho * weak_convexity < 1. Source: MoreauGrad theorem 1, part 3. The bound for sparse maps differs
from theorem 2 and corollary 2, which have a counter-example: see docs/certificates.md.
"""

from __future__ import annotations

import bisect
import functools
import math

import torch
from torch import Tensor

from moreaugrad.settings import expect

HALVINGS = 60


def probability_curvature(sigma: float) -> float:
    """A bound of the magnitudes of the Hessian's eigenvalues, 2 phi(1) / sigma^2 = 0.484 / sigma^2,
    for E p(x + z), z ~ N(0, sigma^2 I), and any p in [0, 1].

    v'Hv = E p (W^2 - 1) / sigma^2 with W standard normal, and E (W^2 - 1)_+ = 2 phi(1).
    """
    expect(0 < sigma < math.inf, "sigma", "a finite number > 0", sigma)
    return math.sqrt(2 / (math.pi * math.e)) / sigma**2


def smoothed_curvature(lipschitz: float, sigma: float) -> float:
    """A bound of the magnitudes of the Hessian's eigenvalues, sqrt(2 / pi) L / sigma,
    for E f(x + z), z ~ N(0, sigma^2 I), and any f with |f(x) - f(y)| <= L ||x - y||.

    u'Hv = E (u' grad f) (v'z) / sigma^2 and E |v'z| = sqrt(2 / pi) sigma. MoreauGrad
    proposition 1 has the additional factor sqrt(d).
    """
    if not (0 < sigma < math.inf and 0 <= lipschitz < math.inf):
        raise ValueError(
            f"expected finite sigma > 0 and lipschitz >= 0, got {sigma!r} and {lipschitz!r}"
        )
    return math.sqrt(2 / math.pi) * lipschitz / sigma


def vanilla_lipschitz(rho: float, weak_convexity: float, smoothness: float = math.inf) -> float:
    """The Lipschitz constant of MoreauGrad without a penalty,

    max{M / (1 + rho M), lambda / (1 - rho lambda)}, with lambda = weak_convexity, M = smoothness;
    for M = infinity, max{1 / rho, lambda / (1 - rho lambda)}.
    """
    _check(rho, weak_convexity, smoothness)
    up = 1 / rho if smoothness == math.inf else smoothness / (1 + rho * smoothness)
    return max(up, weak_convexity / (1 - rho * weak_convexity))


def sparse_lipschitz(rho: float, weak_convexity: float, smoothness: float) -> float:
    """The Lipschitz constant of MoreauGrad with a convex penalty of fixed weight (L1, groups),

    min{sqrt((M + lambda) / (rho (1 - rho lambda))) / 2 + lambda / (1 - rho lambda),
    max(M, lambda) / (1 - rho lambda)}, with lambda = weak_convexity and a finite M = smoothness.
    """
    _check(rho, weak_convexity, smoothness)
    expect(smoothness < math.inf, "smoothness", "a finite bound of the largest curvature",
           smoothness)  # fmt: skip
    rest = 1 - rho * weak_convexity
    first = math.sqrt((smoothness + weak_convexity) / (rho * rest)) / 2 + weak_convexity / rest
    return min(first, max(smoothness, weak_convexity) / rest)


def distance_within(maps: Tensor, change: Tensor, *, signed: bool = True) -> Tensor:
    """The largest ||A' / ||A'|| - A / ||A|| || for any ||A' - A|| <= change, `[B, R]`.

    It is 2 sin(arcsin(change / ||A||) / 2) while change <= ||A||, else 2 (sqrt 2 for maps >= 0).
    maps: `[B, ...]`. change: `[B, R]`. NaN for a map of zeros.
    """
    length = maps.flatten(1).double().norm(dim=1)[:, None]
    ratio = change.double() / length
    found: Tensor = 2 * (ratio.clamp_max(1).asin() / 2).sin()
    return found.where(ratio <= 1, 2.0 if signed else math.sqrt(2)).where(length > 0, torch.nan)


def overlap_within(maps: Tensor, change: Tensor, count: Tensor) -> Tensor:
    """The smallest fraction of the `count` largest |A| that are among the largest |A'|, for any
    ||A' - A|| <= change, `[B, R]`.

    maps: `[B, ...]`. change: `[B, R]`. count: `[B]`, NaN for 0. With a the magnitudes in descending
    order, m of k members can be replaced where change is at least
    cost(m) = min_t sqrt(sum_(k-m < i <= k) (a_i - t)_+^2 + sum_(k < j <= k+m) (t - a_j)_+^2),
    and the fraction is 1 - m / k for the largest such m.
    """
    flat = maps.flatten(1).double().abs().cpu().sort(dim=1, descending=True).values
    rows = []
    for a, k, changes in zip(flat, count.tolist(), change.tolist(), strict=True):
        cost = functools.cache(functools.partial(_replacement_cost, a, k))
        most = range(1, min(k, len(a) - k) + 1)
        replaced = [bisect.bisect_right(most, r, key=cost) for r in changes]
        rows.append([1 - m / k if k else math.nan for m in replaced])
    return torch.tensor(rows, dtype=torch.float64, device=maps.device).reshape(change.shape)


def _replacement_cost(a: Tensor, k: int, m: int) -> float:
    """The smallest change by which m entries leave the k largest of `a`, in descending order."""
    leaving, entering = a[k - m : k], a[k : k + m]
    low, high = float(entering[-1]), float(leaving[0])
    for _ in range(HALVINGS):  # the derivative with respect to t increases
        t = (low + high) / 2
        slope = (t - entering).clamp_min(0).sum() - (leaving - t).clamp_min(0).sum()
        low, high = (low, t) if slope > 0 else (t, high)
    gaps = torch.cat(((leaving - low).clamp_min(0), (low - entering).clamp_min(0)))
    return float(gaps.norm())


def _check(rho: float, weak_convexity: float, smoothness: float) -> None:
    if not (rho > 0 and weak_convexity >= 0 and smoothness >= 0):
        raise ValueError(
            "expected rho > 0 and bounds of the curvature >= 0, got "
            f"rho = {rho!r}, weak_convexity = {weak_convexity!r}, smoothness = {smoothness!r}"
        )
    if not rho * weak_convexity < 1:
        raise ValueError(
            f"rho: expected less than 1 / weak_convexity = {1 / weak_convexity:.4g}, got {rho:.4g}:"
            " beyond it the map may not be unique, and its change has no bound"
        )
