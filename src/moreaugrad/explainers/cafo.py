"""The displacement that changes the loss most, and CAFO, which finds it to first order.

D* = argmax_D g'D + D'HD / 2 - lambda1 R(D) - lambda2 ||D||^2, g and H the gradient and the Hessian
of the loss; for CAFO H = 0, for CASO see `caso`. R is the L1 norm unless another penalty is given.
This relaxes a limit on the number of entries, which would be a combinatorial problem; the two agree
where the Hessian meets a restricted eigenvalue condition (CASO paper, appendix E) that cannot be
checked for a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from moreaugrad.explainers.derivatives import IMPLICIT, gradient_and_product
from moreaugrad.explainers.penalised import PenalisedExplainer
from moreaugrad.explainers.smoothed import SmoothedExplainer
from moreaugrad.penalties import Penalty
from moreaugrad.penalties.base import prox_derivative
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.inputs import flat_scale
from moreaugrad.settings import expect
from moreaugrad.solvers.block_means import BlockMeans
from moreaugrad.solvers.blocks import relative
from moreaugrad.solvers.solution import Solution, Status, real_magnitudes
from moreaugrad.solvers.sparsity import Rule, for_sparsity, searched
from moreaugrad.solvers.z_scores import Measured, through

AUTO, SEARCH = "auto", "search"
PIXEL_C1 = 10.0


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Displacement(PenalisedExplainer):
    """A = -D*, in units of `std` times the input; positive where the input raises the score.

    D* = argmin_D -<g, D> - <D, H D> / 2 + lambda1 R(D) + lambda2 ||D||^2 (without a factor 1/2), g
    and H the gradient and the Hessian of the loss.

    Details: `surrogate`, the loss's increase at D* by this model, and `increase`, the true one.
    """

    score: str = "log-probability"
    """The loss is minus this score; with "log-probability" the loss is the cross-entropy."""
    std: float | Sequence[float] = 1.0
    """Divisor of the pixels in the preprocessing, a number or one for each channel: the problem is
    then posed for pixels in [0, 1], as in the paper. 1 poses it for the inputs as they are, where
    the same problem has std^2 times the c1 and std times the lambda1."""
    c1: float = PIXEL_C1
    """lambda2 = L / 2 + c1, L the Hessian's largest eigenvalue (0 for CAFO)."""
    lambda1: float | str = AUTO
    """Weight that multiplies the penalty: a number; "auto" chooses it by `sparsity`; "search", the
    paper's choice, is the last of the grid max|g| / 2^j with at least three quarters of zeros."""
    lambda2: float | None = None
    """Weight of the squared L2 penalty; None computes it from `c1`."""
    sparsity: float = 0.9
    """Fraction of zero entries (groups) that an automatic `lambda1` aims at."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_weight("lambda1", self.lambda1, (AUTO, SEARCH))
        expect(self.c1 > 0, "c1", "a number > 0", self.c1)
        expect(self.lambda2 is None or self.lambda2 > 0, "lambda2", "a number > 0", self.lambda2)
        expect(0 <= self.sparsity <= 1, "sparsity", "a fraction from 0 to 1", self.sparsity)

    @classmethod
    def published(cls, forward_func: ForwardFunc, **settings: Any) -> Self:
        """The paper's settings: c1 = 10 for pixels in [0, 1], lambda1 by search.

        Give `std` if the preprocessing divides by it. The problem is solved to its tolerance, where
        the paper takes ten steps.
        """
        chosen: dict[str, Any] = {"c1": PIXEL_C1, "lambda1": SEARCH}
        return cls(forward_func, **(chosen | settings))

    def _rule(self, penalty: Penalty, bound: BoundScore) -> Rule | None:
        """How lambda1 is chosen; None if it is given."""
        if not isinstance(self.lambda1, str):
            return None
        counts = real_magnitudes(penalty, bound)
        if self.lambda1 == SEARCH:
            return searched(penalty.magnitudes, counts)
        return for_sparsity(self.sparsity, penalty.magnitudes, counts)

    def _given(self, bound: BoundScore) -> Tensor:
        """lambda1 `[B]`, 0 where it is chosen."""
        number = 0.0 if isinstance(self.lambda1, str) else self.lambda1
        return torch.full_like(bound.origin[:, 0], number)

    def _details(
        self, bound: BoundScore, scale: Tensor, delta: Tensor, surrogate: Tensor
    ) -> dict[str, Tensor]:
        """The loss's increase by the displacement, as modelled and as it is (one more pass)."""
        increase = bound.clean - bound.scores(bound.origin + delta / scale)
        return {"surrogate": surrogate, "increase": increase.to(surrogate)}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CAFO(Displacement):
    """A = -D*, D* = P(g / (2 lambda2)), P the prox of lambda1 / (2 lambda2) R: to first order.

    g is the gradient of the loss and lambda2 = c1. With the L1 norm, D* = ST_lambda1(g) / (2
    lambda2), the soft-thresholded gradient.

    >>> maps = mg.CAFO(model).attribute(x)

    Source: CASO paper eq. (3).
    """

    method: ClassVar[str] = "cafo"
    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT,)
    centre: ClassVar[bool] = False

    @property
    def _lambda2(self) -> float:
        return self.c1 if self.lambda2 is None else self.lambda2

    def _maps(self, bound: BoundScore) -> Solution:
        scale = flat_scale(self.std, bound.layout, bound.origin)
        penalty = self._penalty(bound)
        rule, given = self._rule(penalty, bound), self._given(bound)

        def weight(gradient: Tensor) -> Tensor:
            return given if rule is None else rule(gradient, lambda _: gradient)

        def solved(gradient: Tensor) -> Tensor:
            twice = 2 * self._lambda2
            if penalty.sparse:  # a norm
                return penalty.prox(gradient, weight(gradient)) / twice
            return penalty.prox(gradient / twice, weight(gradient) / twice)

        means = BlockMeans.of(bound, centred=self.centre)
        gradient = -means.mean / scale
        delta = solved(gradient)
        error = relative(means.error(lambda mean: solved(-mean / scale)), delta)

        def measured(mean: Tensor) -> Measured:
            gradient, twice = -mean / scale, 2 * self._lambda2
            return through(penalty, gradient / twice, weight(gradient) / twice)

        status = Status.DIRECT if bound.sigma is None else Status.FIXED_BUDGET
        details = self._details(bound, scale, delta, (gradient * delta).sum(1))
        maps = Solution.direct(0.0 - delta, means.evaluations, status, error)
        found = replace(
            maps, z_scores=means.z_scores(measured), eta=weight(gradient), details=details,
            settings=means.used,
        )  # fmt: skip
        return means.marked(found)

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        """H D c / (2 lambda2) at fixed lambda1, D the derivative of the prox."""
        scale = flat_scale(self.std, bound.layout, bound.origin)
        penalty, twice = self._penalty(bound), 2 * self._lambda2
        tau = maps.eta / twice
        if penalty.differentiable:
            delta = -maps.values
            inside = penalty.prox_root(delta, tau, penalty.prox_root(delta, tau, cotangent))
        else:
            inner = -bound.value_and_grad()[1] / scale / twice
            inside = prox_derivative(penalty, inner, tau)(cotangent)
        return gradient_and_product(bound, inside / (twice * scale))[1]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SmoothCAFO(CAFO, SmoothedExplainer):
    """CAFO of the mean loss over `samples` antithetic noise samples.

    >>> maps = mg.SmoothCAFO(model, samples=4).attribute(x)

    Source: CASO paper section 5. Differs: one target for all noise samples.
    """

    samples: int = 32
    centre: bool = True  # type: ignore[misc]
    """Shrink the mean gradient towards the one through mean activation derivatives, as in
    `SmoothGrad`; False takes the plain mean."""

    method: ClassVar[str] = "smooth-cafo"

    def fixed(self, draws: int) -> Self:
        # The derivative is that of the plain mean.
        return replace(super().fixed(draws), centre=False)
