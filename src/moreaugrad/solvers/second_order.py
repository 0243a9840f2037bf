"""maximise g'D + D'HD / 2 - lambda1 ||D||_1 - lambda2 ||D||^2, lambda2 = L / 2 + c1.

H is only known through products, each as dear as two gradients, so few are made and all are kept:
in their span H is a small matrix, which gives L, the solution without lambda1, and a model of H
whose own solution is found without further products. What the model lacks is put right by the
product with that solution, which joins the span.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.curvature.ritz import RitzSpace
from moreaugrad.score.noise import Noise
from moreaugrad.solvers.quadratic import QuadraticModel

Rule = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]
"""How lambda1 `[B]` is told: from the gradient `[B, n]` and a function that gives, for a lambda1,
the pulls g + H D at its solution. Entries whose pull exceeds lambda1 are not zero."""

PROBE = Noise(seed=0x50524F4245)
PROBES = 2
"""Products that look for an eigenvalue which the gradient's own Krylov space cannot see."""
TOP_ACCURACY = 1e-4
"""Of L, relative. What its error does to the solution through lambda2 is kept below tolerance."""
ROUNDINGS = 4
"""Of 2 lambda2: an error of L below so many is nothing, for a Hessian that is almost zero."""
SETTLED = 2
"""Corrections during which a rule may change lambda1; then it stays, so that they converge."""
PATIENCE, PROGRESS = 8, 0.9
"""Products without such a ratio of residuals, after which rounding is what is left."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SecondOrderProblem:
    """gradient `[B, n]`; product: v `[m, n]` and its samples' rows, to H v `[m, n]`.

    probe `[B, n]`: random directions that look for what the gradient's Krylov space cannot see.
    lambda1: None is 0. lambda2: None is L / 2 + c1.
    """

    gradient: Tensor
    product: Callable[[Tensor, Tensor], Tensor]
    probe: Tensor
    lambda1: Rule | None
    lambda2: float | None
    c1: float


@dataclass(frozen=True, kw_only=True, eq=False)
class SecondOrderSolution:
    """Per sample: `delta` and `image` = H delta, `[B, n]`, and, `[B]` each:

    residual: distance of 0 from the objective's derivatives at delta, over ||g||.
    error: of delta, relative: (residual ||g|| / ||delta|| + top_error) / (2 lambda2 - L); a bound,
    as far as L is known. The second term is there where lambda2 is made from L.
    top: L, the largest eigenvalue of H (0 where all are negative); top_error: how far below an
    eigenvalue it may be. products: with H, of the sample's own.
    Of the problem around it: slope, g + H delta - L delta (without L delta where lambda2 is given),
    and axis, the eigenvector of L, `[B, n]` each.
    """

    delta: Tensor
    image: Tensor
    residual: Tensor
    error: Tensor
    lambda1: Tensor
    lambda2: Tensor
    top: Tensor
    top_error: Tensor
    products: Tensor
    slope: Tensor
    axis: Tensor
    around: QuadraticModel

    def moved(self, change: Tensor, gradient: Tensor, rule: Rule | None) -> Tensor:
        """delta `[B, n]` of a problem whose slope differs by `change` and gradient is another.

        To first order; a lambda1 that a rule has chosen is chosen anew.
        """
        model, lambda1 = self.around.changed(change), self.lambda1
        if rule is not None:
            pulls = model.pulls(lambda1)
            lambda1 = rule(gradient, lambda _: pulls)
        return model.solution(lambda1)


def solve_second_order(
    problem: SecondOrderProblem, tolerance: float, max_products: int
) -> SecondOrderSolution:
    """To a residual of at most `tolerance`.

    Errors: ValueError for a given lambda2 that leaves a sample's problem without a maximum.
    """
    run = _Run(problem, tolerance, max_products)
    run.explore()
    run.probe()
    run.explore()
    run.check()
    if problem.lambda1 is not None:
        run.correct(problem.lambda1)
        run.check()
    return run.solution()


class _Run:
    """All samples in step. One that is done takes no further part: its directions are zero."""

    def __init__(self, problem: SecondOrderProblem, tolerance: float, most: int) -> None:
        self.problem, self.tolerance, self.most = problem, tolerance, most
        self.length = problem.gradient.norm(dim=1)
        finite = torch.isfinite(self.length)
        self.g = torch.where(finite[:, None], problem.gradient, 0.0)
        self.alive = finite & (self.length > 0)
        self.space = RitzSpace(self.g)
        self.products = torch.zeros(len(self.g), dtype=torch.long, device=self.g.device)
        nothing = torch.zeros_like(self.length)
        self.lambda1, self.top, self.top_error = nothing, nothing, nothing
        self.twice = nothing + 2 * (problem.c1 if problem.lambda2 is None else problem.lambda2)
        self.delta = self.image = (
            nothing[:, None].where(finite[:, None], torch.nan).expand_as(self.g)
        )
        self.residual = torch.where(finite, nothing, torch.nan)
        self.axis = torch.zeros_like(self.g)
        self.best, self.waited = nothing + torch.inf, self.products

    def explore(self) -> None:
        """The gradient's Krylov space, until L and, without lambda1, the solution are accurate."""
        if not self.space.size:
            self._look(self.alive, self.g)
        while self._look(*self._open()):
            pass

    def probe(self) -> None:
        """Random directions: H times one shows what the space has missed, the more the larger."""
        vector = self.problem.probe
        for _ in range(PROBES):
            if not self._look(self.alive, vector):
                return
            vector = self.space.images[:, -1]

    def correct(self, rule: Rule) -> None:
        """The solution with lambda1, by the model of H and what each product adds to it."""
        active, pull = self.alive, self.g
        for correction in range(self.most):
            accuracy = 0.1 * self.tolerance * self.length
            model = QuadraticModel(self.space, pull, self.twice, accuracy)
            if correction < SETTLED:
                self.lambda1 = torch.where(active, rule(self.g, model.pulls), self.lambda1)
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
            # What the model of H lacks at this solution is taken to stay as it is.
            pull = self.g + self.image - self.space.combine(self.space.times(inside))

    def check(self) -> None:
        """Whether a given lambda2 leaves a maximum."""
        given = self.problem.lambda2
        if given is not None and bool((self.top >= 2 * given).any()):
            row = int(self.top.argmax())
            raise ValueError(
                f"lambda2: expected more than half the Hessian's largest eigenvalue, else there is "
                f"no maximum: more than {float(self.top[row]) / 2:.6g} for sample {row}, got "
                f"{given:g}"
            )

    def solution(self) -> SecondOrderSolution:
        off = self.residual * self.length
        off = torch.where(off == 0, off, off / self.delta.norm(dim=1))
        slope = self.g + self.image
        if self.problem.lambda2 is None:
            off = off + self.top_error
            slope = slope - self.top[:, None] * self.delta
        return SecondOrderSolution(
            delta=self.delta,
            image=self.image,
            residual=self.residual,
            error=off / (self.twice - self.top),
            lambda1=self.lambda1,
            lambda2=self.twice / 2,
            top=self.top,
            top_error=self.top_error,
            products=self.products,
            slope=slope,
            axis=self.axis,
            around=self._around(),
        )

    def _around(self) -> QuadraticModel:
        """The problem whose solution is the one found, its products by the model of H."""
        inside = self.space.coefficients(self.delta)
        pull = self.g + self.image - self.space.combine(self.space.times(inside))
        model = QuadraticModel(self.space, pull, self.twice, 0.1 * self.tolerance * self.length)
        model.delta = self.delta
        return model

    def _open(self) -> tuple[Tensor, ...]:
        """Which samples lack a direction, and the directions that may be lacking."""
        rest, wanted = self._curvature()
        if self.problem.lambda1 is not None:
            return wanted, rest
        inside = self.space.solve(self.twice, self.space.coefficients(self.g))
        delta, image = self.space.combine(inside), self.space.combine_images(inside)
        self._solved(self.alive, delta, image)
        slope = self.g + image - self.twice[:, None] * delta
        unsolved = self.alive & (self.residual > self.tolerance)
        return wanted | unsolved, torch.where(wanted[:, None], rest, slope), slope

    def _curvature(self) -> tuple[Tensor, Tensor]:
        """Updates L. What its eigenvector lacks, and which samples' L is not accurate."""
        if not self.space.size:
            return self.g, self.alive & False
        top = self.space.top()
        self.top, self.top_error = top.value.to(self.top), top.error.to(self.top)
        self.axis = top.vector
        if self.problem.lambda2 is None:
            self.twice = self.top + 2 * self.problem.c1
        rounding = ROUNDINGS * torch.finfo(self.twice.dtype).eps * self.twice
        off = self.top_error > torch.maximum(TOP_ACCURACY * self.top, rounding)
        if self.problem.lambda2 is None:
            off = off | (self.top_error > self.tolerance * 2 * self.problem.c1)
        return top.rest, self.alive & off

    def _look(self, wanted: Tensor, *vectors: Tensor) -> bool:
        """Adds what is new in the first vector that has something new to the space, for each of
        these samples. Whether there was anything."""
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
        """Takes a solution of these samples, and measures it."""
        rows = rows & self.alive
        # What the loss does not depend on has no displacement; rounding would give it one.
        read = (self.g != 0) | self.space.images.any(dim=1)
        delta = torch.where(read, delta, 0.0)
        self.delta = torch.where(rows[:, None], delta, self.delta)
        self.image = torch.where(rows[:, None], image, self.image)
        slope = self.g + self.image - self.twice[:, None] * self.delta
        weight = self.lambda1[:, None]
        off = torch.where(
            self.delta == 0,
            (slope.abs() - weight).clamp_min(0),
            slope - weight * self.delta.sign(),
        )
        self.residual = torch.where(rows, off.norm(dim=1) / self.length, self.residual)
        better = self.residual < PROGRESS * self.best
        self.best = torch.where(better, self.residual, self.best)
        self.waited = torch.where(better, self.products, self.waited)
