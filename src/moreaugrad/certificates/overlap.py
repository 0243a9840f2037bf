"""How many of a map's largest entries stay: bounds for MoreauGrad, and for Gaussian means.

MoreauGrad: how fast the map changes with the input, for a score whose Hessian has its eigenvalues
in [-weak_convexity, smoothness] everywhere, and rho * weak_convexity < 1. Source: MoreauGrad
theorem 1, part 3. The bound for sparse maps differs from theorem 2 and corollary 2, which have a
counter-example: see docs/certificates.md.

Gaussian means of numbers in [0, 1], as Sparsified SmoothGrad computes them: for
h-bar(x) = E h(x + z), z ~ N(0, sigma^2 I), 0 <= h_i <= 1, Phi^-1(h-bar_i) is 1/sigma-Lipschitz in
the Euclidean norm, whatever h is (Levine et al., 2019). The means are bounded from independent
noise samples; a Bonferroni correction over the n entries of a map makes the bounds hold together.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from moreaugrad.explainers.sparsified import Moments
from moreaugrad.registry import choose
from moreaugrad.settings import expect

Bounds = tuple[Tensor, Tensor]
AUTO, HOEFFDING, CLOPPER_PEARSON, BERNSTEIN = "auto", "hoeffding", "clopper-pearson", "bernstein"
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
    expect(0 < sigma < math.inf, "sigma", "a finite number > 0", sigma)
    expect(0 <= lipschitz < math.inf, "lipschitz", "a finite number >= 0", lipschitz)
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
    and the fraction is 1 - m / k for the largest such m. Zeros are never among the largest: where
    there are fewer than m others, m members can but become zero (t = 0).
    """
    flat = maps.flatten(1).double().abs().cpu().sort(dim=1, descending=True).values
    rows = []
    for a, k, changes in zip(flat, count.tolist(), change.tolist(), strict=True):
        cost = functools.cache(functools.partial(_replacement_cost, a, k))
        replaced = [bisect.bisect_right(range(1, k + 1), r, key=cost) for r in changes]
        rows.append([1 - m / k if k else math.nan for m in replaced])
    return torch.tensor(rows, dtype=torch.float64, device=maps.device).reshape(change.shape)


def _replacement_cost(a: Tensor, k: int, m: int) -> float:
    """The smallest change by which m entries leave the k largest of `a`, in descending order."""
    leaving, entering = a[k - m : k], a[k : k + m]
    if len(entering) < m:
        return float(leaving.norm())
    low, high = float(entering[-1]), float(leaving[0])
    for _ in range(HALVINGS):  # the derivative with respect to t increases
        t = (low + high) / 2
        slope = (t - entering).clamp_min(0).sum() - (leaving - t).clamp_min(0).sum()
        low, high = (low, t) if slope > 0 else (t, high)
    gaps = torch.cat(((leaving - low).clamp_min(0), (low - entering).clamp_min(0)))
    return float(gaps.norm())


def _check(rho: float, weak_convexity: float, smoothness: float) -> None:
    expect(rho > 0, "rho", "a number > 0", rho)
    expect(weak_convexity >= 0, "weak_convexity", "a bound of the curvature >= 0", weak_convexity)
    expect(smoothness >= 0, "smoothness", "a bound of the curvature >= 0", smoothness)
    if not rho * weak_convexity < 1:
        raise ValueError(
            f"rho: expected less than 1 / weak_convexity = {1 / weak_convexity:.4g}, got {rho:.4g}:"
            " beyond it the map may not be unique, and its change has no bound"
        )


