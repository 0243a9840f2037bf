"""A safeguard of the stochastic fixed point's damping against curvature."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_CAP = 1e-4
"""Cuts of alpha end here."""
FORGET, TRACK = 0.9, 0.2
"""Memory of the curvature estimate, and of the moving means that it takes secants from."""


class StepGuard:
    """Cuts alpha for samples where y <- y + alpha (T(y) - y) is unstable.

    The fixed point's slope is -kappa, kappa = rho times the score's curvature, and alpha
    (1 + kappa) > 2 diverges. kappa is estimated from secants of T against moving means of earlier
    steps, which costs no evaluation.
    """

    def __init__(self, y: Tensor) -> None:
        self._cap = torch.ones_like(y[:, 0])
        self._along = torch.zeros_like(self._cap)
        self._length = torch.zeros_like(self._cap)
        self._u: Tensor | None = None
        self._moved = y

    def limit(self, alpha: float, u: Tensor, moved: Tensor) -> tuple[Tensor, list[int]]:
        """alpha `[B]` for this step, given T(u) = `moved`; and the samples that were cut anew."""
        allowed = self._cap.clamp_max(alpha)
        if self._u is None:
            self._u, self._moved = u.clone(), moved.clone()
            return allowed, []
        turn, step = moved - self._moved, u - self._u
        self._along = FORGET * self._along - (turn * step).sum(1)
        self._length = FORGET * self._length + step.square().sum(1)
        kappa = self._along / self._length.clamp_min(torch.finfo(u.dtype).tiny)
        unstable = (allowed * (1 + kappa) > 2) & (self._cap > LEAST_CAP)
        lower = torch.minimum(allowed / 2, 1 / (1 + kappa))
        self._cap = torch.where(unstable, lower, self._cap)
        self._moved = self._moved + TRACK * turn
        self._u = self._u + TRACK * step
        return torch.minimum(allowed, self._cap), unstable.nonzero()[:, 0].tolist()

    def select(self, rows: Tensor) -> None:
        for name, item in vars(self).items():
            setattr(self, name, item[rows])
