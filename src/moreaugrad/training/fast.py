"""One step: the maximiser of the linearised inner problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from moreaugrad.penalties import Penalty
from moreaugrad.training.inner import InnerProblem
from moreaugrad.training.protocol import Adversary


@dataclass(frozen=True, kw_only=True, eq=False)
class Fast(Adversary):
    """delta = argmax_d <g, d> - h(d), g the gradient of the sample's loss at x.

    >>> x_adv = mg.training.Fast(mg.ElasticNet(0.01, 0.05))(model, x, y)

    With `L1` this is the fast gradient sign. Source: AdvGrad appendix B.3.
    """

    def _search(
        self, problem: InnerProblem, penalty: Penalty, ids: Sequence[int] | Tensor | None
    ) -> tuple[Tensor, Tensor]:
        g = problem.gradient(problem.near.zero())
        return penalty.maximiser(g), g
