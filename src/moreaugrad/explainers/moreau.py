"""MoreauGrad: the gradient of the score's Moreau envelope, with any penalty; and its rho."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.explainers import quality
from moreaugrad.explainers.anytime import Stage, Stages
from moreaugrad.explainers.derivatives import (
    IMPLICIT,
    STEIN,
    STRAIGHT_THROUGH,
    UNROLLED,
    UNROLLED_STEPS,
    groups_with_a_graph,
    moreau_derivative,
)
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.explainers.guidance import AUTO, rho_cost, with_best_rho
from moreaugrad.explainers.patches import group_size
from moreaugrad.explainers.penalised import PenalisedExplainer
from moreaugrad.explainers.published import PublishedMoreauGrad
from moreaugrad.explainers.smoothed import SmoothedExplainer
from moreaugrad.penalties import L1, GroupL2, Penalty, Zero, groups
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.inputs import Shape
from moreaugrad.score.noise import DEFAULT_SIGMA
from moreaugrad.settings import expect
from moreaugrad.solvers import SOLVERS, Descent, MoreauProblem, Solution, StochasticFixedPoint
from moreaugrad.solvers.rounding import with_rounding
from moreaugrad.solvers.solution import EVALUATIONS_NEEDED, Status
from moreaugrad.solvers.sparsity import ROUNDS, solve_for_sparsity

ROUGH, ROUGH_STEPS = 5e-2, 8
"""Tolerance of the maps in the steps of an attack, and their most evaluations per noise sample: in
trials 1 % and 20 left as much of the attacked maps."""
DERIVED = 1e-2
"""Largest tolerance of the linear system of a derivative."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Moreau(PenalisedExplainer, SmoothedExplainer):
    """A = -u* / rho, u* = argmin_u f(x + u) + ||u||^2 / (2 rho) + eta R(u), R the penalty.

    >>> maps = mg.Moreau(model, penalty=mg.ElasticNet(0.01, 0.1)).attribute(x)

    Further detail with fresh noise: `evaluations_needed`, the `max_evaluations` that by estimate
    would take a sample to the tolerance, where it used up its own; NaN elsewhere. Derivatives use
    the first `samples` noise samples. Without the penalty's `prox_root` there is no "implicit"
    derivative: "straight-through" is then the first.

    Errors: ValueError or TypeError for settings that do not fit.

    Source: MoreauGrad definitions 2 to 5, Algorithm 1. Differs: the sign is that of a gradient, as
    in definition 2; averages are taken before the prox, so that the map is exactly sparse.
    """

    rho: float | str = 1.0
    """Reach of the envelope, in units of input^2 / score; rho -> 0 gives the simple gradient. The
    solution is unique for rho below 1 / (largest negative curvature of the score), which
    `rho_guidance` estimates; "auto" takes half of that for each sample."""
    sigma: float | str = DEFAULT_SIGMA
    """Standard deviation of the Gaussian smoothing, which replaces f(x) by E f(x + z), z ~
    N(0, sigma^2 I): a fraction of each clean input's own range (max - min); with sigma_mode
    "absolute" in the input's units. 0 turns smoothing off; "auto" chooses it for each sample as
    `guidance` does, of images and vectors."""
    tolerance: float | str = quality.STANDARD
    """Relative error of the map at which a sample is done: a number, or a quality level, "preview"
    (0.3), "standard" (0.1) or "fine" (0.03). These are levels of the error by noise: a
    deterministic score is solved to 1e-3 at each of them."""
    max_evaluations: int | None = None
    """Gradient evaluations (of each chain) at which a sample stops short of that. None is 16384;
    with fresh noise and a tolerance below 0.1, 16384 (0.1 / tolerance)^2, at most 262144."""
    noise: str = "fresh"
    """When noise is drawn: "fresh" at every step; "fixed" uses one set of `samples` noise samples,
    which makes the problem deterministic."""
    draws: int = 8
    """Noise samples in each step with fresh noise: an even number, in antithetic pairs."""
    samples: int = 64
    """Noise samples of the fixed set, of derivatives, and of a curvature estimate."""
    chains: int = 1
    """2 solves twice, from different starts with different noise, and reports samples with several
    solutions; needs fresh noise."""
    centre: bool = True
    """With fresh noise, shrink the mean gradient towards the one through mean activation
    derivatives, as in `SmoothGrad`; False takes the plain mean."""
    solver: str = "spectral"
    """Solver for deterministic scores: "spectral", "accelerated" or "proximal-gradient"."""
    penalty: Penalty = field(default=Zero())
    """Any `Penalty`, its weights in units of the gradient."""
    eta: float | str = 1.0
    """Weight that multiplies the penalty: a number; for penalties with `magnitudes`, "auto" chooses
    it for each sample by `sparsity`."""
    sparsity: float = 0.9
    """Fraction of the map's entries (groups) that an automatic `eta` sets to zero."""

    method: ClassVar[str] = "moreau"
    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT, STRAIGHT_THROUGH, UNROLLED, STEIN)

    def __post_init__(self) -> None:
        if isinstance(self.rho, str):
            expect(self.rho == AUTO, "rho", "a finite number > 0 or 'auto'", self.rho)
        else:
            expect(0 < self.rho < torch.inf, "rho", "a finite number > 0", self.rho)
        choose("noise", self.noise, ("fresh", "fixed"))
        choose("solver", self.solver, SOLVERS)
        expect(self._most >= 1, "max_evaluations", "at least 1", self.max_evaluations)
        super().__post_init__()
        self._check_weight("eta", self.eta, (AUTO,))
        expect(0 <= self.sparsity <= 1, "sparsity", "a fraction from 0 to 1", self.sparsity)
        _ = self._solver  # checks its settings
        if self.chains != 1 and not self.fresh:
            raise ValueError(
                f"chains: expected 1 without fresh noise (sigma > 0), got {self.chains!r}: a "
                "second chain needs other noise"
            )

    @property
    def fresh(self) -> bool:
        """Whether noise is drawn at every step."""
        return self.smoothed and self.noise == "fresh"

    def _draws(self) -> int:
        return self.draws if self.fresh else self.samples if self.smoothed else 1

    def map_budget(self) -> int:
        return self._most * self.chains

    def expected(self) -> int:
        usual = quality.usual_evaluations(self._tolerance) if self.fresh else quality.USUAL
        return min(self.budget(), self._choices() + usual * self.chains)

    def _choices(self) -> int:
        own = rho_cost(self.samples if self.smoothed else 1) if isinstance(self.rho, str) else 0
        return super()._choices() + own

    def _prepared(self, bound: BoundScore) -> BoundScore:
        bound = super()._prepared(bound)
        if not isinstance(self.rho, str) or "rho" in bound.chosen:
            return bound
        return with_best_rho(bound, self.seed)

    @property
    def _tolerance(self) -> float:
        found = quality.tolerance_of(self.tolerance)
        return quality.EXACT if isinstance(self.tolerance, str) and not self.fresh else found

    @property
    def _most(self) -> int:
        if self.max_evaluations is not None:
            return self.max_evaluations
        return quality.allowed_evaluations(self._tolerance) if self.fresh else quality.ALLOWED

    @cached_property
    def _solver(self) -> StochasticFixedPoint | Descent:
        """Solves to a standard error with fresh noise, to a residual for a deterministic score."""
        limits: dict[str, Any] = {
            "tolerance": self._tolerance,
            "max_evaluations": self._most,
        }
        if self.fresh:
            sparsity = self.sparsity if self.eta == AUTO else None
            return StochasticFixedPoint(
                draws=self.draws, chains=self.chains, centre=self.centre, sparsity=sparsity,
                **limits,
            )  # fmt: skip
        return SOLVERS[self.solver](max_steps=self._most, **limits)

    def _problem(self, bound: BoundScore) -> MoreauProblem:
        like = bound.origin[:, 0]
        return MoreauProblem(
            score=bound,
            rho=self._rho(bound),
            eta=torch.full_like(like, 0.0 if isinstance(self.eta, str) else self.eta),
            penalty=self._penalty(bound),
        )

    def _rho(self, bound: BoundScore) -> Tensor:
        """rho of each sample, `[B]`."""
        if isinstance(self.rho, str):
            return bound.chosen["rho"].to(bound.origin)
        return torch.full_like(bound.origin[:, 0], self.rho)

    def _maps(self, bound: BoundScore) -> Solution:
        return self._solved(bound, None, ROUNDS)

    def _near(self, bound: BoundScore, start: Tensor) -> Solution:
        """The maps by one solve from `start`; an automatic eta is chosen by the gradient there."""
        if self.fresh:
            return self._maps(bound)
        return self._solved(bound, -self._rho(bound)[:, None] * start, 0)

    def _solved(self, bound: BoundScore, start: Tensor | None, rounds: int) -> Solution:
        """The maps. start: a displacement nearby. rounds: most refinements of an automatic eta."""
        problem, solver = self._problem(bound), self._solver

        def solve(solver: StochasticFixedPoint | Descent) -> Solution:
            if self.eta == AUTO and isinstance(solver, Descent):
                return solve_for_sparsity(solver, problem, self.sparsity, start, rounds)
            return solver.solve(problem, start)

        if rounds and isinstance(solver, Descent):
            return self._as_maps(problem, with_rounding(solver, problem, solve))
        return self._as_maps(problem, solve(solver))

    def _stages(self, bound: BoundScore) -> Stages:
        if not isinstance(solver := self._solver, StochasticFixedPoint):
            found = self._maps(bound)
            return found, bound.grad(-self._rho(bound)[:, None] * found.values)
        problem = self._problem(bound)

        def mapped(solution: Solution, y: Tensor) -> Stage:
            return self._as_maps(problem, solution), (0.0 - y) / problem.rho[:, None]

        stages = solver.stages(problem, problem.start)
        while True:
            try:
                yield mapped(*next(stages)())
            except StopIteration as end:
                return mapped(*end.value)

    def _as_maps(self, problem: MoreauProblem, found: Solution) -> Solution:
        if self.fresh:
            needed = quality.evaluations_to_reach(self._tolerance, found.error, found.evaluations)
            short = found.having(Status.BUDGET_USED) & (needed > self._most)
            needed = torch.where(short, needed, torch.nan)
            found = replace(found, details={EVALUATIONS_NEEDED: needed})
        # 0 - u rather than -u: no negative zeros.
        return replace(found, values=(0.0 - found.values) / problem.rho[:, None])

    def fixed(self, draws: int) -> Self:
        """One problem with a fixed set of noise samples, for warm-started solves."""
        if not self.smoothed:
            return replace(self, tolerance=max(ROUGH, self._tolerance))
        draws += draws % 2
        return replace(
            self, noise="fixed", samples=draws, chains=1, tolerance=ROUGH,
            max_evaluations=ROUGH_STEPS * draws,
        )  # fmt: skip

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        """J' c, by the optimality condition u = P(-rho grad f(x + u)), D the derivative of P:
        J = (I + rho D H)^-1 D H."""
        found = []
        for rows in groups_with_a_graph(bound, UNROLLED_STEPS if through == UNROLLED else 1):
            problem = self._problem(bound.select(rows))
            problem = replace(problem, eta=torch.nan_to_num(maps.eta[rows]))
            u = -problem.rho[:, None] * maps.values[rows]
            tolerance = min(DERIVED, self._tolerance)
            found.append(moreau_derivative(problem, u, cotangent[rows], through, tolerance))
        return torch.cat(found)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MoreauGrad(Moreau):
    """Vanilla MoreauGrad: no penalty.

    >>> maps = mg.MoreauGrad(model).attribute(x)

    Source: MoreauGrad definition 2.
    """

    penalty: Penalty = field(default=Zero(), init=False)
    eta: float | str = field(default=0.0, init=False)
    sparsity: float = field(default=0.0, init=False)

    method: ClassVar[str] = "moreaugrad"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SparseMoreauGrad(Moreau):
    """Sparse MoreauGrad: R = ||u||_1.

    >>> maps = mg.SparseMoreauGrad(model, sparsity=0.95).attribute(x)

    Source: MoreauGrad definition 5.
    """

    penalty: Penalty = field(default=L1(1.0), init=False)
    eta: float | str = AUTO
    """Weight of the penalty, in units of the gradient, whose entries it thresholds; "auto" chooses
    it for each sample by `sparsity`."""

    method: ClassVar[str] = "sparse-moreaugrad"

    @staticmethod
    def published(forward_func: ForwardFunc, **settings: Any) -> PublishedMoreauGrad:
        """The algorithm as released with the paper; see `PublishedMoreauGrad`."""
        return PublishedMoreauGrad(forward_func, **settings)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GroupSparseMoreauGrad(Moreau):
    """Group-sparse MoreauGrad: R = sum over groups S of ||u_S||_2.

    >>> maps = mg.GroupSparseMoreauGrad(model, group=8).attribute(x)

    Source: MoreauGrad definition 5.
    """

    penalty: Penalty = field(default=GroupL2(1.0), init=False)
    eta: float | str = AUTO
    """Weight of the penalty, in units of a group's gradient norm; "auto" chooses it for each sample
    by `sparsity`."""
    group: groups.Size = groups.AUTO
    """Side of the blocks in pixels, or one for each spatial axis. "blocks" makes about 16 blocks
    along each axis (14 x 14 pixels at 224, as in the paper). "tokens" makes each position of
    samples `[L, D]` a group. "auto" is "tokens" at an embedding (`layer`), the patches of a vision
    transformer whose only convolution cuts them, and "blocks" for other images and volumes with
    channels first; other inputs are refused. The explanation's settings have the size that it
    chose as `group_size`."""
    channels: str = "joint"
    """Whether all channels of a block form one group ("joint") or one each ("separate")."""
    index: groups.Labels | None = None
    """Explicit groups instead of blocks, as integer labels (superpixels, groups of features); see
    `GroupL2`."""

    method: ClassVar[str] = "group-sparse-moreaugrad"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.group, str):
            choose("group", self.group, groups.NAMED)
        if self.index is not None:
            object.__setattr__(self, "index", groups.labels(self.index))

    def _regulariser(self, shape: Shape, bound: BoundScore) -> Penalty:
        if self.index is None:
            size = group_size(self.group, shape, bound)
        else:
            size = groups.TOKENS if self.group == groups.TOKENS else 1
        return GroupL2(1.0, size=size, channels=self.channels, index=self.index)

    def _explanation(self, solution: Solution, bound: BoundScore, several: bool) -> Explanation:
        if self.index is None and isinstance(self.group, str):
            sizes = [group_size(self.group, shape, bound) for shape in bound.layout.shapes]
            used = {"group_size": sizes[0] if len(sizes) == 1 else sizes}
            solution = replace(solution, settings={**solution.settings, **used})
        return super()._explanation(solution, bound, several)

    @staticmethod
    def published(forward_func: ForwardFunc, **settings: Any) -> PublishedMoreauGrad:
        """The algorithm as released with the paper; see `PublishedMoreauGrad`."""
        return PublishedMoreauGrad(forward_func, **({"eta": 5e-2, "group": 14} | settings))
