"""What a solver is given and returns: a problem, and minimisers with the status of each sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Self

import torch
from torch import Tensor

from moreaugrad.penalties import Penalty
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import Batched
from moreaugrad.settings import Documented


class StatusEnum(Enum):
    """Base of statuses: a value, a message and, where something can be done, a remedy."""

    message: str
    """What the value means."""
    remedy: str
    """What to do about it; empty where there is nothing to do."""

    def __new__(cls, value: str, message: str, remedy: str = "") -> Self:
        made = object.__new__(cls)
        made._value_, made.message, made.remedy = value, message, remedy
        return made


class Status(StatusEnum):
    """How the computation of one map ended. A failure is a status: no exception is raised.

    >>> (status,) = mg.SimpleGradient(model).explain(x).status
    >>> found = status.ok, status.message, status.remedy

    `ok`: the map has the accuracy that its method promises. `failed`: the map is not to be used. In
    between are maps that used up their evaluations, and those of a problem that may have another
    solution.
    """

    DIRECT = "direct", "computed directly, without iteration"
    FIXED_BUDGET = (
        "fixed budget",
        "ran its fixed number of noise samples or steps; the error, where known, is what that gave",
    )
    CONVERGED = "converged", "converged to the stated accuracy of the map"
    UNVARIED = (
        "no noise sample differed",
        "no noise sample differed: the error of 0 says nothing of inputs beyond these",
    )
    BUDGET_USED = "budget used", "budget used", "raise max_evaluations for a smaller error"
    NOT_UNIQUE = (
        "solution not known to be unique",
        "solution not known to be unique: the score's negative curvature, times rho, reached 1",
        "lower rho below 1 / (largest negative curvature of the score)",
    )
    STALLED = (
        "stalled",
        "no step lowers the objective, yet it is not optimal: the score has kinks (ReLU, pooling)",
        "the error is unknown; use Gaussian regularisation (sigma > 0), or a smooth score",
    )
    NON_FINITE = (
        "non-finite",
        "the score or its gradient became NaN or infinite",
        "check the model on inputs near this sample, or lower rho or sigma",
    )
    UNBOUNDED = (
        "unbounded",
        "the displacement grows without bound: the score falls faster than the quadratic rises",
        "lower rho below 1 / (largest negative curvature of the score)",
    )
    BISTABLE = (
        "bistable",
        "two chains ended at different maps: the problem has more than one solution",
        "lower rho below 1 / (largest negative curvature of the score)",
    )
    INCOMPLETE = (
        "incomplete",
        "the contributions do not add up to the score, or to its change from the baseline",
        (
            "integrated gradients: raise steps; DeepLIFT: a part has no rule, use integrated "
            "gradients; expected gradients: the score has jumps, or its gradient is not its own; "
            "backward='balanced': a part has no rule, use backward='exact'"
        ),
    )
    PRECISION = (
        "precision",
        "the accuracy asked for is finer than the rounding of the network's or the map's precision",
        "raise tolerance, or use inputs and a network of higher precision",
    )
    NO_NOISE = (
        "no noise",
        "not smoothed: relative to the range of a constant input, or of one entry, noise is zero",
        "give sigma in the input's units, with sigma_mode='absolute'",
    )
    NO_GRADIENT = (
        "no gradient",
        "the objective's gradient is exactly zero at every step, so the map never left its start",
        "explain another target, or a model that does not saturate at this sample and at zero",
    )
    NO_CURVATURE = (
        "no curvature",
        "all second derivatives are exactly zero, as of logits of a piecewise linear network",
        "smooth the score (sigma > 0), or take the score 'probability'",
    )
    NO_ENTRIES = (
        "no entries",
        "the map is zero everywhere, so that it has no entries between which to compute anything",
        "lower eta or sparsity, or explain another target",
    )

    @property
    def ok(self) -> bool:
        return self in (Status.DIRECT, Status.FIXED_BUDGET, Status.CONVERGED, Status.UNVARIED)

    @property
    def failed(self) -> bool:
        return not self.ok and self not in (Status.BUDGET_USED, Status.NOT_UNIQUE)

    def described(self, error: float) -> str:
        """The message, with the map's estimated relative error where that is known."""
        known = f", estimated error {100 * error:.2g} %" if math.isfinite(error) else ""
        return self.message + known


EVALUATIONS_NEEDED = "evaluations_needed"
"""The detail of a map that used up its evaluations: how many would reach the tolerance."""


