"""Several steps on the inner problem of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from moreaugrad.penalties import L1, ElasticNet, GroupL2, Penalty
from moreaugrad.registry import choose
from moreaugrad.score.inputs import per_sample
from moreaugrad.training.inner import TRAIN, InnerProblem
from moreaugrad.training.protocol import Adversary
from moreaugrad.training.updates import (
    LENGTH_FLOOR,
    ConditionalGradient,
    NormalisedAscent,
    ProjectedGradient,
    ProjectedMaximiser,
    Update,
)

MAXIMISER, ZERO, RANDOM = "maximiser", "zero", "random"
STARTS = (MAXIMISER, ZERO, RANDOM)


@dataclass(frozen=True, kw_only=True, eq=False)
class Iterative(Adversary):
    """`steps` times delta <- update(delta, g), g the gradient of the sample's loss at x + delta.

    >>> x_adv = mg.training.Iterative(mg.L1(0.02), steps=3)(model, x, y)

    With a box, delta is cut to it after each update, as projected gradient descent does.

    Source: AdvGrad appendix B.4.
    """

    steps: int = 7
    """Updates of delta."""
    step: float = 0.3
    """Length of an update, in the unit of `update`: for `ConditionalGradient`, the fraction of the
    way to the maximiser."""
    update: Update = field(default_factory=ConditionalGradient)
    """How delta moves: `ConditionalGradient`, `ProjectedMaximiser`, `ProjectedGradient` or
    `NormalisedAscent`."""
    start: str = MAXIMISER
    """Where delta starts: "maximiser", the one-step answer (which costs one more gradient); "zero";
    or "random", a feasible point (for norms; with L1 uniform in the box)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_steps(self.steps)
        if not 0 < self.step < float("inf"):
            raise ValueError(f"step: expected a finite number > 0, got {self.step!r}")
        if isinstance(self.update, ConditionalGradient) and self.step > 1:
            raise ValueError(
                f"step: a conditional gradient takes a share in (0, 1], got {self.step!r}"
            )
        choose("start", self.start, STARTS)
        norm = isinstance(self.penalty, Penalty) and self.penalty.sparse
        if self.start == RANDOM and not norm:
            raise ValueError(
                "start: 'random' draws from the ball of a norm's penalty (L1, GroupL2); "
                f"{type(self.penalty).__name__} has none"
            )

    @classmethod
    def published(cls, penalty: L1 | GroupL2 | ElasticNet, **settings: Any) -> Iterative:
        """The update of the released code: 7 steps from zero, in the mode that the model is in.

        L1: 0.3 epsilon sign(g), clipped. Groups: g / ||g||_2, projected. Elastic net: 0.3 u /
        ||u||_2 with u the gradient of loss - h, so that ||delta||_2 <= 2.1 whatever its weights.
        The paper's text has step=0.3 and start="maximiser" for all of them. settings: others.
        """
        update: Update
        if isinstance(penalty, L1):
            step, update = 0.3, ProjectedMaximiser()
        elif isinstance(penalty, GroupL2):
            step, update = 1.0, ProjectedGradient()
        elif isinstance(penalty, ElasticNet):
            step, update = 0.3, NormalisedAscent()
        else:
            raise ValueError(
                f"published: expected L1, GroupL2 or ElasticNet, got {type(penalty).__name__}, "
                "for which no update was published"
            )
        found = cls(penalty, step=step, update=update, start=ZERO, inner=TRAIN)
        return replace(found, **settings)

    @classmethod
    def random_fast(cls, penalty: Penalty, **settings: Any) -> Iterative:
        """One step of 1.25 maximisers from a random start. Source: Wong, Rice and Kolter (2020)."""
        update = ProjectedMaximiser()
        found = cls(penalty, steps=1, step=1.25, update=update, start=RANDOM, inner=TRAIN)
        return replace(found, **settings)

    def _search(
        self, problem: InnerProblem, penalty: Penalty, ids: Sequence[int] | Tensor | None
    ) -> tuple[Tensor, Tensor]:
        near = problem.near
        delta = near.zero()
        if self.start == MAXIMISER:
            delta = near.inside(penalty.maximiser(problem.gradient(delta)))
        elif self.start == RANDOM:
            normal = self._normal(near, ids)
            # erf(z / sqrt(2)) is uniform in (-1, 1); shrinking entries keeps a ball's point inside.
            delta = near.inside(penalty.maximiser(normal) * torch.erf(normal / 2**0.5).abs())
        for _ in range(self.steps):
            g = problem.gradient(delta)
            delta = near.inside(self.update(penalty, delta, g, self.step))
        return delta, g


@dataclass(frozen=True, kw_only=True, eq=False)
class Momentum(Adversary):
    """v <- decay v + g / ||g||_1, delta <- delta + maximiser(v) / steps, from zero.

    >>> x_adv = mg.training.Momentum(mg.L1(0.02), steps=3)(model, x, y)

    The mean of feasible points is feasible, so nothing is projected, except on a box after each
    step; with `L1` this is MI-FGSM with steps of epsilon / steps. The maximiser sees v at the
    gradient's own ||g||_1, which only matters to penalties with a scale (elastic net, squares).

    Source: Dong et al. (2018), algorithm 1.
    """

    steps: int = 10
    """Steps on the inner problem."""
    decay: float = 1.0
    """Factor that v keeps of its last value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_steps(self.steps)
        if not 0 <= self.decay < float("inf"):
            raise ValueError(f"decay: expected a finite number >= 0, got {self.decay!r}")

    def _search(
        self, problem: InnerProblem, penalty: Penalty, ids: Sequence[int] | Tensor | None
    ) -> tuple[Tensor, Tensor]:
        delta = problem.near.zero()
        velocity = torch.zeros_like(delta)
        for _ in range(self.steps):
            g = problem.gradient(delta)
            size = _absolute(g)
            velocity = self.decay * velocity + g / size
            step = penalty.maximiser(velocity * (size / _absolute(velocity))) / self.steps
            delta = problem.near.inside(delta + step)
        return delta, g


def _absolute(g: Tensor) -> Tensor:
    """||g||_1 to divide by, `[B, 1, ...]`."""
    return per_sample(g.flatten(1).abs().sum(1).clamp_min(LENGTH_FLOOR), g)


def _check_steps(steps: int) -> None:
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: expected an integer >= 1, got {steps!r}")
