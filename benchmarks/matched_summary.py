"""The robustness study in a few tables, from the results of every network that is measured."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import matched_figure, results
from benchmarks.context import Context
from benchmarks.matched_plans import NETWORKS, OF_FAMILIES, QUESTIONS
from benchmarks.matched_subsets import SUBSETS
from benchmarks.matched_tables import AOPC, DIFFERENCES, DIFFERENCES_AT_ERROR, FEW
from benchmarks.results import Result, Table
from benchmarks.study import CLEAN, Row, cell, only
from benchmarks.subjects import MissingData
from moreaugrad.reports.statistics import WORST

METHODS = {
    "simple gradient": "simple-gradient",
    "SmoothGrad, .2": "smoothgrad-0.2",
    "thresholded, .2": "sparse-smoothgrad-0.2",
    "Sparse MoreauGrad, .1": "sparse-moreaugrad-0.1",
    "Sparse MoreauGrad, .2": "sparse-moreaugrad-0.2",
}
"""Those that all networks have, by method and sigma."""
CAPTIONS = {
    (WORST, FEW): "What is left of the largest 4 % of all entries under the worst attack.",
    (WORST, "ssim"): "SSIM under the worst attack.",
    (CLEAN, AOPC): "AOPC of the clean maps.",
    (CLEAN, "insertion"): "Insertion of the clean maps.",
}
"""Tables of means, by attack and metric."""
FAITHFUL = 0.9
"""Fraction of a network's highest AOPC that a faithful map has at least."""
MOST = 0.9
"""Zeros that a sparse map has at least."""
WHAT = ("what is left of the largest 4 %", "the AOPC of the clean maps")
"""What methods are compared by, in the order of the differences in the networks' results."""


def run(context: Context) -> Result:
    known = _records(context, "matched")
    if not known:
        raise MissingData(f"no results of matched attacks in {context.out}")
    rows = {
        name: list(csv.DictReader(record["figures"]["summary.csv"].splitlines()))
        for name, record in known.items()
    }
    return Result(
        title="Robustness under matched attacks: all networks",
        settings={"networks": list(known)},
        figures={"missing": [name for name in NETWORKS if name not in known]},
        tables=[
            *(_means(rows, attack, metric) for attack, metric in CAPTIONS),
            _at_equal_error(known),
            _best_sparse(rows),
            *_differences(known, QUESTIONS, "Worst of all attacks"),
            *_differences(known, OF_FAMILIES, "At nearly equal error", DIFFERENCES_AT_ERROR),
            *(
                table
                for kind in ("settings", "equal-noise")
                for table in _differences(
                    _records(context, kind), SUBSETS[kind].pairs, SUBSETS[kind].title
                )
            ),
        ],
        notes=["Means over images with 95 % intervals (Student's t), from the networks' results."],
        pictures={"matched-summary.png": matched_figure.png(rows)},
    )


def _records(context: Context, kind: str) -> dict[str, dict[str, Any]]:
    """The results of a kind of part, by the network that they are of."""
    found = {name: results.read(f"{kind}-{name}", context.out) for name in NETWORKS}
    return {name: record for name, record in found.items() if record is not None}


def _means(rows: Mapping[str, Sequence[Row]], attack: str, metric: str) -> Table:
    lines: list[list[object]] = []
    for network, own in rows.items():
        chosen = [row for row in own if row["attack"] == attack]
        cells = [only(chosen, method, metric) for method in METHODS.values()]
        lines.append([network, *map(cell, cells)])
    measured = [line for line in lines if set(line[1:]) != {"–"}]
    return Table(caption=CAPTIONS[attack, metric], header=["network", *METHODS], rows=measured)


def _at_equal_error(records: Mapping[str, Mapping[str, Any]]) -> Table:
    """The networks' tables in one, without what was given and what converged."""
    return Table(
        caption="At nearly equal error, sigma .2: the relative error that maps state themselves, "
        f"the gradients that they took, and {FEW} under the worst attack.",
        header=["network", "method", "stated error", "evaluations", FEW, AOPC],
        rows=[
            [name, line[0], *line[2:4], *line[5:]]
            for name, record in records.items()
            for line in _rows(record, "Equal error")
        ],
    )


def _best_sparse(rows: Mapping[str, Sequence[Row]]) -> Table:
    """Of the sparse and faithful maps of each network the one that is the most robust, and the most
    faithful sparse one."""
    lines: list[list[object]] = []
    for network, own in rows.items():
        clean, worst = (
            [row for row in own if row["attack"] == attack] for attack in (CLEAN, WORST)
        )
        found = {row["method"]: _of(clean, row["method"], AOPC) for row in worst}
        sparse = [method for method in found if _of(clean, method, "zeros") >= MOST - 1e-3]
        faithful = [each for each in sparse if found[each] >= FAITHFUL * max(found.values())]
        kept = {each: _of(worst, each, FEW) for each in sparse}
        chosen = {
            "most robust": max(faithful, key=lambda each: kept[each], default=None),
            "most faithful": max(sparse, key=lambda each: found[each], default=None),
        }
        lines += [
            [network, words, each, cell(only(worst, each, FEW)), cell(only(clean, each, AOPC))]
            for words, each in chosen.items()
            if each
        ]
    return Table(
        caption=f"Maps with 90 % zeros and at least {FAITHFUL:g} of the network's highest AOPC: "
        "the most robust one; and the sparse map with the highest AOPC. Chosen on the images that "
        "are reported, which flatters them a little.",
        header=["network", "chosen", "method", FEW, AOPC], rows=lines,
    )  # fmt: skip


def _of(rows: Sequence[Row], method: str, metric: str) -> float:
    row = only(rows, method, metric)
    return float(row["mean"]) if row and row["mean"] else math.nan


def _differences(
    records: Mapping[str, Mapping[str, Any]],
    questions: Mapping[str, tuple[str, str]],
    title: str,
    caption: str = DIFFERENCES,
) -> list[Table]:
    """A table for each of `WHAT`, of the records with such a table; none without any."""
    found = {
        name: {tuple(line[1:3]): line[3:] for line in lines}
        for name, record in records.items()
        if (lines := _rows(record, caption))
    }
    asked = {q: pair for q, pair in questions.items() if any(pair in own for own in found.values())}
    return [
        Table(
            caption=f"{title}: differences in {what}, image by image; the intervals of a network "
            "hold together at 95 %, with those of the other of the two tables.",
            header=["question", *found],
            rows=[
                [question, *(own[pair][place] if pair in own else "–" for own in found.values())]
                for question, pair in asked.items()
            ],
        )
        for place, what in enumerate(WHAT if found else ())
    ]


def _rows(record: Mapping[str, Any], caption: str) -> list[list[str]]:
    """Of the table whose caption begins so, none where there is no such table."""
    rows: list[list[str]] = next(
        (t["rows"] for t in record["tables"] if t["caption"].startswith(caption)), []
    )
    return rows
