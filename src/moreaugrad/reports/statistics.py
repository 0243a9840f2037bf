"""Means over images and losses against a base, with confidence intervals.

What is undefined or failed is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from moreaugrad.attacks.catalogue import CLEAN
from moreaugrad.files.units import Record
from moreaugrad.registry import choose
from moreaugrad.reports.reading import MapsFolder, failed, numbers, value

WORST = "worst of the attacks"
HIGH, LOW = "high", "low"
"""What is better, of a metric."""
LEAST = 10
"""Values that an interval needs: of fewer, the spread is too uncertain for skewed scores."""
NONE = (math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Two-sided intervals of this confidence; NaN for fewer than ten values, none of them NaN."""

    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence: expected between 0 and 1, got {self.confidence!r}")

    def of_mean(self, values: ArrayLike) -> tuple[float, float]:
        """mean -+ t s / sqrt(n), with n - 1 degrees of freedom."""
        given = np.asarray(values, dtype=np.float64)
        if len(given) < LEAST:
            return NONE
        half = self._quantile(len(given)) * float(given.std(ddof=1)) / math.sqrt(len(given))
        mean = float(given.mean())
        return mean - half, mean + half

    def of_ratio(self, below: ArrayLike, above: ArrayLike) -> tuple[float, float]:
        """Of mean(above) / mean(below), values in pairs: all r that a test of
        mean(above - r below) = 0 does not reject.

        NaN also where the mean below may be zero. Source: Fieller (1954).
        """
        pairs = np.array([below, above], dtype=np.float64)
        count = pairs.shape[1]
        if count < LEAST:
            return NONE
        a, b = pairs.mean(1).tolist()
        (aa, ab), (_, bb) = (np.cov(pairs) / count).tolist()
        t = self._quantile(count)
        rest = a * a - t * t * aa
        if rest <= 0:
            return NONE
        middle, spread = a * b - t * t * ab, b * b - t * t * bb
        half = math.sqrt(max(0.0, middle * middle - rest * spread))
        return (middle - half) / rest, (middle + half) / rest

    def _quantile(self, count: int) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(count - 1, (1 + self.confidence) / 2))


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over `count` images. undefined: those where the metric has no value; failed: those
    where the method or the attack has no result; neither is in the mean. mean_with_failed: as if
    failed attacks had run, that is with the unchanged maps that they leave, as published. aimed:
    whether the attack is aimed at the metric; None where that has no meaning."""

    run: str
    method: str
    attack: str
    epsilon: float | None
    metric: str
    better: str
    mean: float
    low: float
    high: float
    count: int
    undefined: int
    failed: int
    mean_with_failed: float
    aimed: bool | None = None


def means(run: MapsFolder, intervals: Intervals) -> list[Mean]:
    """Of every method, attack, budget and metric, and of the worst attack on each image."""
    found = []
    for group in [*_plain(run), *_worst(run)]:
        defined = _defined(group.values)
        low, high = intervals.of_mean(defined)
        known = group.metric in run.metrics
        found.append(
            Mean(
                run=run.label, method=group.method, attack=group.attack, epsilon=group.epsilon,
                metric=group.metric, better=run.metric(group.metric).better if known else "",
                mean=_mean(defined), low=low, high=high, count=len(defined),
                undefined=len(group.values) - len(defined), failed=group.failed,
                mean_with_failed=_mean([*defined, *_defined(group.unchanged)]),
                aimed=_aimed(run, group.attack, group.metric) if known else None,
            )
        )  # fmt: skip
    return found


def _aimed(run: MapsFolder, attack: str, metric: str) -> bool | None:
    """Of the worst of the attacks: whether one of them is."""
    if attack == CLEAN or run.metric(metric).kind != "pair":
        return None
    names = [name for name in run.attacks if run.sweeps_epsilon(name)]
    found = [run.aimed(name, metric) for name in (names if attack == WORST else [attack])]
    known = [one for one in found if one is not None]
    return any(known) if known else None


def _defined(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


@dataclass(frozen=True, kw_only=True)
class _Group:
    """values: of the images that have a result. unchanged: of the others with a failed attack."""

    method: str
    attack: str
    epsilon: float | None
    metric: str
    values: list[float]
    failed: int
    unchanged: list[float] = field(default_factory=list)


def _plain(run: MapsFolder) -> Iterator[_Group]:
    for (method, attack, epsilon), records in run.by_key.items():
        good = [record for record in records if not failed(record)]
        lost = [r for r in records if failed(r) and "problem" not in r]
        names = dict.fromkeys(name for record in [*good, *lost] for name in numbers(record))
        pairs = [name for name in run.metrics if run.metric(name).kind == "pair"]
        for metric in names or (pairs if attack != CLEAN else ()):
            yield _Group(
                method=method, attack=attack, epsilon=epsilon, metric=metric,
                values=[numbers(record).get(metric, math.nan) for record in good],
                failed=len(records) - len(good),
                unchanged=[numbers(record).get(metric, math.nan) for record in lost],
            )  # fmt: skip


def _worst(run: MapsFolder) -> Iterator[_Group]:
    """Of every method, budget and metric of two maps; nothing for a single attack."""
    attacks = [attack for attack in run.attacks if run.sweeps_epsilon(attack)]
    if len(attacks) < 2:
        return
    for method in run.methods:
        for epsilon in run.budgets(attacks[0]):
            for metric in run.metrics:
                found = run.metric(metric)
                if found.kind == "pair" and found.better in (HIGH, LOW):
                    values, unchanged = worst_values(run, method, epsilon, metric)
                    if values or unchanged:
                        kept = [v for v in unchanged.values() if v is not None]
                        yield _Group(
                            method=method, attack=WORST, epsilon=epsilon, metric=metric,
                            values=list(values.values()), failed=len(unchanged), unchanged=kept,
                        )  # fmt: skip


def worst_values(
    run: MapsFolder, method: str, epsilon: float | None, metric: str
) -> tuple[dict[int, float], dict[int, float | None]]:
    """For each image, by its index, the value of the attack that changed the map most, NaN where
    the metric has none for one of the attacked maps; and of the images on which no attack ran, the
    value of the unchanged map, None where there is no map.

    An image counts if at least one attack ran on it, so that masked gradients do not look like
    robustness.
    """
    ran: dict[int, list[Record]] = {}
    lost: dict[int, list[Record]] = {}
    for attack in filter(run.sweeps_epsilon, run.attacks):
        for record in run.by_key.get((method, attack, epsilon), []):
            (lost if failed(record) else ran).setdefault(record["index"], []).append(record)
    worst = min if run.metric(metric).better == HIGH else max

    def of(records: Sequence[Record]) -> float:
        found = [value(record, metric) for record in records]
        # A map that vanished under one attack must not look as it does under the others.
        return math.nan if any(map(math.isnan, found)) else worst(found)

    left = {
        index: [record for record in records if "problem" not in record]
        for index, records in lost.items() if index not in ran
    }  # fmt: skip
    return (
        {index: of(records) for index, records in ran.items()},
        {index: of(records) if records else None for index, records in left.items()},
    )


@dataclass(frozen=True, kw_only=True)
class Drop:
    """(mean of base - mean of method) / mean of base, over the `count` clean images that both
    have a value for; the interval takes the two values of an image as a pair. NaN where the
    base's mean is not positive."""

    run: str
    method: str
    base: str
    metric: str
    drop: float
    low: float
    high: float
    count: int


