"""Whether what a map marks is what the score depends on: the score as places are replaced.

All take the score bound at the clean inputs (`explainer.bind(x)`: it knows the target, the model
and how many passes fit), the maps `[B, C, H, W]` or `[B, H, W]` of those inputs, and the
`InputSpace` of pixels and normalisation. `how`: see `Replacement`. They return float64: NaN for
maps that are zero everywhere or not finite, and cost draws x (steps + 1) passes for each sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moreaugrad.metrics.perturbation import BLUR, MEAN, Places, Replacement, curves
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import InputSpace

ORDERS = {"morf": (True,), "lerf": (False,), "abpc": (True, False)}
"""Whether the most relevant region goes first; for the difference, both."""

REGIONS = Replacement()
DELETED = Replacement(size=1, replacement=MEAN, draws=4)
INSERTED = Replacement(size=1, replacement=BLUR, draws=4)


def aopc(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    order: str = "morf",
    steps: int = 100,
    how: Replacement = REGIONS,
) -> Tensor:
    """AOPC = 1/(L+1) sum_{k=0..L} (f(x_0) - f(x_k)): `[B]`, x_k with k regions replaced.

    order: "morf", the most relevant first (a faithful map scores high); "lerf", the least (low);
    "abpc": the first minus the second (high). L = `steps`, or all regions where there are fewer.
    The draws of both orders are the same. Source: Samek et al. (2016), arXiv 1509.06321.
    """
    choose("order", order, ORDERS)
    fall = [
        drop_curve(bound, maps, space, falling=falling, steps=steps, how=how).mean(1)
        for falling in ORDERS[order]
    ]
    return fall[0] - fall[1] if len(fall) == 2 else fall[0]


def drop_curve(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    falling: bool = True,
    steps: int = 100,
    how: Replacement = REGIONS,
) -> Tensor:
    """f(x_0) - f(x_k) for k = 0..L: `[B, L + 1]`, the mean over draws; see `aopc`.

    falling: the most relevant region first.
    """
    last = min(_checked(steps), Places.of(bound, how.size).count)
    found = curves(how, bound, maps, space or InputSpace(), range(last + 1), falling=falling)
    return found[:, :1] - found


def deletion_curve(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    steps: int = 100,
    how: Replacement = DELETED,
) -> Tensor:
    """f with the most relevant j/steps of all places replaced, j = 0..steps: `[B, steps + 1]`."""
    return curves(how, bound, maps, space or InputSpace(), _counts(bound, how, steps))


def insertion_curve(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    steps: int = 100,
    how: Replacement = INSERTED,
) -> Tensor:
    """f of the replacement with the most relevant j/steps of all places shown: `[B, steps + 1]`."""
    counts = _counts(bound, how, steps)
    return curves(how, bound, maps, space or InputSpace(), counts, inserted=True)


def deletion(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    steps: int = 100,
    how: Replacement = DELETED,
) -> Tensor:
    """Area under `deletion_curve` over the share of places: `[B]`, low for a faithful map.

    Source: Petsiuk et al. (2018), arXiv 1806.07421. Differs: equal places in random order.
    """
    return area(deletion_curve(bound, maps, space, steps=steps, how=how))


def insertion(
    bound: BoundScore,
    maps: Tensor,
    space: InputSpace | None = None,
    *,
    steps: int = 100,
    how: Replacement = INSERTED,
) -> Tensor:
    """Area under `insertion_curve` over the share of places: `[B]`, high for a faithful map.

    Source: as for `deletion`.
    """
    return area(insertion_curve(bound, maps, space, steps=steps, how=how))


def area(curve: Tensor) -> Tensor:
    """Area under `[B, steps + 1]` over [0, 1] by trapezoids: `[B]`."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)


def _counts(bound: BoundScore, how: Replacement, steps: int) -> list[int]:
    steps, count = _checked(steps), Places.of(bound, how.size).count
    return [round(count * step / steps) for step in range(steps + 1)]


def _checked(steps: int) -> int:
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps!r}")
    return steps
