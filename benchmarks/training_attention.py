"""Networks trained to look where they should: the AdvGrad paper's tables 4 and 6, on synthetic
cells, and on birds with the gaze of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.training import interval
from benchmarks.training_maps import GRADIENT, Judged, Judging, clean, judged, mean, over_seeds
from benchmarks.training_rows import STUDIES, Row
from benchmarks.training_truth import filled
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.runs.plans.common import DataPlan
from moreaugrad.runs.plans.explain import EvaluatePlan
from moreaugrad.runs.plans.maps import OF_LABEL

TOPS = {"top 5 %": 0.05, "top 10 %": 0.1}
METRICS: dict[str, dict[str, Any]] = {
    **{
        f"gaze-overlap-{ratio:g}": {"metric": "gaze-overlap", "ratio": ratio}
        for ratio in TOPS.values()
    },
    "auroc": {},
    "gini": {},
}
MEASURED = {"cells": METRICS, "gaze": {name: METRICS[name] for name in METRICS if name != "auroc"}}
"""By study: only cells have an object of which the pixels are known."""
PLAIN = "plain"
PENALTIES = ("harmonisation", "published harmonisation", "squared L2", "L1")
TITLES = {
    "cells": "Gradients and attention maps, on synthetic cells",
    "gaze": "Gradients and the gaze of people, on birds",
}
COMPARED: dict[str, tuple[tuple[str, str], ...]] = {
    "cells": (),
    "gaze": (
        ("fast-harmonisation-0.1", "plain"),
        ("fast-harmonisation-0.5", "plain"),
        ("fast-published-harmonisation-0.5", "plain"),
        ("fast-l1-0.002", "plain"),
        ("fast-harmonisation-0.1", "fast-squared-l2-0.1"),
        ("fast-harmonisation-0.5", "fast-squared-l2-0.5"),
        ("fast-harmonisation-0.5", "fast-l1-0.002"),
        ("fast-published-harmonisation-0.5", "fast-l1-0.002"),
    ),
}
"""Pairs of rows that are compared seed by seed."""
PUBLISHED = {
    "harmonisation, top 5 %": ("", 35.07, 38.74, 42.63, 50.62),
    "harmonisation, top 10 %": ("", 42.99, 45.60, 47.06, 52.60),
    "harmonisation, accuracy": (67.58, 67.50, 66.56, 66.65, 64.99),
    "squared L2, top 5 %": (33.42, 32.92, 33.52, 34.22, 31.83),
    "squared L2, top 10 %": (41.81, 41.11, 40.89, 42.05, 39.84),
}
"""By epsilon 0, .1, .5, 1, 5."""
MAPS = {
    "cells": (
        "The map is the gradient of the logit of the label, its magnitudes summed over the "
        "channels, on test cells that have a truth. The attention map is the cell's true map "
        "(feature .9, other parts .4), as in training; of equal values those in a top are drawn at "
        "random, so that a map without information has 5 % and 10 %. AUROC is of the feature alone."
    ),
    "gaze": (
        "The map is the gradient of the logit of the label, its magnitudes summed over the "
        "channels, on all test images of ten species of CUB-200-2011; the attention map is that of "
        "CUB-GHA, as in training. A map without information has 5 % and 10 %."
    ),
}
EPSILONS = (
    "Epsilon multiplies the square of a gradient's norm, and what that is depends on the network "
    "and the loss; that of the published weights is the length of a step. Rows of one penalty "
    "compare, the same number in two penalties does not."
)


def run(context: Context, study: str) -> Result:
    rows = wanted(study)[:: 2 if context.quick else 1][: 2 if context.quick else None]
    metrics = MEASURED[study]
    found = judged(
        context,
        Judging(
            name=f"attention-{study}", study=study, rows=rows,
            plan=EvaluatePlan(
                data=DataPlan(source="cells", images=400 if study == "cells" else None),
                target=OF_LABEL, block=50, maps=0, methods={GRADIENT: {}}, metrics=metrics,
            ),
        ),
    )  # fmt: skip
    known = [pair for pair in COMPARED[study] if set(pair) <= found.runs.keys()]
    differences = [_differences(found, known)] if known else []
    return Result(
        title=TITLES[study],
        settings={"samples": found.plan.data.images, "metrics": metrics},
        figures={
            row.stem: {
                seed: {metric: mean(clean(one), metric, keep=filled) for metric in metrics}
                | {"accuracy": found.accuracy[row.stem][seed]}
                for seed, one in found.runs[row.stem].items()
            }
            for row in found.rows
        },
        tables=[_ours(found, metrics), _published(), *differences],
        notes=[MAPS[study], EPSILONS],
    )


def _differences(found: Judged, pairs: Sequence[tuple[str, str]]) -> Table:
    """Of networks of the same seed."""

    def numbers(stem: str) -> dict[int, list[float]]:
        return {
            seed: [
                *(
                    100 * mean(clean(one), f"gaze-overlap-{r:g}", keep=filled)
                    for r in TOPS.values()
                ),
                found.accuracy[stem][seed],
            ]
            for seed, one in found.runs[stem].items()
        }

    names = {row.stem: f"{row.label} {row.described}".strip() for row in found.rows}
    rows = []
    for one, other in pairs:
        own, reference = numbers(one), numbers(other)
        gaps = [
            [own[seed][place] - reference[seed][place] for seed in own if seed in reference]
            for place in range(len(TOPS) + 1)
        ]
        rows.append([names[one], names[other], *(interval(gap, 1) for gap in gaps)])
    return Table(
        caption="Differences of networks of the same seed, each with its own 95 % interval.",
        header=["penalty", "minus", *TOPS, "accuracy"],
        rows=rows,
    )


def wanted(study: str) -> list[Row]:
    """Plain training, and each penalty by rising epsilon."""
    rows = STUDIES[study].rows
    chosen = [row for row in rows if row.label == PLAIN]
    for label in PENALTIES:
        own = [row for row in rows if row.label == label]
        chosen += sorted(own, key=lambda row: row.protocol.epsilon)
    return chosen


def _ours(found: Judged, metrics: Mapping[str, object]) -> Table:
    def cells(row: Row) -> Sequence[str]:
        runs = found.runs[row.stem]

        def described(metric: str, scale: int, digits: int) -> str:
            def number(one: MapsFolder) -> float:
                return scale * mean(clean(one), metric, keep=filled)

            return over_seeds(runs, number, digits)

        tops = [described(f"gaze-overlap-{ratio:g}", 100, 1) for ratio in TOPS.values()]
        accuracy = interval(list(found.accuracy[row.stem].values()), 1)
        auroc = [described("auroc", 100, 1)] if "auroc" in metrics else []
        return [*tops, *auroc, described("gini", 1, 3), accuracy]

    return Table(
        caption="Fraction of the map's top that lies in the attention map's, in %: means over "
        "seeds with 95 % intervals (Student's t); one seed where there is none. accuracy: on all "
        "test images.",
        header=[
            "penalty",
            "epsilon",
            *TOPS,
            *(["AUROC"] if "auroc" in metrics else []),
            "Gini",
            "accuracy",
        ],
        rows=[[row.label, row.described or "0", *cells(row)] for row in found.rows],
    )


def _published() -> Table:
    return Table(
        caption="The paper's tables 4 and 6 (EfficientNet-B0, birds and the gaze of people), in "
        "%, by epsilon; plain training's overlap is in the second.",
        header=["", "0", "0.1", "0.5", "1", "5"],
        rows=[[name, *map(str, numbers)] for name, numbers in PUBLISHED.items()],
    )
