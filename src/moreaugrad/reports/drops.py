"""What a method loses of its base's faithfulness, on the same images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moreaugrad.registry import choose
from moreaugrad.reports.content import Entry, Table
from moreaugrad.reports.reading import CLEAN, MapsFolder, failed, value
from moreaugrad.reports.statistics import Intervals


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
    """Of every metric that asks the network and is better when high: AOPC, insertion."""
    metrics = [
        name
        for name in run.metrics
        if run.metric(name).kind == "model" and run.metric(name).better == "high"
    ]
    found = []
    for method in [name for name in run.methods if name in given]:
        for metric in metrics:
            own, other = _values(run, method, metric), _values(run, given[method], metric)
            shared = [index for index in own if index in other]
            pairs = np.array([[other[i], own[i]] for i in shared]).reshape(-1, 2)
            low, high = intervals.of_ratio(pairs[:, 0], pairs[:, 1])
            found.append(
                Drop(
                    run=run.label, method=method, base=given[method], metric=metric,
                    drop=_ratio(pairs), low=1 - high, high=1 - low, count=len(shared),
                )
            )  # fmt: skip
    return found


def drops_table(found: Sequence[Drop]) -> Table:
    """Rows by method, columns by metric."""
    metrics = list(dict.fromkeys(each.metric for each in found))
    several = len({each.run for each in found}) > 1
    rows: dict[str, dict[str, Drop]] = {}
    for each in found:
        head = f"{each.run}, " if several else ""
        rows.setdefault(f"{head}{each.method} of {each.base}", {})[each.metric] = each
    return Table(
        title="Faithfulness that is lost, as a fraction of the base's",
        head="method of its base",
        columns=[f"{name} ↓" for name in metrics],
        rows=[(label, [_entry(row.get(name)) for name in metrics]) for label, row in rows.items()],
    )


def _values(run: MapsFolder, method: str, metric: str) -> dict[int, float]:
    records = [r for r in run.by_key[method, CLEAN, None] if not failed(r)]
    found = {record["index"]: value(record, metric) for record in records}
    return {index: each for index, each in found.items() if not math.isnan(each)}


def _ratio(pairs: np.ndarray) -> float:
    if not len(pairs):
        return math.nan
    base, own = pairs.mean(0)
    return float((base - own) / base) if base > 0 else math.nan


def _entry(found: Drop | None) -> Entry:
    if found is None or math.isnan(found.drop):
        return Entry()
    span = "" if math.isnan(found.low) else f"{100 * found.low:.1f} to {100 * found.high:.1f} %"
    return Entry(text=f"{100 * found.drop:.1f} %", interval=span)
