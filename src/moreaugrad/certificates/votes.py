"""Majority votes of many pixels over noisy inputs, and how far from an input each stays.

With p_c(x) the probability that a pixel of the map at x + z, z ~ N(0, sigma^2 I), is in class c,
Phi^-1(p_c) is 1/sigma-Lipschitz: where p_c(x) > tau >= 1/2, class c keeps more than half of the
votes within sigma Phi^-1(tau) of x. Source: Cohen et al. (2019), arXiv 1902.02918, theorem 1, for
each pixel; Fischer et al. (2021), arXiv 2107.00228, for many of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moreaugrad.certificates.overlap import binomial_lower
from moreaugrad.settings import expect


def vote_radii(
    votes: Tensor,
    against: Tensor,
    samples: int,
    *,
    sigma: float,
    threshold: float = 0.75,
    confidence: float = 0.999,
) -> tuple[Tensor, Tensor]:
    """The class that has more votes, and the radius within which it keeps its majority.

    votes, against: numbers of votes for the one class and for the other, `[B, N]`, of `samples`
    independent draws; the rest has neither class. Returns bool `[B, N]`, True for the first class,
    and the radii `[B, N]` in float64, 0 where nothing is certified. With probability `confidence`
    over the draws, all pixels of a sample keep their class closer to x than their radii, together.

    Half of the failure probability is for radii of any length, by Clopper-Pearson bounds with a
    Bonferroni correction; half for the length that `threshold` gives, sigma Phi^-1(threshold),
    which Holm's tests reach with fewer votes.
    """
    expect(samples >= 1, "samples", "at least 1", samples)
    expect(0.5 <= threshold < 1, "threshold", "a fraction in [0.5, 1)", threshold)
    expect(0 < confidence < 1, "confidence", "a number between 0 and 1", confidence)
    failure = (1 - confidence) / 2
    count = torch.maximum(votes, against)
    lower = binomial_lower(samples, failure / (2 * count.shape[1])).to(count.device)[count]
    radius = sigma * torch.special.ndtri(lower).clamp_min(0)
    certain = _certain(count, samples, threshold, failure)
    level = torch.tensor(threshold, dtype=torch.float64)
    at_threshold = sigma * torch.special.ndtri(level).to(radius)
    return votes > against, torch.where(certain, radius.clamp_min(at_threshold), radius)


def _certain(count: Tensor, samples: int, threshold: float, failure: float) -> Tensor:
    """Where the class with `count` votes has a probability above the threshold, `[B, N]`.

    A claim for the pixels whose classes both have at most the threshold is wrong; Holm's tests make
    one with probability level' at most. The other pixels have one class above the threshold; a
    claim of the other class, which has at most 1 - threshold, needs as many votes, and has the
    probability `other` at most for each pixel. level' leaves room for all of them.
    """
    right, other = _tail(samples, threshold), _tail(samples, 1 - threshold)
    # A pixel of the first kind can be claimed as either class.
    p = (right + other).clamp_max(1)
    enough = int((p > failure).sum())  # the fewest votes that a test accepts
    if enough > samples:
        return torch.zeros_like(count, dtype=torch.bool)
    left = failure - count.shape[1] * float(other[enough])
    return holm(p.to(count.device)[count], left)


def _tail(samples: int, probability: float) -> Tensor:
    """P(at least m of the samples), m = 0 to samples: `[samples + 1]`, falling."""
    from scipy.special import betainc

    counts = torch.arange(1, samples + 1, dtype=torch.float64).numpy()
    tail = torch.from_numpy(betainc(counts, samples - counts + 1, probability))
    return torch.cat((torch.ones(1, dtype=torch.float64), tail))


def holm(p: Tensor, failure: float) -> Tensor:
    """Which of the hypotheses of a row are rejected, by their p-values `[B, N]`: bool `[B, N]`.

    With probability 1 - failure no true one is, whatever their dependence. The k-th smallest
    p-value, from k = 0, is compared with failure / (N - k), up to the first that is larger.
    Source: Holm (1979).
    """
    ordered, order = p.sort(dim=1, stable=True)
    left = torch.arange(p.shape[1], 0, -1, device=p.device)
    passed = (ordered * left <= failure).long().cumprod(1).bool()
    return torch.zeros_like(passed).scatter(1, order, passed)
