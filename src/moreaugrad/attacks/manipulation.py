"""Targeted manipulation: make a map look like a given one while the output stays."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from moreaugrad.attacks.descent import Pursuing
from moreaugrad.attacks.objectives import Likeness, likeness
from moreaugrad.attacks.problem import AttackedBatch, Pursuit
from moreaugrad.attacks.search import Found, Incumbents
from moreaugrad.curvature.second_derivatives import softplus_surrogate
from moreaugrad.explainers.base import Explainer
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.hooks import as_module
from moreaugrad.score.inputs import Layout
from moreaugrad.score.numerics import log_sigmoid, log_softmax

CLASSES = 1000
"""Of the outputs that the published weight is for."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ManipulationAttack(Pursuing):
    """min over x' of map_weight MSE(h(x'), h_t) + output_weight MSE(p(x'), p(x)), by Adam.

    >>> result = mg.attacks.ManipulationAttack(mg.SimpleGradient(model), steps=10).attack(x)

    h: the map's magnitude, summed over channels, as a fraction of its total; h_t the same of
    `target_map`. p: probabilities of all classes. Each step is cut to the box and, with epsilon, to
    the ball. Iterates that change the class do not count.

    Source: Dombrowski et al. (2019).
    """

    target_map: Tensor | None = None
    """The map to imitate, like the inputs: one for all or one for each sample; None turns the clean
    map upside down."""
    steps: int = 1500
    """Steps of Adam."""
    rate: float = 2e-4
    """Adam's learning rate, in the input's units."""
    map_weight: float = 1e11
    """Weight of the maps' mean squared difference, for 224 x 224 pixels; scaled for others such
    that the loss of alike changes stays."""
    output_weight: float = 1e6
    """Weight of the probabilities' mean squared difference, for 1000 classes; scaled likewise."""
    betas: tuple[float, float] | None = None
    """For a ReLU network without a source: steps are made on its softplus surrogate, whose beta
    grows from the first number to the second, as 10 to 100 in the paper."""

    name: ClassVar[str] = "manipulation"
    needs_epsilon: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"steps: expected at least 1, got {self.steps!r}")
        for name in ("rate", "map_weight", "output_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a number >= 0, got {getattr(self, name)!r}")
        if self.betas is not None:
            if self.source is not None or not self.measured:
                raise ValueError("betas: expected no source and measured=True beside it")
            if len(self.betas) != 2 or not all(0 < beta < math.inf for beta in self.betas):
                raise ValueError(f"betas: expected two numbers > 0, got {self.betas!r}")
        self._through(self._stepper())

    def budget(self) -> int:
        return (self.steps + 1) * (3 * self._stepper().budget() + 2)

    def _goal(self, clean: Tensor, layout: Layout) -> Likeness:
        return likeness(clean, layout, self.target_map, self.map_weight)

    def _needs(self) -> str | None:
        return "target_map" if self.target_map is None else None

    def _judges(self) -> bool:
        return self.betas is not None or super()._judges()

    def _stepper(self) -> Explainer:
        return super()._stepper() if self.betas is None else self._smooth(0)

    def _smooth(self, step: int) -> Explainer:
        """The attacked explainer on the surrogate of that step's beta."""
        assert self.betas is not None
        first, last = self.betas
        beta = first * (last / first) ** (step / self.steps)
        network = as_module(self.explainer.forward_func, self.name)
        surrogate = softplus_surrogate(network, beta)
        return replace(self.explainer, forward_func=surrogate).fixed(self.draws)

    def _sharper(self, pursuit: Pursuit, step: int) -> Pursuit:
        if self.betas is None:
            return pursuit
        stepper = self._smooth(step)
        score = replace(pursuit.score, model=stepper.forward_func)
        return replace(pursuit, stepper=stepper, score=score)

    def _search(self, case: AttackedBatch) -> Found:
        pursuit = self._pursuit(case)
        x = case.ball.center.clone()
        clean, look = _probabilities(pursuit.score, x), pursuit.look(x)
        best = Incumbents(case, self.steps + 1, look)
        going = torch.zeros_like(case.label, dtype=torch.bool)
        going[best.begin()] = True
        best.offer(0, going.nonzero()[:, 0], x[going], look.value[going])
        adam = torch.optim.Adam([x], lr=self.rate)
        for step in range(self.steps):
            slope = pursuit.gradient(x, look)
            best.evaluations += torch.where(going, slope.evaluations, 0)
            best.fail(best.rows, slope.wrong)
            going &= torch.tensor([why is None for why in slope.wrong], device=x.device)
            if not bool(going.any()):
                break
            total = slope.gradient * case.ball.scale + self._change(pursuit.score, x, clean)[1]
            x.grad = torch.where(going[:, None], total, 0.0)
            adam.step()
            x.copy_(case.ball.at(case.ball.displacement(x)))
            pursuit = self._sharper(pursuit, step + 1)
            look = pursuit.look(x, look)
            value = look.value + self._change(pursuit.score, x, clean)[0]
            best.evaluations += torch.where(going, look.evaluations + 3, 0)
            rows = (case.kept(x) & going).nonzero()[:, 0]
            best.offer(step + 1, rows, x[rows], value[rows])
            case.tell((step + 1) / self.steps)
        best.end()
        return best.found()

    def _change(self, score: BoundScore, x: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """The output's term `[B]` and its gradient `[B, n]`."""
        weight = self.output_weight / CLASSES

        def work(rows: Tensor) -> Tensor:
            with torch.enable_grad():
                points = x[rows].detach().requires_grad_()
                found = _shares(score, score.outputs(points, rows))
                loss = weight * (found - clean[rows]).square().sum(1)
                (slope,) = torch.autograd.grad(loss.sum(), points)
            return torch.cat((loss[:, None].to(slope.dtype), slope), dim=1)

        found = score.in_chunks(work)
        return found[:, 0].double(), found[:, 1:]


def _probabilities(score: BoundScore, x: Tensor) -> Tensor:
    with torch.no_grad():
        return score.in_chunks(lambda rows: _shares(score, score.outputs(x[rows], rows)))


def _shares(score: BoundScore, outputs: Tensor) -> Tensor:
    """Probabilities `[m, K]`, in the working precision; a regression's outputs as they are."""
    outputs = outputs.to(score.origin.dtype)
    task = score.readout.task
    if task == "regression":
        return outputs.flatten(1) if outputs.ndim > 1 else outputs[:, None]
    if task == "multilabel" or outputs.ndim == 1 or outputs.shape[1] == 1:
        return log_sigmoid(outputs.reshape(len(outputs), -1)).exp()
    return log_softmax(outputs).exp().flatten(1)
