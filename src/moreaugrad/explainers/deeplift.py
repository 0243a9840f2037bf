"""DeepLIFT: contributions relative to a baseline, by finite differences in place of derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from moreaugrad.explainers.baseline import FromBaseline, checked, incompleteness, reference
from moreaugrad.explainers.rescale import rescaled
from moreaugrad.score import checks
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.hooks import as_module
from moreaugrad.solvers.solution import Solution


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DeepLift(FromBaseline):
    """A = (x - x') * m, with multipliers m chained through the network: Delta y / Delta x at each
    activation (rescale rule) instead of its derivative.

    >>> maps = mg.DeepLift(model).attribute(x)

    Completeness, sum of (x - x') * m = f(x) - f(x'), holds where every nonlinear part is a module
    that has a rule: activations, max-pooling. It is checked for each sample: the explanation's
    error is |sum of (x - x') * m - (f(x) - f(x'))| / |f(x) - f(x')|, and above `tolerance` the
    status is "incomplete". Explain a logit: probabilities and margins of several outputs have no
    rule.

    Source: Shrikumar et al. (2017). Differs from Captum's: modules may be used more than once, work
    in place, or have a shortcut around them; overlapping pooling windows; more activations (see
    `rescale`); no custom rules.
    """

    times_input: bool = True
    """Multiply the multipliers m by x - x'; False gives m itself, as Captum's
    `multiply_by_inputs=False`."""

    method: ClassVar[str] = "deeplift"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_module(self.forward_func, self.method)

    def _draws(self) -> int:
        return 2

    def _maps(self, bound: BoundScore) -> Solution:
        baseline = reference(bound)
        model = as_module(self.forward_func, self.method)

        def multipliers(rows: Tensor) -> Tensor:
            both = torch.cat((rows, rows))
            points = torch.cat((bound.origin[rows], baseline[rows])).requires_grad_()
            with torch.enable_grad(), rescaled(model, len(both)):
                _, (found,) = bound.pulled(bound.outputs(points, both), (points,), both)
            if found is None:
                raise checks.detached()
            return found[: len(rows)]

        multiplier = bound.in_chunks(multipliers, 2)
        contributions = multiplier * (bound.origin - baseline)
        error = incompleteness(bound, contributions)
        flat = contributions if self.times_input else multiplier
        return checked(Solution.direct(flat, evaluations=2, error=error), self.tolerance)
