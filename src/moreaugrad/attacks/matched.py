"""Attacks that are aimed at what is measured: their objective is a metric of pairs of maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from moreaugrad.attacks.base import Attack
from moreaugrad.attacks.descent import INPUT_START, SPHERE, DescentAttack
from moreaugrad.attacks.objectives import Aim, Goal
from moreaugrad.attacks.surrogates import OVERLAPS, SURROGATES, part, shaped
from moreaugrad.metrics import METRICS
from moreaugrad.metrics.catalogue import HIGH, LOW, Metric
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import Layout
from moreaugrad.settings import expect

AUTO = "auto"
LESS_THAN_A_STEP = 1e-6
"""Weight of a surrogate in [0, 1] next to an overlap, which moves in steps of 1 / k."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _MetricGoal(Goal):
    """A metric of the clean map and another one, negative where less is more similar. The maps of
    several inputs are compared as one, without axes.

    surrogate: what steps follow. mask: True at the entries that count, as the metric takes it; None
    where all do. stepwise: the metric has few values, as an overlap of few entries
    has; the surrogate decides between equal ones.
    """

    clean: Tensor
    layout: Layout
    measure: Callable[..., Tensor]
    sign: int
    surrogate: Goal | None
    stepwise: bool
    mask: Tensor | None = None

    def reported(self, maps: Tensor) -> Tensor:
        pair = [shaped(each, self.layout) for each in (self.clean, maps)]
        padding = {} if self.mask is None else {"mask": self.mask}
        return self.sign * self.measure(*pair, **padding) + 0.0  # no negative zeros

    def value(self, maps: Tensor) -> Tensor:
        found = self.reported(maps)
        if self.stepwise and self.surrogate is not None:
            found = found + LESS_THAN_A_STEP * self.surrogate.value(maps.double())
        return found

    def value_and_cotangent(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        assert self.surrogate is not None
        return self.value(maps), self.surrogate.value_and_cotangent(maps)[1]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Matched(Attack):
    """An attack whose objective is a metric of the clean and the attacked map.

    The best input is that of the worst value. `before` and `after` are values of the metric,
    negative for one that is better when low; between equal overlaps, `objective` also counts what
    steps follow, by a millionth.
    """

    metric: str = "top-k"
    """Name of the metric, one that compares two maps."""
    measure: Mapping[str, Any] = field(default_factory=dict)
    """The metric's settings, those that are not its defaults."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ", ".join(name for name, row in METRICS.items() if self.can_be_aimed_at(row))
        expect(
            self.can_be_aimed_at(METRICS[self.metric]), "metric",
            f"one that this attack can be aimed at ({known})", self.metric,
        )  # fmt: skip
        METRICS.build(self.metric, **self.measure)

    @classmethod
    def can_be_aimed_at(cls, row: Metric) -> bool:
        """Whether it compares two maps and says which way is worse."""
        return row.kind == "pair" and row.better in (HIGH, LOW)

    def _goal(self, clean: Tensor, bound: BoundScore) -> Goal:
        row, layout = METRICS[self.metric], bound.layout
        surrogate, settings = SURROGATES.get(part(row)), row.defaults() | dict(self.measure)
        if bound.mask is not None and "mask" in settings:
            settings["mask"] = shaped(bound.mask, layout)
        return _MetricGoal(
            clean=clean,
            layout=layout,
            measure=METRICS.build(self.metric, **self.measure),
            sign=1 if row.better == HIGH else -1,
            surrogate=None if surrogate is None else surrogate(clean, layout, settings),
            stepwise=part(row) in OVERLAPS,
            mask=settings.get("mask"),
        )

    @classmethod
    def aimed_at(cls, settings: Mapping[str, Any]) -> Aim:
        return Aim(settings["metric"], settings.get("measure", {}))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MatchedAttack(Matched, DescentAttack):
    """Makes a metric as bad as it can: what is measured is what is attacked.

    >>> attack = mg.attacks.MatchedAttack(
    ...     mg.SimpleGradient(model), metric="top-k", measure={"ratio": 0.04, "nonzero": False},
    ...     epsilon=0.5, steps=10,
    ... )
    >>> result = attack.attack(x)

    Steps follow the metric itself, or, where that is constant nearly everywhere, a differentiable
    one in its place: for overlaps of the k largest entries their magnitude in the attacked map,
    over that of its 3k largest entries; for `spearman` the correlation of the values. Of all
    iterates the one with the worst value of the metric is kept.
    Source: Ghorbani et al. (2019). Differs: the objective follows from the metric.
    """

    start: str = AUTO
    """Where the first run starts: the "input", or a random point on the "sphere" of radius epsilon
    that keeps the class; "auto" takes the input for overlaps, and the sphere for other metrics,
    whose gradient is zero at the input."""

    name: ClassVar[str] = "matched"

    def _start(self) -> str:
        if self.start != AUTO:
            return self.start
        return INPUT_START if part(METRICS[self.metric]) in OVERLAPS else SPHERE

    @classmethod
    def can_be_aimed_at(cls, row: Metric) -> bool:
        """Whether there is something that steps can follow too."""
        return super().can_be_aimed_at(row) and part(row) in SURROGATES
