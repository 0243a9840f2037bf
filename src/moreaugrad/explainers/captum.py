"""Captum's Integrated Gradients on our scores, with their errors reported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from captum import attr
from captum.attr._utils.approximation_methods import SUPPORTED_METHODS as QUADRATURES
from captum.attr._utils.approximation_methods import approximation_parameters
from torch import Tensor

from moreaugrad.explainers.baseline import FromBaseline, checked, incompleteness, reference
from moreaugrad.explainers.derivatives import IMPLICIT, gradient_and_product
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.forward import explained
from moreaugrad.solvers.solution import Solution, Status


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class IntegratedGradients(FromBaseline):
    """A = (x - x') * mean of grad f on the straight line from the baseline x' to x.

    >>> maps = mg.IntegratedGradients(model, steps=16).attribute(x)

    The explanation's error is |sum A - (f(x) - f(x'))| / |f(x) - f(x')|; more steps lower it, and
    above `tolerance` the status is "incomplete".

    Source: Sundararajan et al. (2017).
    """

    steps: int = 64
    """Gradients on the line."""
    quadrature: str = "gausslegendre"
    """Rule of the integral: "gausslegendre", "riemann_middle", "riemann_trapezoid", "riemann_left"
    or "riemann_right"."""
    times_input: bool = True
    """Multiply by x - x'; False gives the mean gradient alone."""

    method: ClassVar[str] = "integrated-gradients"
    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT,)

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("quadrature", self.quadrature, QUADRATURES)
        fewest = 1 if self.quadrature == "gausslegendre" else 2
        if self.steps < fewest:
            raise ValueError(f"steps: expected at least {fewest}, got {self.steps!r}")

    def _draws(self) -> int:
        return self.steps

    def fixed(self, draws: int) -> Self:
        return replace(self, steps=min(self.steps, max(2, draws)))

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        """c * mean g + mean alpha H ((x - x') * c) over points x' + alpha (x - x') of the line."""
        change = bound.origin - reference(bound)
        v = change * cotangent if self.times_input else cotangent
        total = torch.zeros_like(v)
        widths, places = approximation_parameters(self.quadrature)
        for width, alpha in zip(widths(self.steps), places(self.steps), strict=True):
            point = bound.moved(reference(bound) + alpha * change)
            gradient, product = gradient_and_product(point, v)
            total = total + width * alpha * product
            if self.times_input:
                total = total + width * cotangent * gradient
        return total

    def _maps(self, bound: BoundScore) -> Solution:
        baseline = reference(bound)
        engine = attr.IntegratedGradients(bound.value, multiply_by_inputs=False)

        def mean_gradient(rows: Tensor) -> Tensor:
            found: Tensor = engine.attribute(
                bound.origin[rows],
                baselines=baseline[rows],
                additional_forward_args=(rows,),
                n_steps=self.steps,
                method=self.quadrature,
                internal_batch_size=max(len(rows), bound.chunks.size),
            )
            return found

        with explained(bound.layout):
            mean = bound.in_chunks(mean_gradient, self.steps)
        contributions = mean * (bound.origin - baseline)
        maps = Solution.direct(
            contributions if self.times_input else mean,
            evaluations=self.steps,
            status=Status.FIXED_BUDGET,
            error=incompleteness(bound, contributions),
        )
        return checked(maps, self.tolerance)
