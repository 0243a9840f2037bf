"""Tables of the robustness study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.results import Table
from benchmarks.study import CLEAN, Row, cell, only
from moreaugrad.reports.reading import MapsFolder, failed, value
from moreaugrad.reports.statistics import WORST, Intervals, clean_values, worst_values

FEW, AOPC = "top-4-percent", "aopc"
STATED = ("error", "evaluations", "converged")
DIFFERENCES, DIFFERENCES_AT_ERROR = "Differences", "Equal error: differences"
"""Titles of tables."""
LEAST = 4
"""Images without which there are no halves to choose on and to report on."""
Values = Mapping[int, float]
"""By the index of the image."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of a method: the overlap of the largest entries under each attack that ran and under the
    worst of them, the AOPC of the clean map, and what the map says of itself."""

    attacks: Mapping[str, Values]
    worst: Values
    aopc: Values
    stated: Mapping[str, Values]


def measured(run: MapsFolder) -> dict[str, Measured]:
    """Of every method at the only budget."""
    (epsilon,) = {one for attack in run.attacks for one in run.budgets(attack)}
    return {
        method: Measured(
            attacks={
                attack: {
                    record["index"]: value(record, FEW)
                    for record in run.by_key.get((method, attack, epsilon), [])
                    if not failed(record)
                }
                for attack in run.attacks
            },
            worst=worst_values(run, method, epsilon, FEW)[0],
            aopc=clean_values(run, method, AOPC),
            stated=stated(run, method),
        )
        for method in run.methods
    }  # fmt: skip


def compared(found: Mapping[str, Measured]) -> dict[str, dict[str, Values]]:
    """What methods are compared by, image by image: by metric and method."""
    return {
        FEW: {method: each.worst for method, each in found.items()},
        AOPC: {method: each.aopc for method, each in found.items()},
    }


def stated(run: MapsFolder, method: str) -> dict[str, Values]:
    """Of the clean maps: the relative error, the evaluations, and whether the accuracy that was
    asked for was reached."""
    errors = {
        record["index"]: float(record["map"]["error"])
        for record in run.by_key.get((method, CLEAN, None), [])
        if not failed(record) and "error" in record["map"]
    }
    others = {name: clean_values(run, method, name) for name in STATED[1:]}
    return {STATED[0]: errors, **others}


def worst(rows: Sequence[Row], metrics: Sequence[str]) -> Table:
    """Of all attacks, and how many images none of them ran on."""
    found = [row for row in rows if row["attack"] == WORST]
    clean = [row for row in rows if row["attack"] == CLEAN]
    lines: list[list[object]] = []
    for method in dict.fromkeys(row["method"] for row in found):
        own = [only(found, method, name) for name in metrics]
        lost = next((one["failed"] for one in own if one), "")
        lines.append([method, *map(cell, own), cell(only(clean, method, AOPC)), lost])
    return Table(
        caption="Equal evaluations: the worst of the attacks, budget "
        f"{found[0]['epsilon'] if found else ''} (L2), and the AOPC of the clean maps.",
        header=["method", *metrics, AOPC, "failed"], rows=lines,
    )  # fmt: skip


def of_attacks(rows: Sequence[Row], metric: str) -> Table:
    """Each attack that is aimed at a metric."""
    found = [row for row in rows if row["metric"] == metric and row["attack"].endswith(metric)]
    names = list(dict.fromkeys(row["attack"] for row in found))
    chosen = {name: [row for row in found if row["attack"] == name] for name in names}
    return Table(
        caption=f"{metric} under each attack that is aimed at it.",
        header=["method", *(name.removesuffix(f"-{metric}") for name in names)],
        rows=[
            [method, *(cell(only(chosen[name], method, metric)) for name in names)]
            for method in dict.fromkeys(row["method"] for row in found)
        ],
    )


def strongest(found: Mapping[str, Measured]) -> Table:
    """On how many images each attack is the worst, and what it adds to the others.

    An attack counts if no other is worse; equal ones all count. In parentheses: by how much the
    mean overlap under the worst of the others is higher than under the worst of all.
    """
    attacks = list(dict.fromkeys(name for own in found.values() for name in own.attacks))
    lines = [
        [method, *(_added(own.attacks, name) for name in attacks), len(own.worst)]
        for method, own in found.items()
    ]
    return Table(
        caption=f"How often each attack was the strongest by {FEW}, equal ones counted alike, "
        "whatever it is aimed at; in parentheses what it adds: how much higher the mean would be "
        "without it. –: the attack did not run on the method.",
        header=["method", *attacks, "images"], rows=lines,
    )  # fmt: skip


def _added(attacks: Mapping[str, Values], name: str) -> str:
    own = attacks.get(name, {})
    most = [_least(attacks.values(), index) for index in own]
    if not most:
        return "–"
    others = [values for other, values in attacks.items() if other != name]
    left = [_least(others, index) for index in own]
    more = [b - a for a, b in zip(most, left, strict=True) if not math.isinf(b)]
    won = sum(one == least for one, least in zip(own.values(), most, strict=True))
    return f"{won} ({_mean(more):.3f})" if more else f"{won}"


def _least(attacks: Iterable[Values], index: int) -> float:
    values = (own[index] for own in attacks if index in own)
    return min((one for one in values if not math.isnan(one)), default=math.inf)


def own_best(
    found: Mapping[str, Measured], families: Mapping[str, Sequence[str]],
    defaults: Mapping[str, str],
) -> Table:  # fmt: skip
    """Each family at the setting that is most robust, chosen on other images than reported.

    The images, in their order, are cut into every other one; for each half the setting is the one
    with the largest mean of the worst overlap on the other half.
    """
    lines: list[list[object]] = []
    for family, labels in families.items():
        known = {label: found[label] for label in labels if found[label].worst}
        images = sorted({index for own in known.values() for index in own.worst})
        if not known or len(images) < LEAST:
            continue
        halves = images[::2], images[1::2]
        chosen, worst_of, aopc = [], list[float](), list[float]()
        for here, other in (halves, halves[::-1]):
            best = max(known, key=lambda label: _mean_of(known[label].worst, other))
            chosen.append(best)
            worst_of += _at(known[best].worst, here)
            aopc += _at(known[best].aopc, here)
        usual = known.get(defaults.get(family, ""))
        before = [interval_of(list(v.values())) for v in (usual.worst, usual.aopc)] if usual else []
        lines.append(
            [
                family, len(labels), ", ".join(dict.fromkeys(chosen)), interval_of(worst_of),
                interval_of(aopc), defaults.get(family, "–") if usual else "–",
                *(before or ["–", "–"]),
            ]
        )  # fmt: skip
    return Table(
        caption=f"Each method at its own best setting by {FEW} under the worst attack. The setting "
        "of each half of the images is chosen on the other half (two where they differ); the "
        "values are of the images that it was not chosen on.",
        header=[
            "family", "settings", "chosen", FEW, AOPC, "default", f"{FEW} at the default",
            f"{AOPC} at the default",
        ],
        rows=lines,
    )  # fmt: skip


def means(found: Mapping[str, Mapping[str, Values]]) -> Table:
    """found: by metric and method."""
    methods = dict.fromkeys(method for values in found.values() for method in values)
    return Table(
        caption="Means over images.",
        header=["method", *found],
        rows=[
            [method, *(interval_of(list(values[method].values())) for values in found.values())]
            for method in methods
        ],
    )


def differences(
    found: Mapping[str, Mapping[str, Values]],
    questions: Mapping[str, tuple[str, str]],
    title: str = DIFFERENCES,
) -> Table:
    """found: by metric and method. questions: two methods each, the first compared with the second
    on the same images."""
    known = set.intersection(*map(set, found.values()))
    asked = {words: pair for words, pair in questions.items() if known.issuperset(pair)}
    confidence = 1 - 0.05 / max(1, len(found) * len(asked))
    lines: list[list[object]] = []
    for words, (one, other) in asked.items():
        pairs = [(values[one], values[other]) for values in found.values()]
        cells = [interval_of([a[i] - b[i] for i in a if i in b], confidence) for a, b in pairs]
        lines.append([words, one, other, *cells])
    return Table(
        caption=f"{title} on the same images; the intervals of this table hold together at 95 % "
        f"({100 * confidence:.2f} % each, Bonferroni).",
        header=["question", "method", "minus", *found], rows=lines,
    )  # fmt: skip


def errors(found: Mapping[str, Measured]) -> Table:
    """What clean maps say of themselves."""
    return Table(
        caption="Equal evaluations: the relative error that maps state themselves.",
        header=["method", *STATED],
        rows=[
            [method, *(_mean(list(own.stated[name].values())) for name in STATED)]
            for method, own in found.items()
        ],
    )


def equal_error(found: Mapping[str, Measured], asked: Mapping[str, str], error: float) -> Table:
    """asked: what each method was given to reach the error."""
    lines: list[list[object]] = []
    for method, own in found.items():
        means = [_mean(list(own.stated[name].values())) for name in STATED]
        lines.append(
            [
                method, asked[method], *means, interval_of(list(own.worst.values())),
                interval_of(list(own.aopc.values())),
            ]
        )  # fmt: skip
    return Table(
        caption=f"Equal error: every method with so many evaluations that its own stated relative "
        f"error was expected to be {error:g}, by other images.",
        header=[
            "method", "given", "stated error", "evaluations", "converged", FEW, AOPC,
        ],
        rows=lines,
    )  # fmt: skip


def _at(values: Values, images: Sequence[int]) -> list[float]:
    return [values[i] for i in images if i in values and not math.isnan(values[i])]


def _mean_of(values: Values, images: Sequence[int]) -> float:
    known = _at(values, images)
    return _mean(known) if known else -math.inf


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def interval_of(values: Sequence[float], confidence: float = 0.95) -> str:
    """`mean [low, high]`, as `study.cell` has them."""
    known = [one for one in values if not math.isnan(one)]
    low, high = Intervals(confidence=confidence).of_mean(known)
    row = {"mean": f"{_mean(known)}" if known else "", "low": "", "failed": ""}
    if not math.isnan(low):
        row |= {"low": f"{low}", "high": f"{high}"}
    return cell(row)