def bounds(moments: Moments, failure: float, bound: str = AUTO) -> Bounds:
    """`lower` and `upper`, `[B, n]` each: with probability at least 1 - failure over the noise,
    lower_i <= E h_i <= upper_i for all entries i of a sample together.

    bound: "hoeffding"; "clopper-pearson", exact, for h that is 0 or 1; "bernstein", by the sample
    variance; "auto", Clopper-Pearson where it applies, else the tighter of the other two at each
    entry, with half of the failure probability for each.
    Errors: ValueError for noise samples that are not independent, and for a bound that does not
    apply.
    """
    choose("bound", bound, (AUTO, *BOUNDS))
    expect(0 < failure < 1, "failure", "a probability between 0 and 1", failure)
    if not moments.independent:
        raise ValueError(
            "expected independent noise samples, got antithetic pairs, for which these bounds are "
            "not valid: use antithetic=False"
        )
    if bound == CLOPPER_PEARSON and not moments.binary:
        raise ValueError(
            "bound: clopper-pearson is for maps of zeros and ones (variant='sparsified'); use "
            "'bernstein', 'hoeffding' or 'auto'"
        )
    if bound == AUTO and not moments.binary:
        pairs = [BOUNDS[name](moments, failure / 2) for name in (HOEFFDING, BERNSTEIN)]
        lower = torch.stack([low for low, _ in pairs]).amax(0)
        upper = torch.stack([high for _, high in pairs]).amin(0)
    else:
        lower, upper = BOUNDS[CLOPPER_PEARSON if bound == AUTO else bound](moments, failure)
    return lower.clamp(0, 1), upper.clamp(0, 1)


def hoeffding_deviation(samples: int, entries: int, failure: float) -> float:
    """c = sqrt(ln(2 n / failure) / (2 q)), within which all means of q samples are (Hoeffding)."""
    return math.sqrt(math.log(2 * entries / failure) / (2 * samples))


def _hoeffding(moments: Moments, failure: float) -> Bounds:
    c = hoeffding_deviation(moments.samples, moments.mean.shape[1], failure)
    return moments.mean - c, moments.mean + c


def _clopper_pearson(moments: Moments, failure: float) -> Bounds:
    """Quantiles of beta distributions, by the count of ones."""
    low = binomial_lower(moments.samples, failure / (2 * moments.mean.shape[1])).to(moments.mean)
    # With zeros instead of ones, the upper bound is the lower one.
    high = 1 - low.flip(0)
    at = (moments.mean * moments.samples).round().long()
    return low[at], high[at]


def binomial_lower(samples: int, failure: float) -> Tensor:
    """Lower bounds of a probability by the number of successes, `[samples + 1]`: one bound exceeds
    it with probability `failure` at most (Clopper and Pearson)."""
    from scipy.special import betaincinv

    counts = torch.arange(1, samples + 1, dtype=torch.float64).numpy()
    low = torch.from_numpy(betaincinv(counts, samples - counts + 1, failure))
    return torch.cat((torch.zeros(1, dtype=torch.float64), low))


def _bernstein(moments: Moments, failure: float) -> Bounds:
    """mean +- sqrt(2 V L / q) + 7 L / (3 (q - 1)), V the sample variance, L = ln(4 n / failure).

    Source: Maurer and Pontil (2009), theorem 4, for h and for 1 - h.
    """
    q = moments.samples
    if q < 2:
        raise ValueError("bound: bernstein needs at least 2 noise samples, got 1")
    log = math.log(4 * moments.mean.shape[1] / failure)
    c = (2 * moments.variance * log / q).sqrt() + 7 * log / (3 * (q - 1))
    return moments.mean - c, moments.mean + c


BOUNDS: Mapping[str, Callable[[Moments, float], Bounds]] = {
    HOEFFDING: _hoeffding,
    CLOPPER_PEARSON: _clopper_pearson,
    BERNSTEIN: _bernstein,
}


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
    """The fraction of the `count` largest entries of `estimate` that are among the largest at x'
    too, at least, for every x' within each of the `radii` `[R]` of x: `[B, R]`.

    estimate, lower, upper: `[B, n]`, lower <= h-bar(x) <= upper. deviation: by how much every entry
    of the map at x' may differ from h-bar(x').

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
    if deviation == 0:  # Phi would round values far in its tails
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
    Ranks count from 1 in the order of `estimate`, largest first; arguments: `overlap_of_bounds`.
    """
    expect(1 <= rank <= estimate.shape[1], "rank", f"1 to {estimate.shape[1]}", rank)
    order = estimate.argsort(dim=1, descending=True, stable=True)[:, rank - 1 :]
    below = torch.special.ndtri(upper.double().gather(1, order)).amax(1, keepdim=True)
    own = torch.special.ndtri(lower.double())
    return torch.where(own > below, sigma / 2 * (own - below), 0.0)
