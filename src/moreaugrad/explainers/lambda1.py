"""How lambda1 is chosen, per sample: by a wanted fraction of zeros, by the paper's search."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from moreaugrad.solvers.second_order import Rule
from moreaugrad.solvers.sparsity import eta_for

Magnitudes = Callable[[Tensor], Tensor]
"""Those of a penalty, `[B, G]` of `[B, n]`."""

LEAST_ZEROS = 0.75
"""Fraction of zeros that the paper's search asks for."""
GRID = 40
"""Halvings of lambda1 that the search makes at most."""
ROUNDS, CLOSE = 16, 0.002
"""Trials of lambda1 for a fraction of zeros, and the deviation from it that is left alone."""


def for_sparsity(zeros: float, magnitudes: Magnitudes, counts: Tensor) -> Rule:
    """The lambda1 that is its own pulls' quantile: the root of log(quantile / lambda1).

    magnitudes: of the penalty; `counts` `[B]` of them are real, those of padding do not count.

    It lies between the gradient's quantile, to whose pulls the Hessian adds, and its largest entry,
    at which the solution is zero. By regula falsi in log(lambda1); the Illinois rule halves the
    value of an end that stays, so that both ends move.
    """

    def rule(gradient: Tensor, pulls: Callable[[Tensor], Tensor]) -> Tensor:
        def excess(lambda1: Tensor) -> tuple[Tensor, Tensor]:
            magnitude = magnitudes(pulls(lambda1))
            share = _zeros(magnitude, lambda1, counts)
            quantile = eta_for(magnitude, zeros, counts)
            return (quantile / lambda1).log(), (share - zeros).abs() <= CLOSE

        sizes = magnitudes(gradient)
        quantile, largest = eta_for(sizes, zeros, counts), sizes.amax(1)
        trivial = (quantile <= 0) | ~torch.isfinite(largest)
        low = found = torch.where(trivial, 1.0, quantile)
        high = torch.where(trivial, 1.0, largest)
        below, done = excess(low)
        above = (low / high).log()
        done = done | trivial | (below <= 0)
        for _ in range(ROUNDS):
            if bool(done.all()):
                break
            weight = (below / (below - above)).clamp(0.02, 0.98)
            found = torch.where(done, found, low ** (1 - weight) * high**weight)
            value, near = excess(found)
            rises = value > 0
            low, high = torch.where(rises, found, low), torch.where(rises, high, found)
            below = torch.where(rises, value, below / 2)
            above = torch.where(rises, above / 2, value)
            done = done | near
        return torch.where(trivial, 0.0, found)

    return rule


def searched(magnitudes: Magnitudes, counts: Tensor) -> Rule:
    """Zeros grow with lambda1 and the loss falls: the last of the grid with enough zeros."""

    def rule(gradient: Tensor, pulls: Callable[[Tensor], Tensor]) -> Tensor:
        start = magnitudes(gradient).amax(1)
        found, going = start, torch.ones_like(start, dtype=torch.bool)
        for halvings in range(1, GRID):
            lambda1 = torch.where(going, start / 2**halvings, found)
            going = going & (_zeros(magnitudes(pulls(lambda1)), lambda1, counts) >= LEAST_ZEROS)
            if not bool(going.any()):
                break
            found = torch.where(going, lambda1, found)
        if bool((found == start).any()):  # half of the largest entry leaves too few zeros
            wanted = for_sparsity(LEAST_ZEROS, magnitudes, counts)(gradient, pulls)
            found = torch.where(found == start, wanted, found)
        return found

    return rule


def _zeros(magnitude: Tensor, lambda1: Tensor, counts: Tensor) -> Tensor:
    """Fraction of the real entries that lambda1 sets to zero, `[B]`."""
    return 1 - (magnitude > lambda1[:, None]).sum(1).double() / counts
