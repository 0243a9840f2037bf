"""Methods that compare the input with one baseline, and integrated gradients among them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from captum import attr
from captum.attr._utils.approximation_methods import SUPPORTED_METHODS as QUADRATURES
from captum.attr._utils.approximation_methods import approximation_parameters
from torch import Tensor

from moreaugrad.explainers.comparing import Baselines, Comparing
from moreaugrad.explainers.derivatives import IMPLICIT, gradient_and_product
from moreaugrad.registry import choose
from moreaugrad.score import checks
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.hooks import taken
from moreaugrad.score.score import Inputs
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import expect
from moreaugrad.solvers.solution import Solution, Status

BASELINE_SCORE = "baseline_score"
"""The detail of a map that compares with a baseline: the score there."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FromBaseline(Comparing):
    """A method that compares the input with a baseline x'."""

    baseline: float = 0.0
    """The value of x' at all entries; `attribute(x, baselines=...)` takes a tensor instead."""
    tolerance: float = 0.05
    """Relative completeness error above which a map's status is "incomplete"."""

    setting: ClassVar[str] = "baseline"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.tolerance > 0, "tolerance", "a number > 0", self.tolerance)
        if isinstance(self.baseline, bool) or not isinstance(self.baseline, (int, float)):
            raise TypeError(
                f"baseline: expected a number, got {type(self.baseline).__name__}; a tensor is "
                "given with the call, attribute(inputs, baselines=...)"
            )

    def _compared(self, bound: BoundScore, inputs: Inputs, given: Any) -> BoundScore:
        return replace(bound, baseline=_flat_baseline(bound, inputs, given))

    def compute_convergence_delta(
        self,
        attributions: Inputs,
        start_point: Baselines,
        end_point: Inputs,
        target: TargetLike = None,
        additional_forward_args: object = None,
    ) -> Tensor:
        """sum A - (f(x) - f(x')) of each sample, `[B]`, in Captum's form.

        start_point: the baselines x'; end_point: the inputs x. f is the explained score; Captum's
        own function uses the model's output.
        """
        bound = self.bind(end_point, target, additional_forward_args, baselines=start_point)
        parts = attributions if isinstance(attributions, tuple) else (attributions,)
        return _missing(bound.layout.flatten(parts), *_scores(bound))


def reference(bound: BoundScore) -> Tensor:
    """The baselines `[B, n]` of a score that has them."""
    assert bound.baseline is not None
    return bound.baseline


def checked(maps: Solution, tolerance: float) -> Solution:
    """The maps, with the status INCOMPLETE where their error exceeds `tolerance`."""
    return maps.marked(Status.INCOMPLETE, ~(maps.error <= tolerance))


def incompleteness(bound: BoundScore, contributions: Tensor) -> tuple[Tensor, Tensor]:
    """|sum A - (f(x) - f(x'))| / |f(x) - f(x')| and f(x'), `[B]` each.

    A change f(x) - f(x') below sqrt(eps) of the two scores, which the network's precision cannot
    resolve, is replaced by that: otherwise the error of a sample without a change is arbitrary.
    """
    here, start = _scores(bound)
    coarsest = max(torch.finfo(part).eps for part in bound.layout.dtypes)
    change = (here - start).abs().clamp(min=coarsest**0.5 * (here.abs() + start.abs()))
    missing = _missing(contributions, here, start).abs()
    return torch.where(missing == 0, missing, missing / change), start


def _scores(bound: BoundScore) -> tuple[Tensor, Tensor]:
    """The scores of the inputs and of their baselines, `[B]` each."""
    dtype = bound.origin.dtype
    return bound.clean.to(dtype), bound.scores(reference(bound)).to(dtype)


def _missing(contributions: Tensor, here: Tensor, start: Tensor) -> Tensor:
    return contributions.double().sum(1).to(here.dtype) - (here - start)


def _flat_baseline(bound: BoundScore, inputs: Inputs, given: Any) -> Tensor:
    """Baselines in Captum's forms, as `[B, n]` like the bound inputs."""
    like = bound.layout.split(bound.origin)
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    if not isinstance(given, tuple):
        given = (given,) * (1 if isinstance(given, Tensor) else len(like))
    if bound.layer is not None and any(isinstance(value, Tensor) for value in given):
        start = tuple(part.detach() for part in parts)
        through = _filled(given, start)
        args = (*through, *bound.args[len(through) :])
        return bound.layout.flatten([taken(bound.model, bound.layer, args)]).to(bound.origin.dtype)
    return bound.layout.flatten(_filled(given, like))


def _filled(given: tuple[Any, ...], like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    count = len(like)
    expect(len(given) == count, "baselines", f"one for each of the {count} inputs", len(given))
    return tuple(_fill(value, part) for value, part in zip(given, like, strict=True))


def _fill(value: Any, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        if value.shape[1:] != like.shape[1:] or len(value) not in (1, len(like)):
            raise ValueError(
                f"baselines: expected shape {tuple(like.shape)}, or the same with one row, got "
                f"{tuple(value.shape)} (the target comes after the baselines: name it, target=)"
            )
        checks.check_finite("baselines", (value,))
        return value.detach().to(device=like.device, dtype=like.dtype).expand_as(like)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"baselines: expected numbers or tensors like the inputs, got {type(value).__name__} "
            "(the target comes after the baselines: name it, target=)"
        )
    return torch.full_like(like, value)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class IntegratedGradients(FromBaseline):
    """A = (x - x') * the mean of grad f on the straight line from the baseline x' to x.

    >>> maps = mg.IntegratedGradients(model, steps=16).attribute(x)

    The explanation's error is |sum A - (f(x) - f(x'))| / |f(x) - f(x')|; more steps lower it, and
    above `tolerance` the status is "incomplete". Detail: `baseline_score`, f(x').

    Source: Sundararajan et al. (2017).
    """

    steps: int = 64
    """Number of gradients on the line."""
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
        expect(self.steps >= fewest, "steps", f"at least {fewest}", self.steps)

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

        def gradients(
            *, inputs: tuple[Tensor], additional_forward_args: tuple[Tensor], **_: object
        ) -> tuple[Tensor]:
            # Those of all rows at once, and what half precision would round to zero: Captum's own
            # function has neither.
            return (bound.value_and_grad_at(*inputs, *additional_forward_args)[1],)

        engine.gradient_func = gradients

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

        mean = bound.in_chunks(mean_gradient, self.steps)
        contributions = mean * (bound.origin - baseline)
        error, start = incompleteness(bound, contributions)
        maps = Solution.direct(
            contributions if self.times_input else mean,
            evaluations=self.steps,
            status=Status.FIXED_BUDGET,
            error=error,
        )
        return checked(replace(maps, details={BASELINE_SCORE: start}), self.tolerance)
