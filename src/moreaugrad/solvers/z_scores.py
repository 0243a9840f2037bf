"""z-scores of a map's single entries: how many standard errors each is from another sign or zero.

Standard errors are by the jackknife over blocks of noise samples, of the variable before the
threshold: the map itself hides how far a zero is from it. Few blocks give a poor estimate of one
entry's variance, so it is moderated by those of the sample's other entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from moreaugrad.penalties import Penalty
from moreaugrad.solvers.degrees import pooled_degrees

MOST_DEGREES = 1e4
"""Degrees of freedom from which on Student's t counts as normal."""
ROUNDS = 8
"""Newton's steps for the inverse of the trigamma function, far more than it needs."""


class Measured(NamedTuple):
    """What decides about the entries of a map, `[B, n]` each."""

    values: Tensor
    """The variable before the threshold, or the map itself: of the map's sign."""
    norms: Tensor | None = None
    """Magnitude of each entry, or of its group; None: no threshold is known."""
    margins: Tensor | None = None
    """By how much these exceed the threshold."""

    def known(self) -> list[Tensor]:
        return [item for item in self if item is not None]


class LeftOut(NamedTuple):
    """A block of noise samples that is left out."""

    change: Tensor
    """What the mean over all noise samples changes by without it, `[B, n]`."""
    weight: Tensor
    """(J - 1) / J of J blocks of equal size; 0 for a block that does not count, `[B]`."""


def through(penalty: Penalty, variable: Tensor, tau: Tensor) -> Measured:
    """What decides about the entries of P(variable), P the prox of tau R."""
    margins = penalty.margins(variable, tau)
    if margins is None:
        return Measured(penalty.prox(variable, tau))
    return Measured(variable, penalty.margins(variable, 0.0), margins)


