"""RelEx: a mask that keeps the class where it is shown, and removes it where it is hidden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.explainers.base import Explainer
from moreaugrad.score.bound import BoundScore, ForwardFunc
from moreaugrad.score.noise import DEFAULT_SIGMA, KEYS, RELATIVE, Noise
from moreaugrad.score.score import Score
from moreaugrad.solvers.solution import Solution, Status

LOG_PROBABILITY = "log-probability"
START = 0.01
"""The mask starts uniform between zero and this."""
SIDES = 2
"""Passes that a draw costs: what the mask shows, and what it hides."""
EPSILON = 1e-7


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RelEx(Explainer):
    """A = the mask m in [0, 1]^n, one entry for each of the input's, that descends

    mean_z [-ln p(show) - lambda2 ln(1 - p(hide) + 1e-7)] + lambda1 ||m||_1, show = (x + z) * m,
    hide = (x + z) * (1 - m), p the target's probability: steps along the gradient at unit length,
    the mask clamped after each.

    >>> maps = mg.RelEx(model, steps=5).attribute(x)

    Details: `foreground` and `background`, p at x * m and at x * (1 - m). An entry that the loss
    never depended on is 0; a sample without any has the status `NO_GRADIENT`.

    Source: Lim et al. (2021) and the released code. Differs: noise keyed and antithetic, at a level
    fixed for each sample; finite where probabilities are 0 or 1.
    """

    score: str = LOG_PROBABILITY
    """The "log-probability" alone: the loss is made of it."""
    lambda1: float = 1e-4
    """Weight of the mask's sum."""
    lambda2: float = 1.0
    """Weight of what is hidden."""
    steps: int = 50
    """Steps of the descent."""
    rate: float = 0.1
    """Length of a step, along the gradient at length one."""
    momentum: float = 0.99
    """Fraction of the last step that the next one keeps."""
    draws: int = 8
    """Fresh noise samples of each step, in antithetic pairs."""
    sigma: float = DEFAULT_SIGMA
    """Standard deviation of the noise, as a fraction of each input's own range (max - min); with
    sigma_mode "absolute" in the input's units."""
    sigma_mode: str = RELATIVE
    """Units of `sigma`: "relative" or "absolute"."""
    seed: int = 0
    """Random seed of the noise and of the mask's start."""

    method: ClassVar[str] = "relex"

    def __post_init__(self) -> None:
        for name in ("rate", "steps", "draws"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a number > 0, got {getattr(self, name)!r}")
        for name in ("lambda1", "lambda2"):
            if not 0 <= getattr(self, name) < torch.inf:
                raise ValueError(f"{name}: expected a number >= 0, got {getattr(self, name)!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), got {self.momentum!r}")
        super().__post_init__()
        if self.score != LOG_PROBABILITY:
            raise ValueError(
                f"score: expected {LOG_PROBABILITY!r}, of which RelEx's loss is made, got "
                f"{self.score!r}"
            )

    @classmethod
    def published(cls, forward_func: ForwardFunc, **settings: Any) -> Self:
        """The settings of the paper's code: 50 draws each step."""
        chosen: dict[str, Any] = {"draws": 50} | settings
        return cls(forward_func, **chosen)

    @cached_property
    def _score(self) -> Score:
        return replace(
            super()._score, sigma=self.sigma, samples=self.draws,
            sigma_mode=self.sigma_mode, noise=Noise(self.seed),
        )  # fmt: skip

    def _draws(self) -> int:
        return SIDES * self.draws

    def budget(self) -> int:
        return self._draws() * self.steps

    def _maps(self, bound: BoundScore) -> Solution:
        mask = self._start(bound)
        velocity, moved = torch.zeros_like(mask), torch.zeros_like(mask, dtype=torch.bool)
        for step in range(self.steps):
            draws = range(step * self.draws, (step + 1) * self.draws)
            (slope,) = bound.mean(self._loss_slope(bound, mask), draws=draws, width=SIDES)
            moved |= slope != 0
            velocity = self.momentum * velocity + _unit(slope + self.lambda1 * mask.sign())
            mask = (mask - self.rate * velocity).clamp(0, 1)
        # What the loss does not see has no evidence: not the chance of the start.
        mask = torch.where(moved, mask, 0.0)
        maps = Solution.direct(mask, SIDES * bound.passes * self.steps, Status.FIXED_BUDGET)
        return replace(
            maps.marked(Status.NO_GRADIENT, ~moved.any(1)),
            steps=torch.full_like(maps.steps, self.steps),
            details=_shown(bound, mask),
        )

    def _start(self, bound: BoundScore) -> Tensor:
        # The normal distribution's function of a normal draw is uniform.
        keys = [key + KEYS for key in bound.keys]
        normals = Noise(self.seed).normals(keys, 0, bound.origin, bound.mask)
        start: Tensor = START * torch.special.ndtr(normals).expand_as(bound.origin)
        return start if bound.mask is None else start * bound.mask

    def _loss_slope(
        self, bound: BoundScore, mask: Tensor
    ) -> Callable[[Tensor, Tensor], tuple[Tensor]]:
        """The derivative by the mask of each draw's two logarithms, without the L1 term."""

        def slope(points: Tensor, rows: Tensor) -> tuple[Tensor]:
            log_p, grad = bound.value_and_grad_at(*_sides(points, mask, rows))
            shown, hidden = grad.chunk(SIDES)
            log_hidden = log_p.chunk(SIDES)[1]
            # d/dl of -ln(1 - e^l + epsilon); 1 - e^l loses no digit near l = 0.
            weight = self.lambda2 * log_hidden.exp() / (EPSILON - torch.expm1(log_hidden))
            return (-points * (shown + weight[:, None] * hidden),)

        return slope


def _sides(points: Tensor, mask: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What the mask shows and then what it hides of `points` `[m, n]`: `[2m, n]`, and samples."""
    kept = mask[rows]
    return torch.cat((points * kept, points * (1 - kept))), torch.cat((rows, rows))


def _unit(slope: Tensor) -> Tensor:
    """Each row at Euclidean length one; a row of zeros stays."""
    length = slope.double().norm(dim=1, keepdim=True)
    return torch.where(length == 0, 0.0, slope / length).to(slope.dtype)


def _shown(bound: BoundScore, mask: Tensor) -> dict[str, Tensor]:
    """The target's probability where the mask shows the clean input, and where it hides it."""
    unmetered = replace(bound, meter=None)

    def probabilities(rows: Tensor) -> Tensor:
        log_p = bound.value(*_sides(bound.origin[rows], mask, rows))
        return torch.stack(log_p.exp().to(mask.dtype).chunk(SIDES), dim=1)

    with torch.no_grad():
        found = unmetered.in_chunks(probabilities, width=SIDES)
    return {"foreground": found[:, 0], "background": found[:, 1]}
