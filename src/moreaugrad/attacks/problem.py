"""Samples under attack: valid inputs, the class that must stay, and how an attack ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moreaugrad.attacks.objectives import Goal
from moreaugrad.explainers.base import Explainer
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import INPUT, Batched, InputSpace, Layout
from moreaugrad.score.noise import Noise
from moreaugrad.score.targets import Readout
from moreaugrad.solvers.solution import StatusEnum

FIRST = 2**40
"""Number of an attack's first noise vector, far beyond those of the method that it attacks."""
MARGIN = Readout(kind="margin")
ROUNDINGS = 64
"""Rounding errors of the largest output by which the label's output must exceed all others."""
L2, LINF = "l2", "linf"
NORMS = (L2, LINF)
OUTSIDE = 1e-3
"""Fraction of the box by which a clean input may be outside: the rounding of its normalisation."""


class AttackStatus(StatusEnum):
    """How the attack of a sample ended. Where it failed, `ok` is False, and its result says nothing
    about how robust the map is.

    >>> attack = mg.attacks.GaussianNoiseAttack(mg.SimpleGradient(model), sigma=0.1)
    >>> (status,) = attack.attack(x).status
    >>> found = status.ok, status.message, status.remedy
    """

    IMPROVED = "improved", "found an input of the same class with a lower objective"
    HELD = "held", "no input that was tried lowers the objective; x is returned"
    DRAWN = "drawn", "chose a random input, without an objective"
    NO_BUDGET = "no budget", "the budget is 0, so x is returned"
    NO_GRADIENT = (
        "no gradient",
        "failed: the gradient of the objective is numerically zero, so no step was made",
        "give source= on a smooth network (for ReLU a softplus surrogate), or use random-search",
    )
    FLAT_OBJECTIVE = (
        "flat objective",
        "failed: to first order, no change of the map changes the objective",
        "with count, give ratio instead; otherwise attack a map with more entries that are not 0",
    )
    NO_FEASIBLE_STEP = (
        "no feasible step",
        "failed: every input that was tried has another predicted class",
        "lower epsilon or step, or raise restarts: the sample is at the border of its class",
    )
    ZERO_MAP = (
        "zero map",
        "failed: the map is zero everywhere, so it has no largest entries and no centre",
        "lower the penalty (eta or sparsity), or explain another target",
    )
    UNDEFINED = (
        "undefined",
        "failed: the metric has no value of the clean map, as an overlap of no entries has none",
        "count more entries (ratio, count), or aim at another metric",
    )
    NON_FINITE = (
        "non-finite",
        "failed: the clean map or the objective's gradient is NaN or infinite",
        "see the explanation's status, or use float64",
    )

    @property
    def ok(self) -> bool:
        return not self.remedy


