"""The penalty itself, by differentiating the gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.curvature.second_derivatives import (
    check_twice_differentiable,
    twice_differentiable,
)
from moreaugrad.training.harmonisation import PublishedHarmonisation, resolve
from moreaugrad.training.inner import TRAIN, Model, in_mode, input_gradient, loss_values
from moreaugrad.training.losses import PerSampleLoss, cross_entropy
from moreaugrad.training.protocol import PenaltyProtocol, Round, vanishes


@dataclass(frozen=True, kw_only=True, eq=False)
class Penalised(PenaltyProtocol):
    """loss + weight R(g), g the gradient of the sample's own loss at x (double backward).

    >>> for r in mg.training.Penalised(mg.SquaredL2(0.1)).rounds(model, x, y):
    ...     r.loss.mean().backward()  # between zero_grad() and step() of an optimiser

    R is differentiated by its maximiser m (Danskin): <dg, m> is finite where norms are zero. h,
    norm and gap of a round are those of m, the perturbation that R stands for. The network needs
    second derivatives (`NoSecondDerivative` where an operator has none); attention is computed in
    its plain form.

    Source: AdvGrad 3 (the penalty training that its protocols approximate).
    """

    weight: float = 1.0
    """Weight of R, added to the loss."""
    inner: str = TRAIN
    """Mode of the pass that gives g: "train", that of the training itself; "eval" spends a further
    pass on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight: expected a finite number >= 0, got {self.weight!r}")
        if self.box:
            raise ValueError("box: penalised training takes no step, so nothing leaves the box")
        if isinstance(self.penalty, PublishedHarmonisation):
            raise ValueError(
                "penalty: the published harmonisation is a heuristic direction, not a penalty that "
                "a gradient could have: use Harmonisation"
            )

    def rounds(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        loss: PerSampleLoss = cross_entropy,
        attention: Tensor | None = None,
        ids: Sequence[int] | Tensor | None = None,
    ) -> Iterator[Round]:
        near = self._near(x)
        penalty = resolve(self.penalty, attention, near.x)
        if self.weight == 0 or vanishes(penalty, near.zero()):
            told = self._told(penalty, near, near.x, near.zero(), near.zero())
            values = loss_values(model, near.x, y, loss)
            yield Round(loss=values, x=near.x, h=told.h, norm=told.norm, gap=told.gap)
            return
        with torch.enable_grad(), twice_differentiable():
            leaf = near.x.clone().requires_grad_()
            values = penalised = loss_values(model, leaf, y, loss)
            if self.inner != TRAIN:
                with in_mode(model, self.inner):
                    penalised = loss_values(model, leaf, y, loss)
            check_twice_differentiable(penalised, leaf)
            g = near.slope(input_gradient(penalised, leaf))
            fixed = g.detach()
            m = penalty.maximiser(fixed)
            told = self._told(penalty, near, near.at(m), m, fixed)
            # Its value is R(g), its derivative that of <g, m>.
            linear = ((g - fixed) * m).flatten(1).sum(1)
            if self.tally.calls == 0 and linear.requires_grad:
                # The caller's backward pass would end in torch's own words: it is tried here once.
                torch.autograd.grad(linear.sum(), leaf, retain_graph=True, allow_unused=True)
            total = values + self.weight * (penalty.value(fixed) + linear).to(values.dtype)
        self.tally.calls += 1
        yield Round(loss=total, x=near.x, h=told.h, norm=told.norm, gap=told.gap)
