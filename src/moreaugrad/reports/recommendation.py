"""What an evaluation of candidates says about which of them to use, for four purposes or five."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moreaugrad.attacks.catalogue import CLEAN
from moreaugrad.files.units import Record
from moreaugrad.reports.comparisons import (
    Floats,
    front,
    images_needed,
    interval_of_mean,
    may_be_best,
)
from moreaugrad.reports.maps import failures
from moreaugrad.reports.reading import MapsFolder, failed, unusable
from moreaugrad.reports.statistics import clean_values, worst_values

SPARSITY, GINI, ROBUSTNESS, FAITHFULNESS, STABILITY, COST = (
    "sparsity", "gini", "robustness", "faithfulness", "stability", "cost",
)  # fmt: skip
CLEAN_METRICS = {
    SPARSITY: "zeros", GINI: "gini", FAITHFULNESS: "aopc", COST: "evaluations",
}  # fmt: skip
TESTED = (ROBUSTNESS, FAITHFULNESS, STABILITY)
"""Criteria by which candidates are called better."""
SPARSE, QUICK = 0.8, 16
"""Zeros of a map that counts as sparse, and evaluations of one that counts as quick."""
AS_CHEAP = 1.25
"""By how much more evaluations may differ between candidates that count as equally cheap."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A method with settings. command, python: how a map of it is made."""

    label: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    python: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurements:
    """run: an evaluation of the candidates. metric: of the overlap under attacks of size epsilon.
    seconds: of an evaluation. stability: the overlap with the maps of other networks, by method
    and image. top: the fraction of entries that is compared."""

    run: MapsFolder
    candidates: Sequence[Candidate]
    metric: str
    epsilon: float | None
    seconds: float
    stability: Mapping[str, Mapping[int, float]]
    confidence: float
    top: float

    @property
    def images(self) -> list[int]:
        return [one["index"] for one in self.run.inputs if "problem" not in one]

    def matrix(self, criterion: str) -> Floats:
        """`[images, candidates]`, NaN where there is no value."""
        columns = [self._column(criterion, one.label) for one in self.candidates]
        rows = [[column.get(index, math.nan) for column in columns] for index in self.images]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(columns))

    def _column(self, criterion: str, label: str) -> Mapping[int, float]:
        if criterion == STABILITY:
            return self.stability.get(label, {})
        if criterion == ROBUSTNESS:
            return worst_values(self.run, label, self.epsilon, self.metric)[0]
        return clean_values(self.run, label, CLEAN_METRICS[criterion])

    def failed(self, criterion: str, label: str) -> int:
        """Images without a map, or on which no attack ran."""
        if criterion == ROBUSTNESS:
            lost = worst_values(self.run, label, self.epsilon, self.metric)[1]
            without = set(self.images) - set(self._column(criterion, label)) - set(lost)
            return len(lost) + len(without)
        records = self.run.by_key.get((label, CLEAN, None), [])
        return sum(map(failed, records))


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """name, and what a map for it is called. criterion: by which it is chosen, among those that
    `suits`, which is also said in words."""

    name: str
    title: str
    criterion: str
    suits: Callable[[Record], bool]
    among: str = ""


def _always(_: Record) -> bool:
    return True


PURPOSES = (
    Purpose(
        name="sparse", title="A sparse map", criterion=ROBUSTNESS,
        suits=lambda one: _mean(one, SPARSITY) >= SPARSE,
        among=f"those with at least {100 * SPARSE:.0f} % zeros",
    ),
    Purpose(name="robust", title="A robust map", criterion=ROBUSTNESS, suits=_always),
    Purpose(name="faithful", title="A faithful map", criterion=FAITHFULNESS, suits=_always),
    Purpose(
        name="quick", title="A quick map", criterion=ROBUSTNESS,
        suits=lambda one: _mean(one, COST) <= QUICK, among=f"those of at most {QUICK} evaluations",
    ),
    Purpose(
        name="stable", title="A map that agrees across trainings", criterion=STABILITY,
        suits=_always,
    ),
)  # fmt: skip


