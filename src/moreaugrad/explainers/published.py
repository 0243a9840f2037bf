"""The published MoreauGrad algorithm, kept for comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from moreaugrad.explainers.base import Explainer
from moreaugrad.penalties import L1, GroupL2, Penalty, groups
from moreaugrad.penalties.base import PerInput
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import Shape
from moreaugrad.score.noise import DEFAULT_SIGMA, Noise
from moreaugrad.settings import expect
from moreaugrad.solvers.solution import MoreauProblem, Solution, Status


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PublishedMoreauGrad(Explainer):
    """delta <- prox((1 - gamma / rho) delta - gamma g), g a mean of `draws` fresh noisy gradients.

    >>> maps = mg.PublishedMoreauGrad(model, steps=20, average=5, draws=4).attribute(x)

    The map is the mean of the last `average` iterates: it is zero only where all of them are.

    Source: MoreauGrad Algorithm 1 and the released code.
    """

    rho: float = 1.0
    """Reach of the envelope, in units of input^2 / score."""
    eta: float = 5e-3
    """Weight of the penalty; 0 is the vanilla variant."""
    gamma: float = 0.1
    """Length of a step."""
    steps: int = 300
    """Steps of the iteration."""
    average: int = 101
    """Number of last iterates whose mean is the result."""
    draws: int = 32
    """Noise samples of each step."""
    sigma: float = DEFAULT_SIGMA
    """Standard deviation of the noise, as a fraction of the clean input's range (max - min)."""
    group: groups.Size | None = None
    """None: the sparse variant. Otherwise the group-sparse variant with blocks of that side in
    pixels, or "tokens", "blocks" or "auto" as in `GroupSparseMoreauGrad`."""
    sign: str = "displacement"
    """Returned map: "displacement" is the mean as released (+delta, not divided by rho), "gradient"
    is -delta / rho, comparable with all other maps."""
    seed: int = 0
    """Random seed; the noise is a function of (seed, id of the sample, number of the draw)."""

    method: ClassVar[str] = "published-moreaugrad"

    def __post_init__(self) -> None:
        choose("sign", self.sign, ("displacement", "gradient"))
        for name in ("rho", "gamma", "steps", "average", "draws"):
            value = getattr(self, name)
            expect(value > 0, name, "a number > 0", value)
        if isinstance(self.group, str):
            choose("group", self.group, groups.NAMED)
        expect(self.eta >= 0, "eta", "a number >= 0", self.eta)
        super().__post_init__()

    def _smoothing(self) -> dict[str, Any]:
        noise = Noise(self.seed, antithetic=False)
        return {"sigma": self.sigma, "samples": self.draws, "noise": noise}

    def _draws(self) -> int:
        return self.draws

    def map_budget(self) -> int:
        return self.steps * self.draws

    def _penalty(self, shape: Shape, bound: BoundScore) -> Penalty:
        if self.group is None:
            return L1(1.0)
        size = groups.chosen(self.group, shape, bound.layer, padded=bound.mask is not None)
        return GroupL2(1.0, size=size)

    def _maps(self, bound: BoundScore) -> Solution:
        like = bound.origin[:, 0]
        parts = tuple(self._penalty(shape, bound) for shape in bound.layout.shapes)
        problem = MoreauProblem(
            score=bound,
            rho=torch.full_like(like, self.rho),
            eta=torch.full_like(like, self.eta),
            penalty=PerInput(parts, bound.layout),
        )
        u = problem.start
        total, gamma = torch.zeros_like(u), torch.full_like(like, self.gamma)
        shrink = (1 - self.gamma / problem.rho)[:, None]
        for step in range(self.steps):
            draws = range(step * self.draws, (step + 1) * self.draws)
            _, gradient = bound.value_and_grad(u, draws)
            u = problem.prox(shrink * u - self.gamma * gradient, gamma)
            if step >= self.steps - self.average:
                total = total + u
        mean = total / min(self.average, self.steps)
        values = mean if self.sign == "displacement" else (0.0 - mean) / self.rho
        found = Solution.direct(values, self.steps * bound.passes, Status.FIXED_BUDGET)
        return replace(found, eta=problem.eta, steps=torch.full_like(found.steps, self.steps))
