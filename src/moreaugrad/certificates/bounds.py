"""Bounds of many means at once, from independent draws of numbers in [0, 1].

A Bonferroni correction over the n entries of a sample makes them hold together; samples of a batch
are bounded each for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from moreaugrad.explainers.sparsified import Moments
from moreaugrad.registry import choose

Bounds = tuple[Tensor, Tensor]
AUTO, HOEFFDING, CLOPPER_PEARSON, BERNSTEIN = "auto", "hoeffding", "clopper-pearson", "bernstein"


def bounds(moments: Moments, failure: float, bound: str = AUTO) -> Bounds:
    """`lower` and `upper` `[B, n]`: with probability at least 1 - failure over the draws,
    lower_i <= E h_i <= upper_i for all entries i of a sample together.

    bound: "hoeffding"; "clopper-pearson", exact, for h that is 0 or 1; "bernstein", by the sample
    variance; "auto" is Clopper-Pearson where it applies, else the tighter of the other two at each
    entry, with half of the failure for each.
    Errors: ValueError for draws that depend on each other, and for a bound that does not apply.
    """
    choose("bound", bound, (AUTO, *BOUNDS))
    if not 0 < failure < 1:
        raise ValueError(f"failure: expected a probability between 0 and 1, got {failure!r}")
    if not moments.independent:
        raise ValueError(
            "expected independent draws, got antithetic pairs, which these bounds do not hold "
            "for: use antithetic=False"
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
    """c = sqrt(ln(2 n / failure) / (2 q)): no mean of q draws is off by more (Hoeffding)."""
    return math.sqrt(math.log(2 * entries / failure) / (2 * samples))


def _hoeffding(moments: Moments, failure: float) -> Bounds:
    c = hoeffding_deviation(moments.samples, moments.mean.shape[1], failure)
    return moments.mean - c, moments.mean + c


def _clopper_pearson(moments: Moments, failure: float) -> Bounds:
    """Quantiles of beta distributions, looked up by the count of ones."""
    from scipy.special import betaincinv

    q = moments.samples
    counts = torch.arange(1, q + 1, dtype=torch.float64).numpy()
    each = failure / (2 * moments.mean.shape[1])
    low = torch.from_numpy(betaincinv(counts, q - counts + 1, each))
    low = torch.cat((torch.zeros(1, dtype=torch.float64), low)).to(moments.mean)
    # With zeros in the place of ones the upper bound is the lower one.
    high = 1 - low.flip(0)
    at = (moments.mean * q).round().long()
    return low[at], high[at]


def _bernstein(moments: Moments, failure: float) -> Bounds:
    """mean +- sqrt(2 V L / q) + 7 L / (3 (q - 1)), V the sample variance, L = ln(4 n / failure).

    Source: Maurer and Pontil (2009), theorem 4, for h and for 1 - h.
    """
    q = moments.samples
    if q < 2:
        raise ValueError("bound: bernstein needs at least 2 draws, got 1")
    log = math.log(4 * moments.mean.shape[1] / failure)
    c = (2 * moments.variance * log / q).sqrt() + 7 * log / (3 * (q - 1))
    return moments.mean - c, moments.mean + c


BOUNDS: Mapping[str, Callable[[Moments, float], Bounds]] = {
    HOEFFDING: _hoeffding,
    CLOPPER_PEARSON: _clopper_pearson,
    BERNSTEIN: _bernstein,
}
