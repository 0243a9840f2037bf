"""MoreauGrad: the gradient of the score's Moreau envelope, plain, sparse and group-sparse."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.derivatives import (
    IMPLICIT,
    STEIN,
    STRAIGHT_THROUGH,
    UNROLLED,
    groups_with_a_graph,
)
from moreaugrad.explainers.implicit import UNROLLED_STEPS, Pulled
from moreaugrad.explainers.maps import Maps
from moreaugrad.explainers.published import PublishedMoreauGrad
from moreaugrad.penalties import L1, GroupL2, Penalty, Zero, groups
from moreaugrad.penalties.per_input import Joint
from moreaugrad.registry import choose
from moreaugrad.score.bound import BoundScore, ForwardFunc
from moreaugrad.score.inputs import Shape
from moreaugrad.score.noise import DEFAULT_SIGMA, RELATIVE, Noise
from moreaugrad.score.score import Score, Smoothed
from moreaugrad.solvers import (
    SOLVERS,
    Descent,
    MoreauProblem,
    Solution,
    StochasticFixedPoint,
    solve_for_sparsity,
)
from moreaugrad.solvers.sparsity import eta_for

AUTO = "auto"
ROUGH, ROUGH_STEPS = 1e-2, 20
"""Tolerance, and evaluations of all draws, of an attack's steps."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MoreauExplainer(Explainer):
    """A = -u* / rho, u* = argmin_u f(x + u) + ||u||^2 / (2 rho) + eta R(u).

    rho: units of input^2 / score; rho -> 0 is the simple gradient. Needs rho below 1 / (largest
    negative curvature of the score) for one solution; `rho_guidance` estimates that.
    sigma: Gaussian regularisation, f(x) replaced by E f(x + z), z ~ N(0, sigma^2 I); a share of
    each input's own range, or in the input's units with sigma_mode="absolute"; 0 turns it off.
    tolerance: relative error of the map at which a sample is done (None: 0.1 with noise, 1e-3
    without); max_evaluations: gradient evaluations at which it stops short of it.
    noise: "fresh" draws at every step (`draws` of them, antithetic), or one "fixed" set of
    `samples` draws: a deterministic problem, for tests and comparisons.
    chains: 2 solves twice, from different starts with different draws, and tells when there is more
    than one solution.
    solver: "spectral", "accelerated" or "proximal-gradient", for deterministic scores.
    Derivatives see the noise by its first `samples` draws.
    Source: MoreauGrad definitions 2 to 5, Algorithm 1. Differs: the sign is that of a gradient, as
    in definition 2; averages are taken before the prox, so that the map is exactly sparse.
    """

    rho: float = 1.0
    sigma: float = DEFAULT_SIGMA
    sigma_mode: str = RELATIVE
    tolerance: float | None = None
    max_evaluations: int = 4096
    noise: str = "fresh"
    draws: int = 8
    samples: int = 64
    chains: int = 1
    solver: str = "spectral"
    seed: int = 0

    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT, STRAIGHT_THROUGH, UNROLLED, STEIN)

    def __post_init__(self) -> None:
        if not 0 < self.rho < torch.inf:
            raise ValueError(f"rho: expected a finite number > 0, got {self.rho!r}")
        choose("noise", self.noise, ("fresh", "fixed"))
        choose("solver", self.solver, SOLVERS)
        if self.max_evaluations < 1:
            raise ValueError(f"max_evaluations: expected at least 1, got {self.max_evaluations!r}")
        self._score()
        self._solver()
        if self.chains != 1 and not self.fresh:
            raise ValueError(
                f"chains: expected 1 without fresh noise (sigma > 0), got {self.chains!r}: other "
                "draws are what tells two solutions apart"
            )

    @abstractmethod
    def _penalty(self, shape: Shape, bound: BoundScore) -> Penalty:
        """R with unit weight, for an input of that shape among those that are explained."""

    def _weight(self) -> float | str:
        """eta, or "auto"."""
        return 0.0

    def _wanted(self) -> float | None:
        """The share of zeros that an automatic eta is to give; None for a given eta."""
        return None

    @property
    def fresh(self) -> bool:
        """Whether every step sees new noise."""
        return self.sigma > 0 and self.noise == "fresh"

    def _score(self) -> Score | Smoothed:
        plain = super()._score()
        assert isinstance(plain, Score)
        return Smoothed(
            plain,
            sigma=self.sigma,
            samples=self.samples,
            sigma_mode=self.sigma_mode,
            noise=Noise(self.seed),
        )

    def _draws(self) -> int:
        return self.draws if self.fresh else self.samples if self.sigma > 0 else 1

    def budget(self) -> int:
        return self.max_evaluations * self.chains

    def _solver(self) -> StochasticFixedPoint | Descent:
        """To a standard error with fresh noise, to a residual for a deterministic score."""
        if not self.fresh:
            return SOLVERS[self.solver](
                tolerance=1e-3 if self.tolerance is None else self.tolerance,
                max_steps=self.max_evaluations,
            )
        return StochasticFixedPoint(
            tolerance=0.1 if self.tolerance is None else self.tolerance,
            max_evaluations=self.max_evaluations,
            draws=self.draws,
            chains=self.chains,
            sparsity=self._wanted(),
        )

    def _problem(self, bound: BoundScore) -> MoreauProblem:
        weight = self._weight()
        return MoreauProblem(
            score=bound,
            rho=torch.full_like(bound.origin[:, 0], self.rho),
            eta=torch.full_like(bound.origin[:, 0], 0.0 if isinstance(weight, str) else weight),
            penalty=Joint(
                tuple(self._penalty(shape, bound) for shape in bound.layout.shapes), bound.layout
            ),
        )

    def _maps(self, bound: BoundScore) -> Maps:
        return self._as_maps(self._solved(self._problem(bound)))

    def _as_maps(self, solution: Solution) -> Maps:
        # 0 - u rather than -u: no negative zeros.
        return Maps.solved((0.0 - solution.u) / self.rho, solution)

    def _near(self, bound: BoundScore, start: Tensor) -> Maps:
        """One solve from `start`; an automatic eta is that of the gradient there."""
        if self.fresh:
            return self._maps(bound)
        problem, u = self._problem(bound), -self.rho * start
        wanted, spent = self._wanted(), 0
        if wanted is not None:
            slope = bound.value_and_grad(u)[1]
            assert isinstance(problem.penalty, Joint)
            eta = eta_for(problem.penalty.magnitudes(slope), wanted, problem.counts)
            problem = replace(problem, eta=eta)
            spent = problem.evaluations()
        solver = self._solver()
        assert isinstance(solver, Descent)
        solution = solver.solve(problem, start=u, allowed=self._allowed(bound) - spent)
        return self._as_maps(replace(solution, evaluations=solution.evaluations + spent))

    def fixed(self, draws: int) -> Self:
        """Warm-started solves of one problem with a fixed set of draws."""
        if self.sigma == 0:
            return replace(self, tolerance=max(ROUGH, self.tolerance or 0.0))
        draws += draws % 2
        return replace(
            self, noise="fixed", samples=draws, chains=1, tolerance=ROUGH,
            max_evaluations=min(self.max_evaluations, ROUGH_STEPS * draws),
        )  # fmt: skip

    def _pull(self, bound: BoundScore, maps: Maps, cotangent: Tensor, through: str) -> Tensor:
        """J' c, by the optimality condition u = P(-rho grad f(x + u)), D the derivative of P:
        J = (I + rho D H)^-1 D H."""
        found = []
        graphs = UNROLLED_STEPS if through == UNROLLED else 1
        for rows in groups_with_a_graph(bound, graphs):
            pulled = Pulled(
                problem=self._problem(bound.select(rows)),
                u=-self.rho * maps.flat[rows],
                eta=maps.eta[rows],
                tolerance=min(ROUGH, self._solver().tolerance),
            )
            found.append(pulled.ways[through](cotangent[rows]))
        return torch.cat(found)

    def _allowed(self, bound: BoundScore) -> Tensor:
        return torch.full_like(bound.target.classes, self.max_evaluations)

    def _solved(self, problem: MoreauProblem) -> Solution:
        solver, wanted = self._solver(), self._wanted()
        if isinstance(solver, StochasticFixedPoint):
            return solver.solve(problem)
        allowed = self._allowed(problem.score)
        if wanted is None:
            return solver.solve(problem, allowed=allowed)
        return solve_for_sparsity(solver, problem, wanted, allowed)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MoreauGrad(MoreauExplainer):
    """Vanilla MoreauGrad: no penalty. Source: MoreauGrad definition 2."""

    method: ClassVar[str] = "moreaugrad"

    def _penalty(self, shape: Shape, bound: BoundScore) -> Penalty:
        return Zero()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class _Sparse(MoreauExplainer):
    """eta: weight of the penalty, in units of the gradient; a map's entries are gradients minus
    eta. "auto" chooses it for each sample such that the share `sparsity` of its entries (groups)
    is zero.
    """

    eta: float | str = AUTO
    sparsity: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.eta, str):
            choose("eta", self.eta, (AUTO,))
        elif not self.eta >= 0:
            raise ValueError(f"eta: expected a number >= 0 or 'auto', got {self.eta!r}")
        if not 0 <= self.sparsity <= 1:
            raise ValueError(f"sparsity: expected a share from 0 to 1, got {self.sparsity!r}")

    def _weight(self) -> float | str:
        return self.eta

    def _wanted(self) -> float | None:
        return self.sparsity if self.eta == AUTO else None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SparseMoreauGrad(_Sparse):
    """Sparse MoreauGrad: R = ||u||_1. Source: MoreauGrad definition 5."""

    method: ClassVar[str] = "sparse-moreaugrad"

    def _penalty(self, shape: Shape, bound: BoundScore) -> Penalty:
        return L1(1.0)

    @staticmethod
    def published(forward_func: ForwardFunc, **settings: Any) -> PublishedMoreauGrad:
        """The paper's algorithm with its released behaviour; see `PublishedMoreauGrad`."""
        return PublishedMoreauGrad(forward_func, **settings)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GroupSparseMoreauGrad(_Sparse):
    """Group-sparse MoreauGrad: R = sum over groups S of ||u_S||_2.

    group: the blocks' size in pixels (or one for each spatial axis); "blocks" makes a grid of about
    16 along each axis, the paper's 14 x 14 pixels at 224; "tokens" a group of each position of
    samples `[L, D]`; "auto" is "tokens" at an embedding (`layer`), "blocks" for images and volumes
    with channels first, and refused where neither is certain. channels: "joint" or "separate".
    index: explicit groups as integer labels (superpixels, groups of features), see `GroupL2`.
    Source: MoreauGrad definition 5.
    """

    group: groups.Size = AUTO
    channels: str = "joint"
    index: groups.Labels | None = None

    method: ClassVar[str] = "group-sparse-moreaugrad"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.group, str):
            choose("group", self.group, groups.NAMED)
        if self.index is not None:
            object.__setattr__(self, "index", groups.labels(self.index))

    def _penalty(self, shape: Shape, bound: BoundScore) -> Penalty:
        if self.index is None:
            size = groups.chosen(self.group, shape, bound.layer, padded=bound.mask is not None)
        else:
            size = groups.TOKENS if self.group == groups.TOKENS else 1
        return GroupL2(1.0, size=size, channels=self.channels, index=self.index)

    @staticmethod
    def published(forward_func: ForwardFunc, **settings: Any) -> PublishedMoreauGrad:
        """The paper's algorithm with its released behaviour; see `PublishedMoreauGrad`."""
        return PublishedMoreauGrad(forward_func, **({"eta": 5e-2, "group": 14} | settings))
