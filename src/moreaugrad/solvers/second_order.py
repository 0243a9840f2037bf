"""maximise g'D + D'HD / 2 - lambda1 R(D) - lambda2 ||D||^2, lambda2 = L / 2 + c1, R any penalty.

H is known only through products, each of which costs two gradients, so few are computed and all are
kept. On their span H is a small matrix, which gives L, the solution without a penalty, and a model
of H whose solution needs no further products. The product with that solution is then added to the
span, which corrects the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.curvature.krylov import RitzSpace
from moreaugrad.penalties import Penalty
from moreaugrad.score.inputs import lengths
from moreaugrad.score.noise import Noise
from moreaugrad.solvers.quadratic import QuadraticModel
from moreaugrad.solvers.solution import Solution, Status
from moreaugrad.solvers.sparsity import Rule

PROBE = Noise(seed=0x50524F4245)
PROBES = 2
"""Products that search for an eigenvalue that the gradient's Krylov space lacks."""
TOP_ACCURACY = 1e-4
"""Relative accuracy of L; its effect on the solution through lambda2 is kept below tolerance."""
ROUNDINGS = 4
"""Roundings of 2 lambda2: a smaller error of L is ignored, for a Hessian that is almost zero."""
SETTLED = 2
"""Corrections in which a rule may change lambda1; then it is fixed, so that they converge."""
PATIENCE, PROGRESS = 8, 0.9
"""Products without a ratio of residuals below .9 after which only rounding is left."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QuadraticSolution(Solution):
    """D (`values`), with numbers of the problem at D.

    residual: the length of a proximal gradient step times the objective's largest curvature, over
    ||g||.
    error: (residual ||g|| / ||D|| + top_error) / (2 lambda2 - L), a bound on D's relative error as
    far as L is known; without top_error if lambda2 is given. eta: lambda1. steps: products with H.
    """

    image: Tensor
    """H D, `[B, n]`."""
    lambda2: Tensor
    top: Tensor
    """L, the largest eigenvalue of H, `[B]`; 0 if all are negative."""
    top_error: Tensor
    """How far L may be above `top`, `[B]`."""
    slope: Tensor
    """g + H D - L D, `[B, n]`; without L D if lambda2 is given."""
    axis: Tensor
    """The eigenvector of L, `[B, n]`."""
    around: QuadraticModel
    """A model of the problem whose solution is D."""

    def moved(self, change: Tensor, gradient: Tensor, rule: Rule | None) -> Tensor:
        """D `[B, n]` of the problem with another gradient and a slope that differs by `change`.

        To first order; a rule chooses lambda1 again.
        """
        model, lambda1 = self.around.changed(change), self.eta
        if rule is not None:
            pulls = model.pulls(lambda1)
            lambda1 = rule(gradient, lambda _: pulls)
        return model.solution(lambda1)


@dataclass(frozen=True, kw_only=True, eq=False)
class QuadraticProblem:
    """minimise lambda2 ||D||^2 - g'D - D'HD / 2 + lambda1 R(D). Source: CASO paper eq. (5)."""

    gradient: Tensor
    """g, `[B, n]`."""
    product: Callable[[Tensor, Tensor], Tensor]
    """v `[m, n]` and the numbers of their samples `[m]` to H v `[m, n]`."""
    probe: Tensor
    """Random directions `[B, n]`: they reveal what the gradient's Krylov space lacks."""
    eta: Tensor
    """lambda1, `[B]`; not used with a rule."""
    lambda2: Tensor
    """`[B]`; not used with c1."""
    penalty: Penalty
    """R."""
    rule: Rule | None = None
    """Chooses lambda1; None: it is `eta`."""
    c1: float | None = None
    """lambda2 = L / 2 + c1; None: it is `lambda2`."""
    cost: int = 2
    """Evaluations of one product."""

    def solve(self, tolerance: float, max_products: int) -> QuadraticSolution:
        """To a residual of at most `tolerance`, as far as `max_products` products allow.

        Errors: ValueError for a lambda2 with which a sample's problem has no minimum.
        """
        run = _Exploration(self, tolerance, max_products)
        run.explore()
        run.probe()
        run.explore()
        run.check()
        if run.penalised:
            run.correct()
            run.check()
        return run.solution()


