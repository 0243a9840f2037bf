"""Targeted manipulation: a map becomes similar to a given one while the output stays."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from moreaugrad.attacks.descent import GradientAttack
from moreaugrad.attacks.objectives import Goal, map_difference
from moreaugrad.attacks.problem import AttackedBatch
from moreaugrad.attacks.search import BestInputs, Iterate, SearchResult
from moreaugrad.curvature.second_derivatives import softplus_surrogate
from moreaugrad.explainers.base import Explainer
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.hooks import as_module
from moreaugrad.score.precision import log_sigmoid, log_softmax
from moreaugrad.settings import expect

CLASSES = 1000
"""Classes of the outputs for which the weight was published."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ManipulationAttack(GradientAttack):
    """min over x' of map_weight MSE(h(x'), h_t) + output_weight MSE(p(x'), p(x)), by Adam.

    >>> result = mg.attacks.ManipulationAttack(mg.SimpleGradient(model), steps=10).attack(x)

    h: the map's magnitude, summed over channels, as a fraction of its total; h_t the same of
    `target_map`. p: probabilities of all classes. Each step is projected onto the box and, with
    epsilon, onto the ball. Iterates that change the class do not count.

    Source: Dombrowski et al. (2019).
    """

    target_map: Tensor | None = None
    """The map to imitate, of the inputs' shape, one for all or one for each sample; None takes the
    clean map rotated by 180 degrees."""
    steps: int = 1500
    """Steps of Adam."""
    rate: float = 2e-4
    """Adam's learning rate, in the input's units."""
    map_weight: float = 1e11
    """Weight of the maps' mean squared difference, for 224 x 224 pixels; for other sizes it is
    scaled such that the same relative change has the same loss."""
    output_weight: float = 1e6
    """Weight of the probabilities' mean squared difference, for 1000 classes; scaled likewise."""
    betas: tuple[float, float] | None = None
    """For a ReLU network without a source: the steps are computed on its softplus surrogate, whose
    beta grows from the first number to the second, in the paper from 10 to 100."""

    name: ClassVar[str] = "manipulation"
    aim: ClassVar[str] = "target_map"
    needs_epsilon: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.steps >= 1, "steps", "at least 1", self.steps)
        for name in ("rate", "map_weight", "output_weight"):
            value = getattr(self, name)
            expect(0 <= value < math.inf, name, "a number >= 0", value)
        if self.betas is not None:
            if self.source is not None or not self.measured:
                raise ValueError("betas: expected no source, and measured=True")
            known = len(self.betas) == 2 and all(0 < beta < math.inf for beta in self.betas)
            expect(known, "betas", "two numbers > 0", self.betas)
        self._through(self._stepper())

    def budget(self) -> int:
        clean, maps, gradient = self._costs()
        return clean + self.steps * (gradient + maps + 4)

    def _goal(self, clean: Tensor, bound: BoundScore) -> Goal:
        return map_difference(clean, bound.layout, self.target_map, self.map_weight)

    def _measures(self) -> bool:
        return self.betas is not None or super()._measures()

    def _stepper(self) -> Explainer:
        return super()._stepper() if self.betas is None else self._smooth(0)

    def _smooth(self, step: int) -> Explainer:
        """The attacked explainer on the surrogate with the beta of this step."""
        assert self.betas is not None
        first, last = self.betas
        beta = first * (last / first) ** (step / self.steps)
        network = as_module(self.explainer.forward_func, self.name)
        surrogate = softplus_surrogate(network, beta)
        return replace(self.explainer, forward_func=surrogate).fixed(self.draws)

    def _sharper(self, now: Iterate, step: int) -> Iterate:
        """With the surrogate of this step, if there is one."""
        if self.betas is None:
            return now
        smooth = self._smooth(step)
        score = replace(now.stepper.score, model=smooth.forward_func)
        return replace(now, stepper=replace(now.stepper, explainer=smooth, score=score))

    def _search(self, batch: AttackedBatch) -> SearchResult:
        now = self._clean(batch)
        # Adam's steps are smaller than the rounding of half precision, so that its point keeps all
        # digits, and its rounded one is evaluated.
        exact, x = batch.ball.center.clone(), batch.ball.center
        # Steps keep the output of the network that they are computed on; what counts is that of the
        # network whose map counts.
        attacked = (now.attacked or now.stepper).score
        clean = _probabilities(attacked, x)
        clean_of_steps = _probabilities(now.stepper.score, x) if now.attacked else clean
        best = BestInputs(now, self.steps + 1)
        going = torch.zeros_like(batch.label, dtype=torch.bool)
        going[best.begin()] = True
        best.offer(0, now.select(going.nonzero()[:, 0]))
        adam = torch.optim.Adam([exact], lr=self.rate)
        for step in range(self.steps):
            gradient, useless, spent = now.gradient()
            best.evaluations += torch.where(going, spent, 0)
            best.fail(now.rows, useless)
            going &= torch.tensor([why is None for why in useless], device=x.device)
            if not bool(going.any()):
                break
            change = self._change(now.stepper.score, x, clean_of_steps)[1]
            total = gradient * batch.ball.scale + change
            exact.grad = torch.where(going[:, None], total, 0.0)
            adam.step()
            exact.copy_(batch.ball.inside(batch.ball.displacement(exact)))
            x = batch.ball.at(batch.ball.displacement(exact))
            now = self._sharper(now, step + 1).moved(x)
            if self.betas is not None:
                clean_of_steps = _probabilities(now.stepper.score, batch.ball.center)
                best.evaluations += going.long()
            changed = now.value + self._change(attacked, x, clean)[0]
            best.evaluations += torch.where(going, now.evaluations + 3, 0)
            kept = (batch.kept(x) & going).nonzero()[:, 0]
            best.offer(step + 1, replace(now, value=changed).select(kept))
            batch.report((step + 1) / self.steps)
        best.end()
        return best.found()

    def _change(self, score: BoundScore, x: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of the output's change `[B]`, and its gradient `[B, n]`."""
        weight = self.output_weight / CLASSES

        def work(rows: Tensor) -> Tensor:
            with torch.enable_grad():
                points = x[rows].detach().requires_grad_()
                found = _probability(score, score.outputs(points, rows))
                loss = weight * (found - clean[rows]).square().sum(1)
                (slope,) = torch.autograd.grad(loss.sum(), points)
            return torch.cat((loss[:, None].to(slope.dtype), slope), dim=1)

        found = score.in_chunks(work)
        return found[:, 0].double(), found[:, 1:]


def _probabilities(score: BoundScore, x: Tensor) -> Tensor:
    with torch.no_grad():
        return score.in_chunks(lambda rows: _probability(score, score.outputs(x[rows], rows)))


def _probability(score: BoundScore, outputs: Tensor) -> Tensor:
    """Probabilities `[m, K]` in the working precision; for a regression, the outputs."""
    outputs = outputs.to(score.origin.dtype)
    task = score.readout.task
    if task == "regression":
        return outputs.flatten(1) if outputs.ndim > 1 else outputs[:, None]
    if task == "multilabel" or outputs.ndim == 1 or outputs.shape[1] == 1:
        return log_sigmoid(outputs.reshape(len(outputs), -1)).exp()
    return log_softmax(outputs).exp().flatten(1)