def bases(run: MapsFolder, given: Sequence[str]) -> dict[str, str]:
    """The base of each method, by `METHOD=BASE`, or `BASE` for all that are not named.

    Errors: ValueError for a name that is no method of the run.
    """
    methods = list(run.methods)
    found: dict[str, str] = {}
    for text in given:
        method, separator, base = text.partition("=")
        if separator:
            found[choose("base", method.strip(), methods)] = choose("base", base.strip(), methods)
    for text in given:
        if "=" not in text:
            base = choose("base", text.strip(), methods)
            found = {m: base for m in methods if m != base and m not in found} | found
    return found


def drops(run: MapsFolder, given: Mapping[str, str], intervals: Intervals) -> list[Drop]:
    """Of every metric that evaluates the network and is better when high: AOPC, insertion."""
    metrics = [
        name
        for name in run.metrics
        if run.metric(name).kind == "model" and run.metric(name).better == HIGH
    ]
    found = []
    for method in [name for name in run.methods if name in given]:
        for metric in metrics:
            own, other = (clean_values(run, name, metric) for name in (method, given[method]))
            shared = [index for index in own if index in other]
            pairs = np.array([[other[i], own[i]] for i in shared]).reshape(-1, 2)
            drop = _ratio(pairs)
            low, high = intervals.of_ratio(pairs[:, 0], pairs[:, 1])
            if math.isnan(drop):
                low = high = math.nan
            found.append(
                Drop(
                    run=run.label, method=method, base=given[method], metric=metric,
                    drop=drop, low=1 - high, high=1 - low, count=len(shared),
                )
            )  # fmt: skip
    return found


def clean_values(run: MapsFolder, method: str, metric: str) -> dict[int, float]:
    """Of the clean maps, by the index of the image, where there is a value. metric: also
    "evaluations"."""
    records = [r for r in run.by_key.get((method, CLEAN, None), []) if not failed(r)]
    found = {record["index"]: numbers(record).get(metric, math.nan) for record in records}
    return {index: each for index, each in found.items() if not math.isnan(each)}


def _ratio(pairs: np.ndarray) -> float:
    if not len(pairs):
        return math.nan
    base, own = pairs.mean(0)
    return float((base - own) / base) if base > 0 else math.nan