def enough(evaluations: float) -> str:
    """A remedy: how many evaluations would be enough, to two digits."""
    return (
        f"raise max_evaluations: about {float(f'{evaluations:.2g}'):.0f} would reach the tolerance"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Provenance(Batched, metaclass=Documented, heading="Attributes"):
    """How each sample's result came about."""

    status: tuple[Status, ...]
    """How each sample's computation ended."""
    residual: Tensor
    """Relative fixed-point residual of the map A, `[B]`: ||A - A+|| / ||A||, A+ the map after one
    fixed-point step; NaN where the method has none."""
    error: Tensor
    """Estimated relative error of the map, `[B]`, which is compared with the tolerance: the Monte
    Carlo standard error where there is noise, the relative completeness error where there is a
    baseline; NaN where none is estimated."""
    eta: Tensor
    """The penalty's weight, `[B]`, as given or as chosen for a sparsity; NaN without a penalty."""
    steps: Tensor
    """Steps of each sample, `[B]`."""
    evaluations: Tensor
    """Evaluations of each sample, `[B]`: a forward and an input-backward pass each."""
    details: Mapping[str, Tensor] = field(default_factory=dict)
    """Further numbers of each map, `[B]` by name; the method's class lists them."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings, given or chosen, of all samples."""

    def __len__(self) -> int:
        return len(self.status)

    @property
    def ok(self) -> bool:
        """Every map has reached the accuracy its method states."""
        return all(status.ok for status in self.status)

    def having(self, status: Status) -> Tensor:
        """Which samples have that status, `[B]`."""
        return torch.tensor([own is status for own in self.status], device=self.error.device)

    def remedy(self, row: int) -> str:
        """What to do about one sample's status; empty where there is nothing to do."""
        known = self.details.get(EVALUATIONS_NEEDED)
        needed = math.nan if known is None else float(known[row])
        return enough(needed) if math.isfinite(needed) else self.status[row].remedy

    def provenance(self) -> dict[str, Any]:
        """The fields of this class, to make another record of the same samples."""
        return {item.name: getattr(self, item.name) for item in fields(Provenance)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution(Provenance):
    """The minimisers of each sample's problem, or the maps made of them."""

    values: Tensor
    """`[B, n]`."""
    z_scores: Tensor | None = None
    """Of each entry, `[B, n]`, see `moreaugrad.solvers.z_scores`; None without noise."""

    @classmethod
    def direct(
        cls,
        values: Tensor,
        evaluations: int,
        status: Status = Status.DIRECT,
        error: Tensor | None = None,
    ) -> Self:
        """The result of a method without iteration; values that are not finite are `NON_FINITE`."""
        unknown = values.new_full((len(values),), torch.nan)
        count = torch.zeros(len(values), dtype=torch.long, device=values.device)
        return cls(
            values=values,
            status=tuple(
                status if finite else Status.NON_FINITE
                for finite in torch.isfinite(values).all(1).tolist()
            ),
            residual=unknown,
            error=unknown if error is None else error,
            eta=unknown,
            steps=count,
            evaluations=count + evaluations,
        )

    def marked(self, status: Status, where: Tensor, error: Tensor | None = None) -> Self:
        """A copy with this status at `where` `[B]`, except at failed samples; and a new error."""
        statuses = zip(self.status, where.tolist(), strict=True)
        return replace(
            self,
            status=tuple(status if new and not old.failed else old for old, new in statuses),
            error=self.error if error is None else error,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class MoreauProblem(Batched):
    """minimise over u `[B, n]`: h(u) + eta R(u), h(u) = f(x + u) + ||u||^2 / (2 rho).

    The map is A = -u* / rho; in terms of the score's gradient, -P(-rho grad f(x + u*)) / rho with
    P the prox of rho eta R. Source: MoreauGrad eq. (5), definition 4.
    """

    score: BoundScore
    """f, at the inputs x."""
    rho: Tensor
    """`[B]`; also the step length at which the residual is measured and line searches start."""
    eta: Tensor
    """The weight of R, `[B]`."""
    penalty: Penalty
    """R."""

    @property
    def counts(self) -> Tensor:
        """Number of the penalty's magnitudes that have a real entry, `[B]`."""
        return real_magnitudes(self.penalty, self.score)

    @property
    def extent(self) -> Tensor:
        """Length of the inputs without padding, `[B]`."""
        x, mask = self.score.origin, self.score.mask
        length: Tensor = (x if mask is None else torch.where(mask, x, 0.0)).norm(dim=1)
        return length

    @property
    def start(self) -> Tensor:
        """The first u, `[B, n]`."""
        return torch.zeros_like(self.score.origin)

    @property
    def evaluations(self) -> int:
        """Evaluations of each sample by one call of `value_and_grad`."""
        return self.score.passes

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """h(u) `[B]` and its gradient `[B, n]`."""
        value, grad = self.score.value_and_grad(u)
        quadratic = u.square().sum(1) / (2 * self.rho)
        return value + quadratic, grad + u / self.rho[:, None]

    def prox(self, u: Tensor, step: Tensor) -> Tensor:
        """The prox of step eta R."""
        return self.penalty.prox(u, step * self.eta)


def real_magnitudes(penalty: Penalty, score: BoundScore) -> Tensor:
    """Number of a penalty's magnitudes with an entry that is not padding, `[B]`."""
    origin, mask = score.origin, score.mask
    real = torch.ones_like(origin[:1]) if mask is None else mask.to(origin.dtype)
    return (penalty.magnitudes(real) > 0).sum(1).expand(len(origin))


class Collector:
    """Collects results of samples that finish at different times, in the batch's order."""

    def __init__(self, like: Tensor) -> None:
        batch = len(like)
        self._rows = list(range(batch))
        self._status = [Status.BUDGET_USED] * batch
        unknown = like.new_full((batch,), torch.nan)
        count = torch.zeros(batch, dtype=torch.long, device=like.device)
        self._store: dict[str, Any] = {"values": torch.full_like(like, torch.nan)}
        self._store |= {name: unknown.clone() for name in ("residual", "error", "eta")}
        self._store |= {name: count.clone() for name in ("steps", "evaluations")}

    def close(self, found: Sequence[Status | None], **values: Tensor | int) -> Tensor:
        """Store the results of the active samples that have a status; `values` are of all of them.

        Returns the places of the samples that stay active.
        """
        places = [place for place, status in enumerate(found) if status is not None]
        rows = [self._rows[place] for place in places]
        for name, value in values.items():
            if name not in self._store:
                self._store[name] = torch.full_like(self._store["values"], torch.nan)
            self._store[name][rows] = value[places] if isinstance(value, Tensor) else value
        for place, row in zip(places, rows, strict=True):
            self._status[row] = found[place] or Status.BUDGET_USED
        keep = [place for place, status in enumerate(found) if status is None]
        self._rows = [self._rows[place] for place in keep]
        return torch.tensor(keep, dtype=torch.long, device="cpu")

    def solution(self) -> Solution:
        return Solution(status=tuple(self._status), **self._store)
