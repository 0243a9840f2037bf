"""The step length of a stochastic fixed point, cut where curvature makes it unstable."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_CAP = 1e-4
"""Smallest alpha that a cut leaves."""
FORGET, TRACK = 0.9, 0.2
"""Memory of the curvature estimate, and of the moving means that it takes secants from."""
SUSPECT, SEEN_AFTER = 0.5, 32
"""rho times an estimated negative curvature that may turn out to be 1, and steps that show it."""
RECENT, CLEAR = 0.8, 4.0
"""Memory of the noise along a secant, and the multiple of it at which concavity counts as seen."""


class StepGuard:
    """Cuts alpha for samples where y <- y + alpha (T(y) - y) is unstable.

    The fixed point's slope is -kappa, kappa = rho times the score's curvature, and alpha
    (1 + kappa) > 2 diverges. kappa is estimated from secants of T against moving means of earlier
    steps, which costs no evaluation. The guard also records a secant along which -kappa exceeds 1
    by more than noise explains (there the problem is not convex), and whether T changed at all.

    The first secant is between the start and a map of the first step's noise alone, along which T
    falls by that noise: without any curvature kappa would seem to be up to 3.2, for maps with 90 %
    zeros. There only how far T falls behind the start counts, in which that noise has no part; for
    concavity, which it hides, the whole secant does.
    """

    def __init__(self, y: Tensor) -> None:
        self._start: Tensor | None = y
        self._cap = torch.ones_like(y[:, 0])
        self._along = torch.zeros_like(self._cap)
        self._length = torch.zeros_like(self._cap)
        self._excess = torch.zeros_like(self._cap)
        self._noise = torch.zeros_like(self._cap)
        self._bend = torch.zeros_like(self._cap)
        self._u: Tensor | None = None
        self._moved = y
        self._unvaried = torch.ones_like(self._cap, dtype=torch.bool)

    def limit(self, alpha: float, u: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        """alpha `[B]` for this step, given T(u) = `moved`; and whose alpha was cut, `[B]`."""
        allowed = self._cap.clamp_max(alpha)
        if self._u is None:
            self._u, self._moved = u.clone(), moved.clone()
            return allowed, torch.zeros_like(self._unvaried)
        tiny = torch.finfo(u.dtype).tiny
        turn, step = moved - self._moved, u - self._u
        product, square = (turn * step).sum(1), step.square().sum(1)
        # The mean of equal terms is that term, to the bit.
        self._unvaried = self._unvaried & ~turn.any(1)
        size = square.sqrt().clamp_min(tiny)
        along = product / size
        self._excess = torch.maximum(self._excess, along - size)
        self._noise = RECENT * self._noise + (1 - RECENT) * along.square()
        self._moved.add_(turn, alpha=TRACK)
        self._u.add_(step, alpha=TRACK)
        if self._start is not None:
            self._bend = (product / square.clamp_min(tiny)).clamp_min(0)
            kappa = ((self._start - moved) * step).sum(1) / square.clamp_min(tiny)
            self._start = None
        else:
            self._along = FORGET * self._along - product
            self._length = FORGET * self._length + square
            kappa = self._along / self._length.clamp_min(tiny)
            self._bend = torch.maximum(self._bend, -kappa)
        unstable = (allowed * (1 + kappa) > 2) & (self._cap > LEAST_CAP)
        lower = torch.minimum(allowed / 2, 1 / (1 + kappa))
        self._cap = torch.where(unstable, lower, self._cap)
        return torch.minimum(allowed, self._cap), unstable

    def settled(self, steps: int) -> Tensor:
        """Whether enough steps were made to see concavity, where secants suggest that there is,
        `[B]`."""
        return (self._bend < SUSPECT) | (steps >= SEEN_AFTER)

    @property
    def concave(self) -> Tensor:
        """Whether rho times a sample's negative curvature was seen to reach 1, `[B]`."""
        return self._excess > CLEAR * self._noise.sqrt()

    @property
    def unvaried(self) -> Tensor:
        """Whether T was the same in all steps, with different noise, `[B]`."""
        return self._unvaried

    def select(self, rows: Tensor) -> None:
        for name, item in vars(self).items():
            if isinstance(item, Tensor):
                setattr(self, name, item[rows])
