"""Whether maps find what is known to matter: what decides the class of synthetic cells, and on
birds what people look at. It belongs to the robustness study: what does robustness cost there?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from benchmarks import matched_tables as tables
from benchmarks.command import evaluated
from benchmarks.context import Context
from benchmarks.matched_plans import QUESTIONS, Network, Settings, methods
from benchmarks.results import Result
from benchmarks.study import PROCESSES
from benchmarks.subjects import data_folder
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.reports.statistics import clean_values
from moreaugrad.runs.plans.common import DataPlan, ModelPlan
from moreaugrad.runs.plans.explain import EvaluatePlan

LEVELS = (0.05, 0.1, 0.2, 0.4)
COMPARED: dict[str, Any] = {
    "smoothed": LEVELS, "thresholded": (0.2,), "solved": LEVELS,
    "others": ("simple-gradient", "cafo", "group-sparse-moreaugrad"),
}  # fmt: skip
QUICK = 4


@dataclass(frozen=True, kw_only=True)
class Subject:
    """ground_truth: what the maps are compared with, in a few words."""

    network: Network
    ground_truth: str
    metrics: Settings


SUBJECTS = {
    "cells": Subject(
        network=Network(
            name="builtin", weights=None, source="cells", kinks=True, images=200, **COMPARED
        ),
        ground_truth="the pixels of the feature that decides the class",
        metrics={"auroc": {}, "average-precision": {}, "gaze-overlap": {}},
    ),
    "birds": Subject(
        network=Network(
            name="mobilenetv2:birds",
            weights=None,
            source="cub-gha.zip",
            kinks=True,
            images=50,
            evaluations=40,
            **COMPARED,
        ),
        ground_truth="the largest 5 or 10 % of a map of where people look",
        metrics={
            "gaze-overlap": {},
            "gaze-overlap-0.1": {"metric": "gaze-overlap", "ratio": 0.1},
        },
    ),
}


def run(context: Context, subject: str) -> Result:
    chosen = SUBJECTS[subject]
    own = replace(chosen.network, images=QUICK) if context.quick else chosen.network
    asked = plan(own, chosen.metrics)
    name = f"localisation-{subject}{'-quick' if context.quick else ''}"
    run = MapsFolder.read(
        evaluated(asked, context.cache.folder / name, processes=PROCESSES), subject
    )
    found = {
        metric: {method: clean_values(run, method, metric) for method in run.methods}
        for metric in chosen.metrics
    }
    return Result(
        title=f"Localisation: {subject}",
        settings={
            "network": own.name, "images": own.images, "evaluations": own.evaluations,
            "methods": asked.methods, "metrics": chosen.metrics,
        },
        figures={"complete": run.complete, "values": found},
        tables=[tables.means(found), tables.differences(found, QUESTIONS)],
        notes=[
            (
                f"Maps of the predicted class, compared with {chosen.ground_truth}. Means over "
                "images with 95 % intervals (Student's t); those without one are left out."
            )
        ],
    )  # fmt: skip


def plan(own: Network, metrics: Settings) -> EvaluatePlan:
    source = own.source if own.source == "cells" else str(data_folder() / own.source)
    return EvaluatePlan(
        data=DataPlan(source=source, split="test", images=own.images),
        model=ModelPlan(name=own.name, weights=own.weights),
        methods=methods(own), metrics=metrics, block=-(-own.images // PROCESSES), maps=0,
    )  # fmt: skip