class _Exploration:
    """All samples at once; the directions of a sample that is done are zero."""

    def __init__(self, problem: QuadraticProblem, tolerance: float, most: int) -> None:
        self.problem, self.tolerance, self.most = problem, tolerance, most
        self.penalised = problem.rule is not None or bool((problem.eta != 0).any())
        self.length = lengths(problem.gradient)
        finite = torch.isfinite(self.length)
        self.g = torch.where(finite[:, None], problem.gradient, 0.0)
        self.alive = finite & (self.length > 0)
        self.space = RitzSpace(self.g)
        self.products = torch.zeros(len(self.g), dtype=torch.long, device=self.g.device)
        nothing = torch.zeros_like(self.length)
        self.lambda1 = nothing if problem.rule is not None else problem.eta * self.alive
        self.top, self.top_error = nothing, nothing
        self.twice = 2 * problem.lambda2 if problem.c1 is None else nothing + 2 * problem.c1
        self.delta = self.image = (
            nothing[:, None].where(finite[:, None], torch.nan).expand_as(self.g)
        )
        # Of D = 0, over ||g||: what a budget without a product ends with.
        self.residual = torch.where(finite, self.alive.to(nothing), torch.nan)
        self.axis = torch.zeros_like(self.g)
        self.best, self.waited = nothing + torch.inf, self.products

    def explore(self) -> None:
        """Extend the gradient's Krylov space until L (or, without a penalty, D) is accurate."""
        if not self.space.size:
            self._look(self.alive, self.g)
        while self._look(*self._open()):
            pass

    def probe(self) -> None:
        """Add random directions: H times one shows large eigenvalues that the space lacks."""
        vector = self.problem.probe
        for _ in range(PROBES):
            if not self._look(self.alive, vector):
                return
            vector = self.space.images[:, -1]

    def correct(self) -> None:
        """Solve with the penalty by the model of H, which each product corrects."""
        active, pull = self.alive, self.g
        for correction in range(self.most):
            model = self._model(pull)
            if self.problem.rule is not None and correction < SETTLED:
                chosen = self.problem.rule(self.g, model.pulls)
                self.lambda1 = torch.where(active, chosen, self.lambda1)
            found = model.solution(self.lambda1)
            slope = self.g + self.space.combine_images(self.space.coefficients(found))
            self.delta = torch.where(active[:, None], found, self.delta)
            # A solution within the space still has a slope outside of it.
            going = self._look(active, self.delta, slope)
            self._curvature()
            inside = self.space.coefficients(self.delta)
            self._solved(active, self.delta, self.space.combine_images(inside))
            active = active & (self.residual > self.tolerance)
            if not going or not bool(active.any()):
                return
            # Assume that the model's error stays as it is at this solution.
            pull = self.g + self.image - self.space.combine(self.space.times(inside))

    def check(self) -> None:
        """Raise an error if a given lambda2 leaves no minimum."""
        given = self.problem.lambda2
        if self.problem.c1 is None and bool((self.top >= 2 * given).any()):
            row = int((self.top - 2 * given).argmax())
            raise ValueError(
                f"lambda2: expected more than half the Hessian's largest eigenvalue, else there is "
                f"no maximum: more than {float(self.top[row]) / 2:.6g} for sample {row}, got "
                f"{float(given[row]):g}"
            )

    def solution(self) -> QuadraticSolution:
        off = self.residual * self.length
        off = torch.where(off == 0, off, off / lengths(self.delta))
        slope = self.g + self.image
        if self.problem.c1 is not None:
            off = off + self.top_error
            slope = slope - self.top[:, None] * self.delta
        inside = self.space.coefficients(self.delta)
        # A problem with this solution, whose products are those of the model of H.
        around = self._model(self.g + self.image - self.space.combine(self.space.times(inside)))
        around.delta = self.delta
        return QuadraticSolution(
            values=self.delta,
            status=self._statuses(),
            residual=self.residual,
            error=off / (self.twice - self.top),
            eta=self.lambda1,
            steps=self.products,
            evaluations=self.products * self.problem.cost,
            image=self.image,
            lambda2=self.twice / 2,
            top=self.top,
            top_error=self.top_error,
            slope=slope,
            axis=self.axis,
            around=around,
        )

    def _statuses(self) -> tuple[Status, ...]:
        ends = []
        for residual, products in zip(self.residual.tolist(), self.products.tolist(), strict=True):
            if math.isnan(residual):
                ends.append(Status.NON_FINITE)
            elif residual <= self.tolerance:
                ends.append(Status.CONVERGED)
            else:  # if products remain, rounding prevents a smaller residual
                ends.append(Status.BUDGET_USED if products >= self.most else Status.PRECISION)
        return tuple(ends)

    def _model(self, pull: Tensor) -> QuadraticModel:
        accuracy = 0.1 * self.tolerance * self.length
        return QuadraticModel(self.space, pull, self.twice, accuracy, self.problem.penalty)

    def _open(self) -> tuple[Tensor, ...]:
        """Which samples need a further direction, and the candidates."""
        rest, wanted = self._curvature()
        if self.penalised:
            return wanted, rest
        inside = self.space.solve(self.twice, self.space.coefficients(self.g))
        delta, image = self.space.combine(inside), self.space.combine_images(inside)
        self._solved(self.alive, delta, image)
        slope = self.g + image - self.twice[:, None] * delta
        unsolved = self.alive & (self.residual > self.tolerance)
        return wanted | unsolved, torch.where(wanted[:, None], rest, slope), slope

    def _curvature(self) -> tuple[Tensor, Tensor]:
        """Update L. Returns the residual of its eigenvector, and which samples' L is inaccurate."""
        if not self.space.size:
            return self.g, self.alive & False
        top, self.axis, error, rest = self.space.top()
        self.top, self.top_error = top.to(self.g), error.to(self.g)
        c1 = self.problem.c1
        if c1 is not None:
            self.twice = self.top + 2 * c1
        rounding = ROUNDINGS * torch.finfo(self.twice.dtype).eps * self.twice
        off = self.top_error > torch.maximum(TOP_ACCURACY * self.top, rounding)
        if c1 is not None:
            off = off | (self.top_error > self.tolerance * 2 * c1)
        return rest, self.alive & off

    def _look(self, wanted: Tensor, *vectors: Tensor) -> bool:
        """Extend the space of these samples by the first vector that is not in it.

        Returns whether any sample's space was extended.
        """
        stuck = self.products - self.waited >= PATIENCE
        wanted = wanted & (self.products < self.most) & ~stuck
        direction = torch.zeros_like(self.g)
        for vector in vectors:
            lacking = wanted & ~direction.any(dim=1)
            if bool(lacking.any()):
                found = self.space.direction(vector)
                direction = torch.where(lacking[:, None], found, direction)
        rows = direction.any(dim=1).nonzero()[:, 0]
        if len(rows) == 0:
            return False
        image = torch.zeros_like(direction)
        image[rows] = self.problem.product(direction[rows], rows)
        self.products[rows] += 1
        broken = ~torch.isfinite(image).all(1)
        if bool(broken.any()):
            direction[broken], image[broken] = 0.0, 0.0
            self.alive = self.alive & ~broken
            nothing = broken[:, None]
            self.delta = torch.where(nothing, torch.nan, self.delta)
            self.image = torch.where(nothing, torch.nan, self.image)
            self.residual = torch.where(broken, torch.nan, self.residual)
        self.space.append(direction, image)
        return True

    def _solved(self, rows: Tensor, delta: Tensor, image: Tensor) -> None:
        """Accept a solution for these samples and compute its residual."""
        rows = rows & self.alive
        # An entry that the loss does not depend on must not be displaced by rounding.
        read = (self.g != 0) | self.space.images.any(dim=1)
        delta = torch.where(read, delta, 0.0)
        self.delta = torch.where(rows[:, None], delta, self.delta)
        self.image = torch.where(rows[:, None], image, self.image)
        slope = self.g + self.image - self.twice[:, None] * self.delta
        off = lengths(slope)
        if self.penalised:
            off = self._model(self.g).residual(self.delta, slope, self.lambda1)
        self.residual = torch.where(rows, off / self.length, self.residual)
        better = self.residual < PROGRESS * self.best
        self.best = torch.where(better, self.residual, self.best)
        self.waited = torch.where(better, self.products, self.waited)
