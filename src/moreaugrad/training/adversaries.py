"""Protocols that perturb a batch and then take one step there, and the updates that they make."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from moreaugrad.penalties import L1, ElasticNet, GroupL2, Penalty
from moreaugrad.registry import choose
from moreaugrad.score.inputs import per_sample
from moreaugrad.settings import Documented, expect
from moreaugrad.training.harmonisation import LENGTH_FLOOR, unit
from moreaugrad.training.inner import TRAIN, InnerProblem
from moreaugrad.training.protocol import Adversary

MAXIMISER, ZERO, RANDOM = "maximiser", "zero", "random"
STARTS = (MAXIMISER, ZERO, RANDOM)


class Update(metaclass=Documented):
    """A step of `Iterative` or `Free`: the next delta, from delta and the gradient g there."""

    @abstractmethod
    def __call__(self, penalty: Penalty, delta: Tensor, g: Tensor, step: float) -> Tensor: ...


@dataclass(frozen=True)
class ConditionalGradient(Update):
    """(1 - step) delta + step argmax_d <g, d> - h(d).

    >>> adversary = mg.training.Iterative(mg.L1(0.02), update=mg.training.ConditionalGradient())

    Valid for every penalty without a projection: h is convex, so feasible points stay feasible.
    Source: Frank and Wolfe (1956); generalised to h as Bredies, Lorenz and Maass (2009).
    """

    def __call__(self, penalty: Penalty, delta: Tensor, g: Tensor, step: float) -> Tensor:
        return torch.lerp(delta, penalty.maximiser(g), step)


@dataclass(frozen=True)
class ProjectedMaximiser(Update):
    """project(delta + step argmax_d <g, d> - h(d)).

    >>> adversary = mg.training.Iterative(mg.L1(0.02), update=mg.training.ProjectedMaximiser())

    With `L1`: step times epsilon sign(g), clipped to epsilon. Source: AdvGrad's released code.
    """

    def __call__(self, penalty: Penalty, delta: Tensor, g: Tensor, step: float) -> Tensor:
        return project(penalty, delta + step * penalty.maximiser(g))


@dataclass(frozen=True)
class ProjectedGradient(Update):
    """project(delta + step g / ||g||_2).

    >>> adversary = mg.training.Iterative(mg.L1(0.02), update=mg.training.ProjectedGradient())

    Source: AdvGrad's released code for groups (step 1).
    """

    def __call__(self, penalty: Penalty, delta: Tensor, g: Tensor, step: float) -> Tensor:
        # Twice: after a step far longer than the ball, the result is a difference of large numbers.
        return project(penalty, project(penalty, delta + step * unit(g)))


@dataclass(frozen=True)
class NormalisedAscent(Update):
    """delta + step u / ||u||_2 with u = g - grad h(delta): for an h that is finite everywhere.

    >>> update = mg.training.NormalisedAscent()
    >>> adversary = mg.training.Iterative(mg.ElasticNet(0.01, 0.05), update=update)

    Source: AdvGrad's released code for the elastic net.
    """

    def __call__(self, penalty: Penalty, delta: Tensor, g: Tensor, step: float) -> Tensor:
        with torch.enable_grad():
            leaf = delta.detach().requires_grad_()
            h = penalty.conjugate(leaf)
            if not h.requires_grad or not bool(torch.isfinite(h).all()):
                raise ValueError(
                    f"NormalisedAscent: expected a penalty whose conjugate is finite and smooth, "
                    f"such as ElasticNet with l2 > 0, got {penalty!r}: use ConditionalGradient()"
                )
            (slope,) = torch.autograd.grad(h.sum(), leaf)
        return delta + step * unit(g - slope)


def project(penalty: Penalty, delta: Tensor) -> Tensor:
    """The proximal point of h (Moreau's identity); of a norm's h, the nearest feasible point."""
    return delta - penalty.prox(delta, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fast(Adversary):
    """delta = argmax_d <g, d> - h(d), g the gradient of the sample's loss at x.

    >>> x_adv = mg.training.Fast(mg.ElasticNet(0.01, 0.05))(model, x, y)

    With `L1` this is the fast gradient sign. Source: AdvGrad appendix B.3.
    """

    def _search(self, problem: InnerProblem, penalty: Penalty) -> tuple[Tensor, Tensor]:
        g = problem.gradient(problem.zero())
        return penalty.maximiser(g), g


@dataclass(frozen=True, kw_only=True, eq=False)
class Iterative(Adversary):
    """`steps` times delta <- update(delta, g), g the gradient of the sample's loss at x + delta.

    >>> x_adv = mg.training.Iterative(mg.L1(0.02), steps=3)(model, x, y)

    With a box, delta is clipped to it after each update, as in projected gradient descent.

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
    """Where delta starts: "maximiser", the one-step answer (which needs one more gradient); "zero";
    or "random", a feasible point (for norms; with L1 uniform in the box)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = isinstance(self.steps, int) and self.steps >= 1
        expect(known, "steps", "an integer >= 1", self.steps)
        expect(0 < self.step < float("inf"), "step", "a finite number > 0", self.step)
        fits = self.step <= 1 or not isinstance(self.update, ConditionalGradient)
        expect(fits, "step", "a fraction in (0, 1] for a conditional gradient", self.step)
        choose("start", self.start, STARTS)
        norm = isinstance(self.penalty, Penalty) and self.penalty.sparse
        if self.start == RANDOM and not norm:
            raise ValueError(
                "start: 'random' takes a point in the ball of a norm's penalty (L1, GroupL2); "
                f"{type(self.penalty).__name__} has none"
            )

    @classmethod
    def published(cls, penalty: L1 | GroupL2 | ElasticNet, **settings: Any) -> Iterative:
        """The update of the released code: 7 steps from zero, in the mode that the model is in.

        L1: 0.3 epsilon sign(g), clipped. Groups: g / ||g||_2, projected. Elastic net: 0.3 u /
        ||u||_2 with u the gradient of loss - h, so that ||delta||_2 <= 2.1 whatever its weights.
        The paper's text has step=0.3 and start="maximiser" for all of them. settings: replace any.
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
        """One step of 1.25 maximisers from a random point. Source: Wong, Rice and Kolter (2020)."""
        update = ProjectedMaximiser()
        found = cls(penalty, steps=1, step=1.25, update=update, start=RANDOM, inner=TRAIN)
        return replace(found, **settings)

    def _search(self, problem: InnerProblem, penalty: Penalty) -> tuple[Tensor, Tensor]:
        delta = problem.zero()
        if self.start == MAXIMISER:
            delta = problem.inside(penalty.maximiser(problem.gradient(delta)))
        elif self.start == RANDOM:
            normal = self._normal(problem)
            # erf(z / sqrt(2)) is uniform in (-1, 1); shrinking entries keeps a ball's point inside.
            delta = problem.inside(penalty.maximiser(normal) * torch.erf(normal / 2**0.5).abs())
        for _ in range(self.steps):
            g = problem.gradient(delta)
            delta = problem.inside(self.update(penalty, delta, g, self.step))
        return delta, g


@dataclass(frozen=True, kw_only=True, eq=False)
class Momentum(Adversary):
    """From zero, v <- decay v + g / ||g||_1 and delta <- delta + maximiser(v) / steps.

    >>> x_adv = mg.training.Momentum(mg.L1(0.02), steps=3)(model, x, y)

    The mean of feasible points is feasible, so delta is not projected, except to a box after each
    step; with `L1` this is MI-FGSM with steps of epsilon / steps. The maximiser is given v scaled
    to the gradient's ||g||_1, which only matters for penalties with a scale (elastic net, squares).

    Source: Dong et al. (2018), algorithm 1.
    """

    steps: int = 10
    """Steps on the inner problem."""
    decay: float = 1.0
    """Factor by which the last v is multiplied."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = isinstance(self.steps, int) and self.steps >= 1
        expect(known, "steps", "an integer >= 1", self.steps)
        expect(0 <= self.decay < float("inf"), "decay", "a finite number >= 0", self.decay)

    def _search(self, problem: InnerProblem, penalty: Penalty) -> tuple[Tensor, Tensor]:
        delta = problem.zero()
        velocity = torch.zeros_like(delta)
        for _ in range(self.steps):
            g = problem.gradient(delta)
            size = _absolute(g)
            velocity = self.decay * velocity + g / size
            step = penalty.maximiser(velocity * (size / _absolute(velocity))) / self.steps
            delta = problem.inside(delta + step)
        return delta, g


def _absolute(g: Tensor) -> Tensor:
    """||g||_1 as a divisor, `[B, 1, ...]`."""
    return per_sample(g.flatten(1).abs().sum(1).clamp_min(LENGTH_FLOOR), g)
