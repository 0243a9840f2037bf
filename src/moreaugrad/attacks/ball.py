"""The inputs that an attack may choose from: a ball around each sample, cut by the valid box."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import INPUT, UNITS, InputSpace, Layout

L2, LINF = "l2", "linf"
NORMS = (L2, LINF)
OUTSIDE = 1e-3
"""Share of the box by which a clean input may miss it: the rounding of its normalisation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ball:
    """x' with ||s (x' - x)|| <= radius and low <= x' <= high, for each sample x.

    `scale` `[n]` is s: lengths of the budget's unit for one of the input. radius None: no ball.
    `low`, `high`: `[B, n]`, or None without a box. Steps and starts are in the budget's
    coordinates w = s (x' - x), where the ball is round.
    """

    center: Tensor
    scale: Tensor
    norm: str
    radius: float | None
    layout: Layout
    low: Tensor | None = None
    high: Tensor | None = None

    @classmethod
    def around(
        cls,
        bound: BoundScore,
        radius: float | None,
        norm: str,
        units: str,
        space: InputSpace | None,
    ) -> Ball:
        """Around the score's own inputs. Errors: ValueError for inputs outside of the space."""
        x, layout = bound.origin, bound.layout
        scale = torch.ones_like(x[0])
        if space is not None and choose("units", units, UNITS) != INPUT:
            scale = space.scale(layout, x)
        if space is None:
            return cls(center=x, scale=scale, norm=norm, radius=radius, layout=layout)
        low, high = space.box(layout, x)
        slack = OUTSIDE * (high - low)
        outside = ((x < low - slack) | (x > high + slack)).any(1)
        if bool(outside.any()):
            raise ValueError(
                f"space: expected pixels in [{space.low:g}, {space.high:g}], got others "
                f"in sample(s) {outside.nonzero()[:, 0].tolist()[:10]}; check its mean, "
                "std, low and high"
            )
        return cls(
            center=x,
            scale=scale,
            norm=norm,
            radius=radius,
            layout=layout,
            low=torch.minimum(low, x),
            high=torch.maximum(high, x),
        )

    def select(self, rows: Tensor) -> Ball:
        return replace(
            self,
            center=self.center[rows],
            low=None if self.low is None else self.low[rows],
            high=None if self.high is None else self.high[rows],
        )

    def at(self, w: Tensor) -> Tensor:
        """The input for the displacement `w` `[B, n]` in the budget's coordinates, projected."""
        if self.radius is not None:
            if self.norm == LINF:
                w = w.clamp(-self.radius, self.radius)
            else:
                length = w.double().norm(dim=1, keepdim=True)
                # The box only shortens a displacement, so it comes second.
                w = torch.where(length > self.radius, w * (self.radius / length), w).to(w.dtype)
        x = self.center + w / self.scale
        if self.low is not None and self.high is not None:
            x = torch.minimum(torch.maximum(x, self.low), self.high)
        if any(dtype != x.dtype for dtype in self.layout.dtypes):
            # What is judged must be what is returned, rounding included.
            x = self.layout.flatten([p.to(x.dtype) for p in self.layout.restore(x)])
        return x

    def displacement(self, x: Tensor) -> Tensor:
        """w = s (x' - x), `[B, n]`."""
        return (x - self.center) * self.scale

    def length(self, w: Tensor) -> Tensor:
        """||w|| in the budget's norm, `[B]` in float64."""
        w = w.double()
        return w.abs().amax(1) if self.norm == LINF else w.norm(dim=1)

    def distance(self, x: Tensor) -> Tensor:
        """||s (x' - x)||, `[B]` in float64."""
        return self.length((x.double() - self.center.double()) * self.scale.double())

    def on_sphere(self, normal: Tensor) -> Tensor:
        """Displacements of length `radius` from standard normal draws `[B, n]`: uniform in L2, of
        random signs in Linf."""
        assert self.radius is not None
        if self.norm == LINF:
            return self.radius * normal.sign()
        unit: Tensor = normal / normal.norm(dim=1, keepdim=True)
        return self.radius * unit