def z_scores(
    measured: Callable[[Tensor], Measured],
    variable: Tensor,
    left_out: Iterable[LeftOut],
    error: Tensor | None = None,
    doubt: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """z `[B, n]` >= 0 of each entry, in units of the normal distribution; NaN where unknown.

    error: length of the error of all values together, `[B]`, to which the jackknife's variances are
    scaled. doubt: a bias that the variable may have, `[B, n]`. mask: False at padding, `[B, n]`.
    """
    whole = measured(variable)
    sums = [_Sums(item) for item in whole.known()]
    weights = torch.zeros_like(variable[:, 0], dtype=torch.float64)
    changes = []
    for change, weight in left_out:
        weights = weights + weight
        if error is None:
            changes.append(change * (weight > 0)[:, None])
        for each, item in zip(sums, measured(variable + change).known(), strict=True):
            each.add(item, weight)
    first = sums[0].variance(weights)
    scale = 1.0 if error is None else (error.double().square() / first.sum(1))[:, None]
    variances = [scale * each.variance(weights) for each in sums]
    if doubt is not None:
        biased = measured(variable + doubt).known()
        variances = [
            variance + (item - each.whole).square()
            for variance, item, each in zip(variances, biased, sums, strict=True)
        ]
    if mask is not None:
        variances = [variance.masked_fill(~mask, torch.nan) for variance in variances]
    degrees = weights.round()
    # An error that is given is widened for few rows already.
    most = pooled_degrees(torch.stack(changes), degrees + 1) if error is None else None
    signs = _normal(whole.values.abs(), variances[0], degrees, most)
    signs = signs.masked_fill(whole.values == 0, torch.nan)
    if whole.norms is None or whole.margins is None:
        return signs.to(variable)
    _, norms, margins = sums
    norm = _unbiased(whole.norms, scale * norms.bias)
    threshold = _unbiased(whole.norms - whole.margins, scale * (norms.bias - margins.bias))
    over = whole.margins > 0
    apart = torch.where(over, norm - threshold, threshold - norm).clamp_min(0)
    found = _normal(apart, variances[2], degrees, most)
    return torch.where(over, torch.minimum(found, signs), found).to(variable)


def joined_z_scores(values: Tensor, chains: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
    """z of the joined map's entries, from the maps and z-scores of independent chains, `[B, n]`;
    0 where one has another sign or zero.

    Source: Stouffer et al. (1949).
    """
    total, same = torch.zeros_like(values), torch.ones_like(values, dtype=torch.bool)
    for own, z in chains:
        total = total + (torch.nan if z is None else z)
        same &= own.sign() == values.sign()
    return torch.where(same, total / math.sqrt(len(chains)), 0.0)


def certain(z: Tensor, zero: Tensor, level: float) -> Tensor:
    """Which entries have a certain sign, or are certainly `zero`, `[B, n]`.

    Of these, at most a fraction 1 - level is expected to be wrong, among the zeros and among the
    other entries of each sample. z: NaN is not certain.
    Source: Benjamini and Hochberg (1995).
    """
    p = torch.erfc(z.double() / math.sqrt(2))  # two-sided
    found = torch.zeros_like(zero)
    for kind in (zero, ~zero):
        own = torch.where(kind, p, torch.nan).nan_to_num(torch.inf)
        count = own.isfinite().sum(1, keepdim=True)
        ordered = own.sort(1).values
        rank = torch.arange(1, p.shape[1] + 1, device=p.device)
        passing = (ordered * count <= (1 - level) * rank) & ordered.isfinite()
        found |= own <= torch.where(passing, ordered, -1.0).amax(1, keepdim=True)
    return found


class _Sums:
    """Weighted sums, over left-out blocks, of deviations from the whole and of their squares, in
    float64: the square of a small float32 is zero."""

    def __init__(self, whole: Tensor) -> None:
        self.whole = whole.double()
        self.bias = torch.zeros_like(self.whole)
        """The jackknife's estimate, once all blocks are added."""
        self._squares = torch.zeros_like(self.whole)

    def add(self, left_out: Tensor, weight: Tensor) -> None:
        apart, weight = left_out - self.whole, weight.double()
        self.bias.addcmul_(apart, weight[:, None])
        self._squares.addcmul_(apart.square(), weight[:, None])

    def variance(self, weights: Tensor) -> Tensor:
        """The jackknife's; weights: sum of those of all blocks, `[B]`."""
        return (self._squares - self.bias.square() / weights[:, None]).clamp_min(0)


def _unbiased(norm: Tensor, bias: Tensor) -> Tensor:
    """A norm without the bias of its square, of which `bias` is what the norm has of it."""
    return (norm.double().square() - 2 * norm * bias).clamp_min(0).sqrt()


def _normal(apart: Tensor, variance: Tensor, degrees: Tensor, most: Tensor | None) -> Tensor:
    """A distance `[B, n]` over its moderated standard error, as z of the normal distribution.

    most: degrees of freedom of all entries together, `[B]`: moderation gives one entry no more.
    Source: Wallace (1959), for Student's t.
    """
    variance, free = moderated(variance, degrees)
    if most is not None:
        free = torch.minimum(free, torch.maximum(most, degrees))
    free = free.clamp_max(MOST_DEGREES)[:, None]
    found = (apart.double().square() / variance / free).log1p().mul(free).sqrt()
    return found * (8 * free + 1) / (8 * free + 3)


def moderated(variance: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Estimated variances `[B, n]`, each moved towards those of the sample's other entries, and
    their degrees of freedom `[B]`, which were `degrees`.

    Empirical Bayes: the true variances have a scaled inverse chi-squared distribution, whose scale
    and degrees of freedom follow from mean and variance of the logarithms of the estimated ones.
    Source: Smyth (2004), section 6.2.
    """
    known = (variance > 0) & torch.isfinite(variance)
    count, half = known.sum(1), degrees.double() / 2
    logs = torch.where(known, variance, 1.0).log().double()
    mean = logs.sum(1) / count.clamp_min(1)
    apart = torch.where(known, logs - mean[:, None], 0.0).square().sum(1)
    spread = apart / (count - 1).clamp_min(1) - torch.special.polygamma(1, half)
    prior = torch.where(count > 1, _trigamma_inverse(spread), 0.0)
    scale = (mean - _log_mean(half) + _log_mean(prior)).exp().nan_to_num(0.0)
    weight = (prior / (prior + half)).to(variance)[:, None]
    found = torch.lerp(variance, scale.to(variance)[:, None], weight)
    return found, 2 * (prior + half).to(variance)


def _log_mean(half: Tensor) -> Tensor:
    """Mean logarithm of a chi-squared variable over its degrees of freedom, twice `half`."""
    found: Tensor = torch.special.digamma(half) - half.log()
    return found


def _trigamma_inverse(value: Tensor) -> Tensor:
    """x with trigamma(x) = value, at most MOST_DEGREES / 2. Source: Smyth (2004), appendix."""
    value = value.clamp_min(2 / MOST_DEGREES)
    x = 0.5 + 1 / value
    for _ in range(ROUNDS):
        now = torch.special.polygamma(1, x)
        x = x + now * (1 - now / value) / torch.special.polygamma(2, x)
    return x
