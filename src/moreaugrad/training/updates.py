"""Steps on the inner maximisation: the next displacement, from the last one and a gradient."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.penalties import Penalty
from moreaugrad.settings import Documented
from moreaugrad.training.harmonisation import unit


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