def recommendation(measured: Measurements) -> Record:
    """The numbers of each candidate with intervals, which may be the best by each criterion, and
    which one suits each purpose. Plain values, for JSON."""
    criteria = [name for name in (*CLEAN_METRICS, ROBUSTNESS) if name not in TESTED]
    criteria += [n for n in TESTED if n != STABILITY or measured.stability]
    matrices = {name: measured.matrix(name) for name in criteria}
    candidates: list[Record] = [
        {
            "label": one.label, "method": one.method, "settings": dict(one.settings),
            "command": one.command, "python": one.python,
            "values": {
                name: _summary(values[:, place], measured, name, one.label)
                for name, values in matrices.items()
            },
        }
        for place, one in enumerate(measured.candidates)
    ]  # fmt: skip
    for name in TESTED:
        if name in matrices:
            everyone = range(len(candidates))
            found = _compared(matrices[name], everyone, measured.confidence)
            for place, tested in found.items():
                candidates[place]["values"][name] |= tested
    points = np.array([[_axis(one, name) for name in criteria] for one in candidates])
    for one, best in zip(candidates, front(points), strict=True):
        one["front"] = bool(best)
        one["seconds"] = _number(_mean(one, COST) * measured.seconds)
    purposes = [
        choice for purpose in PURPOSES if purpose.criterion in matrices
        if (choice := _chosen(purpose, candidates, matrices[purpose.criterion], measured))
    ]  # fmt: skip
    return {
        "images": len(measured.images), "epsilon": measured.epsilon, "top": measured.top,
        "confidence": measured.confidence, "images_needed": images_needed(measured.confidence),
        "seconds_per_evaluation": measured.seconds, "criteria": criteria,
        "candidates": candidates, "purposes": purposes, "failures": failures(measured.run),
        "unusable": unusable(measured.run.records),
    }  # fmt: skip


def _summary(values: Floats, measured: Measurements, criterion: str, label: str) -> Record:
    """Failed and undefined images are counted and in no mean."""
    defined = values[~np.isnan(values)]
    low, high = interval_of_mean(defined, measured.confidence)
    lost = measured.failed(criterion, label)
    return {
        "mean": _number(float(defined.mean()) if len(defined) else math.nan),
        "low": _number(low), "high": _number(high), "count": len(defined), "failed": lost,
        "undefined": max(0, len(values) - len(defined) - lost),
    }  # fmt: skip


def _compared(values: Floats, places: Sequence[int], confidence: float) -> dict[int, Record]:
    """Of some candidates: p, whether they are tied with the best, or are not but only for want of
    values, and how far they are from the one with the best mean, over the images that both have."""
    chosen = values[:, list(places)]
    counts = (~np.isnan(chosen)).sum(0)
    if not counts.any():
        return {place: {"p": None, "tied": False, "few": True} for place in places}
    # A mean over the few images on which something worked is not the best one.
    means = [
        float(np.nanmean(column)) if 2 * count >= counts.max() else -math.inf
        for column, count in zip(chosen.T, counts, strict=True)
    ]
    ps = may_be_best(chosen)
    worse = ps <= 1 - confidence + 1e-9  # False for NaN: nothing was tested
    # One with a larger mean may be worse than another on all images that both have.
    left = np.where(worse, -math.inf, means)
    best = int(np.argmax(left if np.isfinite(left).any() else means))
    found = {}
    for row, place in enumerate(places):
        pairs = chosen[:, row] - chosen[:, best]
        pairs = pairs[~np.isnan(pairs)]
        low, high = interval_of_mean(pairs, confidence) if row != best else (math.nan, math.nan)
        enough = bool(2 * counts[row] >= counts.max())
        found[place] = {
            "p": _number(float(ps[row])), "tied": row == best or (enough and not worse[row]),
            "few": not enough and not worse[row], "best": row == best,
            "difference": {
                "mean": _number(float(pairs.mean()) if len(pairs) else math.nan),
                "low": _number(low), "high": _number(high), "count": len(pairs),
            },
        }  # fmt: skip
    return found


def _chosen(
    purpose: Purpose, candidates: Sequence[Record], values: Floats, measured: Measurements
) -> Record | None:
    """Of those that suit a purpose and are tied with the best of them, the best mean among the
    cheapest; the best mean of all where it is of too few images for any test. None where nothing
    suits."""
    places = [
        place for place, one in enumerate(candidates)
        if one["values"][purpose.criterion]["count"] and purpose.suits(one)
    ]  # fmt: skip
    if not places:
        return None
    found = _compared(values, places, measured.confidence)
    tied = [place for place in places if found[place]["tied"]]
    spent = np.nan_to_num([_mean(candidates[place], COST) for place in tied], nan=np.inf)
    cheap = [tied[row] for row in np.flatnonzero(spent <= AS_CHEAP * spent.min())]
    chosen = cheap[int(np.argmax(np.nanmean(values[:, cheap], axis=0)))]
    best = next(place for place in places if found[place]["best"])
    if (~np.isnan(values[:, best])).sum() < images_needed(measured.confidence):
        chosen = best
    return {
        "purpose": purpose.name, "title": purpose.title, "criterion": purpose.criterion,
        "among": purpose.among, "considered": [candidates[place]["label"] for place in places],
        "chosen": candidates[chosen]["label"], "best": candidates[best]["label"],
        "tied": [candidates[place]["label"] for place in tied],
        "difference": found[chosen]["difference"],
    }  # fmt: skip


def _mean(candidate: Record, criterion: str) -> float:
    found = candidate["values"][criterion]["mean"]
    return math.nan if found is None else float(found)


def _axis(candidate: Record, criterion: str) -> float:
    """Larger is better."""
    return -_mean(candidate, criterion) if criterion == COST else _mean(candidate, criterion)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
