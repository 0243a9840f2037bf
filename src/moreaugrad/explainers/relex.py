"""RelEx: a mask that keeps the class where it shows the input and removes it where it hides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.explainers.penalised import PenalisedExplainer
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.inputs import lengths
from moreaugrad.score.noise import DEFAULT_SIGMA, KEYS, RELATIVE, Noise
from moreaugrad.settings import expect
from moreaugrad.solvers.solution import Solution, Status

LOG_PROBABILITY = "log-probability"
START = 0.01
"""The mask starts uniform between zero and this."""
SIDES = 2
"""Passes of each noise sample: what the mask shows, and what it hides."""
EPSILON = 1e-7


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RelEx(PenalisedExplainer):
    """A = the mask m in [0, 1]^n, an entry for each of the input's, by gradient descent on

    mean_z [-ln p(show) - lambda2 ln(1 - p(hide) + 1e-7)] + lambda1 R(m), show = (x + z) * m,
    hide = (x + z) * (1 - m), p the target's probability and R the penalty, by default the L1 norm:
    with steps of unit length along the gradient, the mask clamped after each.

    >>> maps = mg.RelEx(model, steps=5).attribute(x)

    Details: `foreground` and `background`, p at x * m and at x * (1 - m). An entry that the loss
    never depended on is 0; a sample without any has the status `NO_GRADIENT`.

    Source: Lim et al. (2021) and the released code. Differs: noise is keyed and antithetic,
    its level is fixed for each sample; finite where probabilities are 0 or 1.
    """

    score: str = LOG_PROBABILITY
    """Only "log-probability", of which the loss is made."""
    lambda1: float = 1e-4
    """Weight that multiplies the penalty, by default that of the mask's sum."""
    lambda2: float = 1.0
    """Weight of the term of what the mask hides."""
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
            value = getattr(self, name)
            expect(value > 0, name, "a number > 0", value)
        for name in ("lambda1", "lambda2"):
            value = getattr(self, name)
            expect(0 <= value < torch.inf, name, "a number >= 0", value)
        expect(0 <= self.momentum < 1, "momentum", "a number in [0, 1)", self.momentum)
        super().__post_init__()
        expected = f"{LOG_PROBABILITY!r}, of which RelEx's loss is made"
        expect(self.score == LOG_PROBABILITY, "score", expected, self.score)

    @classmethod
    def published(cls, forward_func: ForwardFunc, **settings: Any) -> Self:
        """The settings of the paper's code: 50 noise samples in each step."""
        return cls(forward_func, **({"draws": 50} | settings))

    def _smoothing(self) -> dict[str, Any]:
        return {
            "sigma": self.sigma, "samples": self.draws, "sigma_mode": self.sigma_mode,
            "noise": Noise(self.seed),
        }  # fmt: skip

    def _draws(self) -> int:
        return SIDES * self.draws

    def map_budget(self) -> int:
        return self._draws() * self.steps

    def _maps(self, bound: BoundScore) -> Solution:
        mask, moved = self._descended(bound)
        # An entry that the loss does not depend on has no evidence: do not keep its random start.
        mask = torch.where(moved, mask, 0.0)
        found = Solution.direct(mask, SIDES * bound.passes * self.steps, Status.FIXED_BUDGET)
        return replace(
            found.marked(Status.NO_GRADIENT, ~moved.any(1)),
            eta=torch.full_like(found.error, self.lambda1),
            steps=torch.full_like(found.steps, self.steps),
            details=_shown(bound, mask),
        )

    def _descended(self, bound: BoundScore) -> tuple[Tensor, Tensor]:
        """v <- momentum v + d / ||d||, m <- project(m - rate v), d a subgradient over fresh noise.

        Returns the mask, and which of its entries the smooth part ever depended on, `[B, n]` each.
        """
        mask, penalty = self._start(bound), self._penalty(bound)
        velocity, moved = torch.zeros_like(mask), torch.zeros_like(mask, dtype=torch.bool)
        for step in range(self.steps):
            draws = range(step * self.draws, (step + 1) * self.draws)
            _, slope = loss_and_slope(bound, mask, self.lambda2, draws)
            moved |= slope != 0
            slope = slope + self.lambda1 * penalty.maximiser(mask)
            length = lengths(slope)[:, None]
            unit = torch.where(length == 0, 0.0, slope / length)
            velocity = self.momentum * velocity + unit
            mask = (mask - self.rate * velocity).clamp(0, 1)
        return mask, moved

    def _start(self, bound: BoundScore) -> Tensor:
        # The normal distribution's function of a normal draw is uniform.
        keys = [key + KEYS for key in bound.keys]
        normals = Noise(self.seed).normals(keys, 0, bound.origin, bound.mask)
        start: Tensor = START * torch.special.ndtr(normals).expand_as(bound.origin)
        return start if bound.mask is None else start * bound.mask


def _shown(bound: BoundScore, mask: Tensor) -> dict[str, Tensor]:
    """The target's probability at what the mask shows of the clean input, and at what it hides."""
    parts = {"foreground": bound.origin * mask, "background": bound.origin * (1 - mask)}
    return {name: bound.scores(part).exp().to(mask.dtype) for name, part in parts.items()}


def loss_and_slope(
    bound: BoundScore, mask: Tensor, lambda2: float, draws: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """mean_z [-ln p(show) - lambda2 ln(1 - p(hide) + 1e-7)] `[B]` and its gradient by the mask.

    bound: ln p. draws: the noise samples; None takes those of the score.
    """

    def work(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        log_p, grad = bound.value_and_grad_at(*_sides(points, mask[rows], rows))
        shown, hidden = grad.chunk(SIDES)
        log_shown, log_hidden = log_p.chunk(SIDES)
        # 1 - e^l loses no digit near l = 0.
        left = EPSILON - torch.expm1(log_hidden)
        weight = lambda2 * log_hidden.exp() / left
        value = -log_shown - lambda2 * left.log()
        return value, -points * (shown + weight[:, None] * hidden)

    value, slope = bound.mean(work, draws=draws, width=SIDES)
    return value, slope


def _sides(points: Tensor, mask: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What masks `[m, n]` show of `points` and then what they hide, `[2m, n]`; and samples."""
    return torch.cat((points * mask, points * (1 - mask))), torch.cat((rows, rows))