@dataclass(frozen=True, kw_only=True, eq=False)
class Ball(Batched):
    """All x' with ||s (x' - x)|| <= radius and low <= x' <= high, for each sample x.

    center: x, `[B, n]`. scale: s, `[B, n]`, lengths in the budget's units of a unit of the input.
    radius: None for no ball. low, high: `[B, n]`, or None without a box. Steps and starts are in
    the budget's coordinates w = s (x' - x).
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
        """Around the inputs of the score. Errors: ValueError for inputs outside the space."""
        x, layout = bound.origin, bound.layout
        scale = torch.ones_like(x)
        if space is not None and units != INPUT:
            scale = space.scale(layout, x).expand_as(x)
        ball = cls(center=x, scale=scale, norm=norm, radius=radius, layout=layout)
        if space is None:
            return ball
        low, high = space.box(layout, x)
        slack = OUTSIDE * (high - low)
        outside = ((x < low - slack) | (x > high + slack)).any(1)
        if bool(outside.any()):
            raise ValueError(
                f"space: expected pixels in [{space.low:g}, {space.high:g}], got others in sample"
                f"(s) {outside.nonzero()[:, 0].tolist()[:10]}; check its mean, std, low and high"
            )
        return replace(ball, low=torch.minimum(low, x), high=torch.maximum(high, x))

    def at(self, w: Tensor) -> Tensor:
        """The input for the displacement `w` `[B, n]`, projected onto the ball and the box, and
        rounded to the inputs' dtypes: what is evaluated must be what is returned."""
        x = self.inside(w)
        if any(dtype != x.dtype for dtype in self.layout.dtypes):
            x = self.layout.flatten([p.to(x.dtype) for p in self.layout.restore(x)])
        return x

    def inside(self, w: Tensor) -> Tensor:
        """The same without rounding."""
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
        """Displacements of length `radius` from standard normal vectors `[B, n]`: uniform on the
        sphere for L2, with random signs for Linf."""
        assert self.radius is not None
        if self.norm == LINF:
            return self.radius * normal.sign()
        unit: Tensor = normal / normal.norm(dim=1, keepdim=True)
        return self.radius * unit


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackedBatch(Batched):
    """Samples to attack.

    bound: the attacked explainer's score at them. clean: its maps, `[B, n]`. goal: the objective,
    None without one. label: the class that must stay, `[B]`. seed: of the attack's random numbers.
    """

    bound: BoundScore
    ball: Ball
    clean: Tensor
    goal: Goal | None
    label: Tensor
    seed: int
    report: Callable[[float], None] = lambda _: None
    """Called with the fraction of the work that is done."""

    def __len__(self) -> int:
        return len(self.bound)

    def normal(self, number: int) -> Tensor:
        """Standard normal vector `number` of each sample, `[B, n]`."""
        bound = self.bound
        drawn = Noise(self.seed).normals(bound.keys, FIRST + number, self.clean, bound.mask)
        return drawn.expand_as(self.clean)

    def kept(self, x: Tensor) -> Tensor:
        """Whether the label is predicted at `x` `[B, n]`, beyond rounding: `[B]`. A forward pass.

        Without the margin, the prediction at the border of a class would depend on the batch.
        """
        bound = self.bound.moved(x)
        with torch.no_grad():
            outputs = bound.in_chunks(lambda rows: bound.outputs(x[rows], rows))
        largest = outputs.reshape(len(x), -1).abs().amax(1)
        if bound.readout.task == "regression" or (
            bound.readout.task == "multilabel" and outputs.shape[1] == 1
        ):  # without a class, or with one alone
            return torch.isfinite(largest)
        margin = MARGIN.read(outputs, replace(bound.target, classes=self.label))
        slack = min(ROUNDINGS * torch.finfo(outputs.dtype).eps, 0.02)
        return margin > slack * largest  # False for NaN

    def first_kept(
        self, tries: int, propose: Callable[[AttackedBatch, Tensor, int], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The first proposal that keeps the label, `[B, n]`, the center where none of `tries` does;
        the number of proposals that were tried, `[B]`; and whether one was found, `[B]`.

        propose: inputs for some of the samples, from these, their rows and the number of the try.
        """
        x, count = self.ball.center.clone(), torch.zeros_like(self.label)
        found = torch.zeros_like(self.label, dtype=torch.bool)
        left = torch.arange(len(self), device=x.device)
        for number in range(tries):
            part = self.select(left)
            tried = propose(part, left, number)
            kept = part.kept(tried)
            count[left] += 1
            x[left[kept]] = tried[kept]
            found[left[kept]] = True
            left = left[~kept]
            if len(left) == 0:
                break
        return x, count, found

    def bind(self, explainer: Explainer) -> BoundScore:
        """The score that another explainer explains, at these samples, for the same target and with
        the automatic settings of the attacked one."""
        own = self.bound
        parts = own.layout.restore(own.origin)
        mask = None if own.mask is None else own.layout.split(own.mask)
        found = explainer.bind(parts, own.target.given, own.args, own.keys, mask, chosen=own.chosen)
        return replace(found, follows=own.follows)
