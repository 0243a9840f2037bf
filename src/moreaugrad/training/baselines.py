"""What the adversaries are compared with: the penalty itself, noise, and plain training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from moreaugrad.curvature.second_derivatives import (
    check_twice_differentiable,
    twice_differentiable,
)
from moreaugrad.settings import expect
from moreaugrad.training.harmonisation import PublishedHarmonisation
from moreaugrad.training.inner import InnerProblem, input_gradient
from moreaugrad.training.penalty import PenaltyProtocol, vanishes
from moreaugrad.training.places import TRAIN, in_mode
from moreaugrad.training.protocol import PerturbingProtocol
from moreaugrad.training.rounds import Perturbation, Round


@dataclass(frozen=True, kw_only=True, eq=False)
class Penalised(PenaltyProtocol):
    """loss + weight R(g), g the gradient of the sample's own loss at x (double backward).

    >>> for r in mg.training.Penalised(mg.SquaredL2(0.1)).rounds(model, x, y):
    ...     r.loss.mean().backward()  # between zero_grad() and step() of an optimiser

    R is differentiated by its maximiser m (Danskin): <dg, m> is finite where norms are zero. h,
    norm and gap of a round are those of m, the perturbation that corresponds to R. The network
    needs second derivatives (`NoSecondDerivative` where an operator has none); attention is
    computed without fused kernels.

    Source: AdvGrad section 3 (the penalty training that its protocols approximate).
    """

    weight: float = 1.0
    """Weight of R, added to the loss."""
    inner: str = TRAIN
    """Mode of the pass that computes g: "train", the training pass itself; "eval" needs another
    pass."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 <= self.weight < float("inf"), "weight", "a finite number >= 0", self.weight)
        if self.box:
            raise ValueError("box: penalised training takes no step, so nothing leaves the box")
        if isinstance(self.penalty, PublishedHarmonisation):
            raise ValueError(
                "penalty: the published harmonisation is a heuristic direction, not a penalty on a "
                "gradient: use Harmonisation"
            )

    def _rounds(self, problem: InnerProblem) -> Iterator[Round]:
        penalty, zero = self._penalty(problem), problem.zero()
        if self.weight == 0 or vanishes(penalty, zero):
            found = self._perturbation(problem, penalty, zero, zero, problem.x)
            yield Round.at(found, problem.values(problem.x))
            return
        with torch.enable_grad(), twice_differentiable():
            leaf = problem.x.clone().requires_grad_()
            values = penalised = problem.values(leaf)
            if self.inner != TRAIN:
                with in_mode(problem.model, self.inner):
                    penalised = problem.values(leaf)
            check_twice_differentiable(penalised, leaf)
            g = problem.slope(input_gradient(penalised, leaf))
            fixed = g.detach()
            m = penalty.maximiser(fixed)
            found = self._perturbation(problem, penalty, m, fixed, problem.x)
            # Its value is R(g), its derivative that of <g, m>.
            linear = ((g - fixed) * m).flatten(1).sum(1)
            if self.tally.calls == 0 and linear.requires_grad:
                # The caller's backward pass would fail with torch's own message: try it once here.
                torch.autograd.grad(linear.sum(), leaf, retain_graph=True, allow_unused=True)
            total = values + self.weight * (penalty.value(fixed) + linear).to(values.dtype)
        self.tally.calls += 1
        yield Round.at(found, total)


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianNoise(PerturbingProtocol):
    """x + sigma z, z standard normal, different at each call.

    >>> for r in mg.training.GaussianNoise(0.1).rounds(model, x, y):
    ...     r.loss.mean().backward()  # between zero_grad() and step() of an optimiser
    """

    sigma: float = field(default=0.1, kw_only=False)
    """Standard deviation of the noise, in `units`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 <= self.sigma < float("inf"), "sigma", "a finite number >= 0", self.sigma)

    def _perturbed(self, problem: InnerProblem) -> Perturbation:
        delta = problem.zero() if self.sigma == 0 else self.sigma * self._normal(problem)
        self.tally.calls += 1
        return _perturbation(problem, problem.inside(delta))


@dataclass(frozen=True, kw_only=True, eq=False)
class Plain(PerturbingProtocol):
    """No perturbation.

    >>> for r in mg.training.Plain().rounds(model, x, y):
    ...     r.loss.mean().backward()  # between zero_grad() and step() of an optimiser
    """

    def _perturbed(self, problem: InnerProblem) -> Perturbation:
        return _perturbation(problem, problem.zero())


def _perturbation(problem: InnerProblem, delta: Tensor) -> Perturbation:
    norm = delta.flatten(1).norm(dim=1)
    unknown = torch.full_like(norm, torch.nan)
    return Perturbation(x=problem.at(delta), delta=delta, h=unknown, norm=norm, gap=unknown)
