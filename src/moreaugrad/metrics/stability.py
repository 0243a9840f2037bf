"""Whether a prediction from a map's largest regions stays when further regions are shown."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from moreaugrad.metrics.maps import defined
from moreaugrad.metrics.places import MEAN, Places, Regions, check_maps, replacement
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import InputSpace
from moreaugrad.score.noise import Stream, generator
from moreaugrad.settings import expect

SHOWN = Regions(size=8, replacement=MEAN, draws=150)
"""150 sets are within 0.1 of the rate with a probability of 0.9."""
UNKNOWN = -2
"""The class that an output predicts which is not finite."""


def soft_stability(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    top: float = 0.25,
    radius: int = 10,
    how: Regions = SHOWN,
) -> Tensor:
    """Fraction of random sets S' with the prediction of S, `[B]`; S holds the most relevant regions
    and S' adds up to `radius` others.

    >>> values = mg.metrics.soft_stability(mg.Score(model).bind(x), maps, radius=2)

    The input is shown at the regions of a set and replaced everywhere else. S is the fraction
    `top` of all regions, without those of no positive relevance; equal ones are chosen at random.
    S' is uniform among all sets that contain S and at most `radius` other regions, as far as there
    are so many. `how.draws` sets are drawn, independently; `stability_bounds` says how far the
    result can be from the probability. NaN for maps that are zero everywhere or not finite, and
    where the model's output for a set is not finite. Needs draws + 1 passes for each sample.
    Errors: ValueError for bad input, and for a regression or a function as the target, which
    predict no class.
    Source: Jin et al. (2025), arXiv 2504.13787, equation (3).
    """
    expect(0 < top <= 1, "top", "a fraction in (0, 1]", top)
    expect(radius >= 0, "radius", "a number of regions >= 0", radius)
    if bound.readout.task == "regression":
        raise ValueError(
            "task: expected one that predicts a class, got a regression, or a function as target"
        )
    check_maps(maps, bound)
    places = Places(bound, how.size)
    known = defined(maps.detach().flatten(1)).nonzero()[:, 0].to(bound.origin.device)
    found = torch.full((len(maps),), torch.nan, dtype=torch.float64, device=bound.origin.device)
    if len(known):
        chosen = [_selected(how, top, places, maps[row], bound.keys[row]) for row in known.tolist()]
        found[known] = _rates(
            how, bound.select(known), space or InputSpace(), places, chosen, radius
        )
    return found


def stability_bounds(rates: Tensor, draws: int, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
    """Bounds of the probabilities that `rates` `[B]` of `soft_stability` estimate, `[B]` each.

    rates +- sqrt(ln(2 / (1 - confidence)) / (2 draws)), within [0, 1]: for each sample with this
    confidence over the draws. NaN stays NaN. Source: Hoeffding (1963).

    >>> low, high = mg.metrics.stability_bounds(torch.tensor([0.9]), draws=150)
    """
    expect(draws >= 1, "draws", "at least 1", draws)
    expect(0 < confidence < 1, "confidence", "a number between 0 and 1", confidence)
    width = math.sqrt(math.log(2 / (1 - confidence)) / (2 * draws))
    return (rates - width).clamp_min(0), (rates + width).clamp_max(1)


def _selected(how: Regions, top: float, places: Places, sample: Tensor, key: int) -> np.ndarray:
    """Which regions are in S, bool `[count]`."""
    relevance = places.relevance(sample, how.reduction)
    ties = generator(how.seed, key, Stream.ORDER, 0).permutation(places.count)
    count = max(1, math.floor(top * places.count + 1e-9))
    chosen = np.zeros(places.count, dtype=bool)
    chosen[np.lexsort((ties, -relevance))[:count]] = True
    return chosen & (relevance > 0)


def _larger(chosen: np.ndarray, radius: int, source: np.random.Generator) -> np.ndarray:
    """A set that is uniform among those that contain `chosen` and at most `radius` others.

    Of the sets, C(m, k) have k of the m others, which decides k; the k are any of them.
    """
    others = np.flatnonzero(~chosen)
    m = len(others)
    logs = np.array([_log_binomial(m, k) for k in range(min(radius, m) + 1)])
    weights = np.exp(logs - logs.max())
    added = int(source.choice(len(weights), p=weights / weights.sum()))
    found = chosen.copy()
    found[source.permutation(others)[:added]] = True
    return found


def _log_binomial(m: int, k: int) -> float:
    return math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k + 1)


def _rates(
    how: Regions,
    bound: BoundScore,
    space: InputSpace,
    places: Places,
    chosen: list[np.ndarray],
    radius: int,
) -> Tensor:
    """The fraction of the drawn sets that have the prediction of the chosen one, `[B]`; NaN where
    an output is not finite."""
    origin, width = bound.origin, how.draws + 1

    @lru_cache(maxsize=2)
    def values(sample: int) -> Tensor:
        """The same for all sets, so that they differ by what they show alone."""
        source = generator(how.seed, bound.keys[sample], Stream.VALUES, 0)
        return replacement(how, origin[sample], bound, space, places, source)

    def work(index: Tensor) -> Tensor:
        points = origin.new_empty(len(index), origin.shape[1])
        for row, number in enumerate(index.tolist()):
            sample, draw = divmod(number, width)
            shown = chosen[sample]
            if draw > 0:
                source = generator(how.seed, bound.keys[sample], Stream.SETS, draw)
                shown = _larger(shown, radius, source)
            own = torch.from_numpy(shown[places.number]).to(origin.device)
            points[row] = torch.where(own.repeat(places.shape[0]), origin[sample], values(sample))
        rows = index // width
        with torch.no_grad():
            outputs = bound.outputs(points, rows)
        if bound.meter is not None:
            bound.meter(len(index))
        found = bound.readout.resolve(outputs, bound.target.select(rows).given)[1]
        return torch.where(outputs.flatten(1).isfinite().all(1), found, UNKNOWN)

    jobs = torch.arange(len(bound) * width, device=origin.device)
    predictions = bound.chunks.over(jobs, work).reshape(len(bound), width)
    same = (predictions[:, 1:] == predictions[:, :1]).double().mean(1)
    return same.masked_fill((predictions == UNKNOWN).any(1), torch.nan)
