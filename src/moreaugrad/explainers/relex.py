"""RelEx: a mask that keeps the class where it is shown, and removes it where it is hidden."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.explainers.penalised import PenalisedExplainer
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.noise import DEFAULT_SIGMA, KEYS, RELATIVE, Noise
from moreaugrad.score.score import Score
from moreaugrad.solvers.fixed_steps import MomentumDescent
from moreaugrad.solvers.problem import SIDES, MaskProblem, sides
from moreaugrad.solvers.solution import Solution

LOG_PROBABILITY = "log-probability"
START = 0.01
"""The mask starts uniform between zero and this."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RelEx(PenalisedExplainer):
    """A = the mask m in [0, 1]^n, one entry for each of the input's, that descends

    mean_z [-ln p(show) - lambda2 ln(1 - p(hide) + 1e-7)] + lambda1 R(m), show = (x + z) * m,
    hide = (x + z) * (1 - m), p the target's probability and R the penalty, by default the L1 norm:
    steps along the gradient at unit length, the mask clamped after each.

    >>> maps = mg.RelEx(model, steps=5).attribute(x)

    Details: `foreground` and `background`, p at x * m and at x * (1 - m). An entry that the loss
    never depended on is 0; a sample without any has the status `NO_GRADIENT`.

    Source: Lim et al. (2021) and the released code. Differs: noise keyed and antithetic, at a level
    fixed for each sample; finite where probabilities are 0 or 1.
    """

    score: str = LOG_PROBABILITY
    """The "log-probability" alone: the loss is made of it."""
    lambda1: float = 1e-4
    """Weight that multiplies the penalty, by default that of the mask's sum."""
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
        like = bound.origin[:, 0]
        problem = MaskProblem(
            score=bound,
            first=self._start(bound),
            lambda2=torch.full_like(like, self.lambda2),
            eta=torch.full_like(like, self.lambda1),
            penalty=self._penalty(bound),
        )
        found = self._solver.solve(problem)
        return replace(found, details=_shown(bound, found.values))

    @property
    def _solver(self) -> MomentumDescent:
        return MomentumDescent(
            steps=self.steps, rate=self.rate, momentum=self.momentum, draws=self.draws
        )

    def _start(self, bound: BoundScore) -> Tensor:
        # The normal distribution's function of a normal draw is uniform.
        keys = [key + KEYS for key in bound.keys]
        normals = Noise(self.seed).normals(keys, 0, bound.origin, bound.mask)
        start: Tensor = START * torch.special.ndtr(normals).expand_as(bound.origin)
        return start if bound.mask is None else start * bound.mask


def _shown(bound: BoundScore, mask: Tensor) -> dict[str, Tensor]:
    """The target's probability where the mask shows the clean input, and where it hides it."""
    unmetered = replace(bound, meter=None)

    def probabilities(rows: Tensor) -> Tensor:
        log_p = bound.value(*sides(bound.origin[rows], mask[rows], rows))
        return torch.stack(log_p.exp().to(mask.dtype).chunk(SIDES), dim=1)

    with torch.no_grad():
        found = unmetered.in_chunks(probabilities, width=SIDES)
    return {"foreground": found[:, 0], "background": found[:, 1]}
