"""What an explainer makes of a group of samples: flat maps, and how each came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from moreaugrad.explainers.explanation import Explanation
from moreaugrad.score.bound import BoundScore
from moreaugrad.score.inputs import Layout
from moreaugrad.solvers.solution import Solution, Status

STORED = 0.02
"""Relative error of a map in its input's dtype that is more than rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Maps:
    """Flat signed maps `[B, n]` and what `Explanation` says of them, `[B]` each."""

    flat: Tensor
    status: tuple[Status, ...]
    residual: Tensor
    error: Tensor
    eta: Tensor
    steps: Tensor
    evaluations: Tensor
    details: Mapping[str, Tensor] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the method chose where a setting left it to it, of all samples."""

    @classmethod
    def direct(
        cls,
        flat: Tensor,
        evaluations: int,
        status: Status = Status.DIRECT,
        error: Tensor | None = None,
    ) -> Self:
        """Of a method without iteration. A map that is not finite says so."""
        unknown = flat.new_full((len(flat),), torch.nan)
        count = torch.zeros(len(flat), dtype=torch.long, device=flat.device)
        return cls(
            flat=flat,
            status=tuple(
                status if finite else Status.NON_FINITE
                for finite in torch.isfinite(flat).all(1).tolist()
            ),
            residual=unknown,
            error=unknown if error is None else error,
            eta=unknown,
            steps=count,
            evaluations=count + evaluations,
        )

    @classmethod
    def solved(cls, flat: Tensor, solution: Solution) -> Self:
        """Of an optimisation problem's solution."""
        kept = {item.name: getattr(solution, item.name) for item in fields(solution)}
        del kept["u"]
        return cls(flat=flat, **kept)

    @classmethod
    def of(cls, explanation: Explanation, bound: BoundScore) -> Self:
        """Those of an explanation, as they were before they got the inputs' shape."""
        kept = {item.name: getattr(explanation, item.name) for item in fields(cls)[1:]}
        parts = [part.to(bound.origin.dtype) for part in explanation.parts]
        return cls(flat=bound.layout.flatten(parts), **kept)

    def smoothed(self, bound: BoundScore) -> Self:
        """These, a sample being reported that was to be smoothed but has an input without noise."""
        silent = bound.silent()
        if not bool(silent.any()):
            return self
        return self._marked(Status.NO_NOISE, silent, self.error.masked_fill(silent, torch.nan))

    def stored(self, layout: Layout) -> Self:
        """These, a map being reported that its input's dtype cannot hold: too small or too large.

        Its error becomes what is lost, where it was not known to be as large.
        """
        lost = layout.lost(self.flat)
        poor = (lost > STORED) & ~(self.error >= lost)
        if not bool(poor.any()):
            return self
        error = torch.where(poor, lost, self.error)
        return self._marked(Status.PRECISION, poor, error.masked_fill(error.isinf(), torch.nan))

    def _marked(self, status: Status, where: Tensor, error: Tensor) -> Self:
        """These with another error, and that status where no worse one is known."""
        statuses = zip(self.status, where.tolist(), strict=True)
        return replace(
            self,
            status=tuple(status if new and not old.failed else old for old, new in statuses),
            error=error,
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        found: dict[str, Any] = {}
        for item in fields(cls):
            values = [getattr(part, item.name) for part in parts]
            if item.name == "status":
                found[item.name] = sum(values, ())
            elif item.name == "details":
                found[item.name] = {key: torch.cat([v[key] for v in values]) for key in values[0]}
            elif item.name == "settings":
                found[item.name] = values[0]
            else:
                found[item.name] = torch.cat(values)
        return cls(**found)
