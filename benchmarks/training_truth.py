"""Maps of networks trained on synthetic cells, against the truth: the AdvGrad paper's table 2 and
figure 2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.training import interval
from benchmarks.training_maps import (
    GRADIENT,
    Judged,
    Judging,
    Keep,
    called,
    clean,
    firsts,
    judged,
    kept_map,
    mean,
    over_seeds,
)
from benchmarks.training_pictures import like_truth, sweep_curves, truths
from benchmarks.training_rows import STUDIES
from moreaugrad.files.units import Record
from moreaugrad.metrics import five_band_confusion
from moreaugrad.metrics.localisation import MEASURES
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.runs.plans.common import DataPlan
from moreaugrad.runs.plans.explain import EvaluatePlan
from moreaugrad.runs.plans.maps import OF_LABEL

STUDY = "cells"
SAMPLES = 300
EMPTY = 9
"""The class without a cell, whose truth is zero everywhere."""
FIVE, LOW, HIGH = "five-band", "binary .1", "binary .3"
THRESHOLDS = {LOW: 0.1, HIGH: 0.3}
SCORES: dict[str, dict[str, str]] = {
    FIVE: {measure: f"five-band-{measure}" for measure in MEASURES},
    **{
        score: {measure: f"binary-{measure}-{threshold:g}" for measure in MEASURES}
        for score, threshold in THRESHOLDS.items()
    },
}
"""Metrics by score and measure."""
METRICS: dict[str, dict[str, Any]] = {
    "gini": {}, "auroc": {}, "average-precision": {},
    **{metric: {} for metric in SCORES[FIVE].values()},
    **{
        f"binary-{measure}-{threshold:g}": {"metric": f"binary-{measure}", "threshold": threshold}
        for threshold in THRESHOLDS.values()
        for measure in MEASURES
    },
}  # fmt: skip
POST: dict[str, dict[str, Any]] = {
    GRADIENT: {},
    "smoothgrad": {"samples": 64},
    "sparsified-smoothgrad": {"samples": 64},
    "integrated-gradients": {"steps": 32},
    "sparse-moreaugrad": {"max_evaluations": 128, "tolerance": 0.25},
}
"""Maps that are made afterwards."""
RARE = {score[measure] for score in SCORES.values() for measure in ("recall", "precision")}
"""Where these are a fraction of nothing, as for images without a cell, the released code has 0."""
SHOWN = ("plain", "L1", "group", "elastic net", "harmonisation")
SHORT = {"accuracy": "pixel accuracy", "false-positive-rate": "FPR"}
PUBLISHED = {
    "standard": (89.81, 9.86, 32.58, 1.21, 88.66, 44.47, 16.22, 10.22),
    "L1": (89.82, 6.41, 29.20, 0.76, 94.60, 65.06, 30.84, 4.70),
    "group": (89.84, 7.54, 27.35, 0.91, 94.27, 63.78, 29.77, 4.99),
    "elastic net": (89.91, 8.35, 26.83, 0.92, 94.63, 65.65, 31.29, 4.66),
    "harmonisation": (90.14, 11.37, 43.31, 1.14, 93.82, 67.05, 28.15, 5.54),
}
"""Table 2 of the paper: the four measures by five bands, and the four of its binary score."""
MAPS = (
    "The map is the gradient of the logit of the label, on test cells. Five bands take its signed "
    "sum over the channels, all else its magnitudes summed. Binary: the truth is the feature "
    "alone, a place is marked above .1 or .3 of the map's maximum; the paper does not report its "
    "own threshold. All in %, but Gini; means over seeds with 95 % intervals (Student's t)."
)
SIGNS = (
    "The truth has no negative band, so that a signed map loses by five bands where the logit "
    "falls; Sparsified SmoothGrad has no signs, and no such loss."
)
CURVES = (
    "training-truth-bands.png: recall, precision and false positive rate by five bands as the "
    "edges of the map fall from (.3, .7) to (.025, .425), those of the truth staying, without "
    "empty images; networks of the first seed."
)


def run(context: Context) -> Result:
    rows = [row for row in STUDIES[STUDY].rows if len(row.seeds) > 1]
    both = firsts(STUDY, "plain", "elastic net")
    plain = judged(context, _asked("truth", rows[:2] if context.quick else rows, {GRADIENT: {}}))
    post = judged(context, _asked("truth-post", both[:1] if context.quick else both, POST))
    known = truths(plain)
    return Result(
        title="Maps of networks trained on synthetic cells, against the truth",
        settings={"samples": plain.plan.data.images, "methods": POST, "metrics": METRICS},
        figures={
            "in training": _figures(plain),
            "afterwards": {method: _figures(post, method) for method in POST},
        },
        tables=[
            _overall(plain),
            *(_measures(plain, score, empty=empty) for empty in (False, True) for score in SCORES),
            _magnitudes(plain, known),
            _published(),
            _afterwards(post),
        ],
        notes=[MAPS, SIGNS, CURVES],
        pictures={
            **sweep_curves(plain, known, keep=filled, name="training-truth-bands"),
            **like_truth(plain, known, SHOWN, name="training-truth"),
        },
    )


def _asked(name: str, rows: Sequence[Any], methods: Mapping[str, Any]) -> Judging:
    return Judging(
        name=name, study=STUDY, rows=rows,
        plan=EvaluatePlan(
            data=DataPlan(source="cells", images=SAMPLES), target=OF_LABEL, block=50,
            methods=methods, metrics=METRICS,
            maps=None if methods.keys() == {GRADIENT} else 0,
        ),
    )  # fmt: skip


def filled(record: Record) -> bool:
    """Whether an image has a cell."""
    return bool(record["class"] != EMPTY)


def score_of(run: MapsFolder, metric: str, *, method: str = GRADIENT, empty: bool = False) -> float:
    """Per cent (Gini: as it is). empty: images without a cell count too, as in the released
    code, which has 0 for a fraction of nothing."""
    nothing = 0.0 if empty and metric in RARE else math.nan
    keep: Keep | None = None if empty else filled
    scale = 1 if metric == "gini" else 100
    return scale * mean(clean(run, method), metric, keep=keep, undefined=nothing)


def _numbers(found: Judged, metric: str, **how: Any) -> list[str]:
    """A column: over seeds, for each row."""
    digits = 3 if metric == "gini" else 1
    one = partial(score_of, metric=metric, **how)
    return [over_seeds(found.runs[row.stem], one, digits) for row in found.rows]


def _lines(heads: Sequence[Sequence[str]], columns: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[*head, *cells] for head, *cells in zip(heads, *columns, strict=True)]


def _overall(found: Judged) -> Table:
    accuracy = [interval(list(found.accuracy[row.stem].values()), 1) for row in found.rows]
    columns = [_numbers(found, metric) for metric in ("gini", "auroc", "average-precision")]
    return Table(
        caption="Without a threshold: AUROC and average precision of the feature, on images "
        "that have one. accuracy: of the network, on all test images.",
        header=["penalty", "epsilon", "accuracy", "Gini", "AUROC", "AP"],
        rows=_lines([(row.label, row.described) for row in found.rows], [accuracy, *columns]),
    )


def _measures(found: Judged, score: str, *, empty: bool) -> Table:
    described = (
        "with empty images, as published: a fraction of nothing is 0"
        if empty
        else "without empty images (class 9)"
    )
    columns = [_numbers(found, metric, empty=empty) for metric in SCORES[score].values()]
    return Table(
        caption=f"{score.capitalize()}, {described}.",
        header=["penalty", "epsilon", *(SHORT.get(each, each) for each in MEASURES)],
        rows=_lines([(row.label, row.described) for row in found.rows], columns),
    )


def _magnitudes(found: Judged, known: Mapping[int, Tensor]) -> Table:
    def numbers(run: MapsFolder) -> Sequence[float]:
        places = [record["index"] for record in clean(run) if filled(record)]
        maps = torch.stack([kept_map(run, index).abs().sum(0) for index in places])
        bands = five_band_confusion(maps, torch.stack([known[index] for index in places]))
        return [100 * float(bands.measure(each).nanmean()) for each in MEASURES]

    lines = []
    for row in found.rows:
        seeds = [numbers(run) for run in found.runs[row.stem].values()]
        cells = [interval(values, 1) for values in zip(*seeds, strict=True)]
        lines.append([row.label, row.described, *cells])
    return Table(
        caption="Five-band, of magnitudes summed over the channels (Captum's Saliency, which the "
        "score's authors use, has no signs), without empty images.",
        header=["penalty", "epsilon", *(SHORT.get(each, each) for each in MEASURES)],
        rows=lines,
    )


def _published() -> Table:
    measures = [SHORT.get(each, each) for each in MEASURES]
    return Table(
        caption="The paper's table 2 (ResNet-34, 512 pixels).",
        header=["penalty", *(f"{kind} {each}" for kind in (FIVE, "binary") for each in measures)],
        rows=[[name, *map(str, numbers)] for name, numbers in PUBLISHED.items()],
    )


def _afterwards(found: Judged) -> Table:
    names = ["gini", "auroc", "average-precision", *SCORES[FIVE].values(), *SCORES[LOW].values()]
    lines = []
    for method in POST:
        columns = [_numbers(found, name, method=method) for name in names]
        heads = [(method, called(row)) for row in found.rows]
        lines += _lines(heads, columns)
    measures = [SHORT.get(each, each) for each in MEASURES]
    return Table(
        caption="Maps made afterwards, of the plain network and of one trained for sparse "
        "gradients; without empty images.",
        header=["method", "network", "Gini", "AUROC", "AP",
                *(f"{score} {each}" for score in (FIVE, LOW) for each in measures)],
        rows=lines,
    )  # fmt: skip


def _figures(found: Judged, method: str = GRADIENT) -> dict[str, Any]:
    """Every metric without and with empty images, by network and seed."""
    return {
        called(row): {
            "accuracy": fmean(found.accuracy[row.stem].values()),
            **{
                f"seed {seed}": {
                    metric: [
                        score_of(run, metric, method=method, empty=empty) for empty in (False, True)
                    ]
                    for metric in METRICS
                }
                for seed, run in found.runs[row.stem].items()
            },
        }
        for row in found.rows
    }
