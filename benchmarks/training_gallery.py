"""Maps of a study's networks side by side: the AdvGrad paper's figures 4, 7, 8, 10 and 13."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import gallery
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.training_maps import GRADIENT, Judged, Judging, called, clean, judged
from benchmarks.training_pictures import cases, network_columns, photos
from benchmarks.training_rows import ONE, STUDIES, Row
from moreaugrad.files.units import Record
from moreaugrad.reports.reading import value
from moreaugrad.runs.plans.common import DataPlan
from moreaugrad.runs.plans.explain import EvaluatePlan
from moreaugrad.runs.plans.maps import OF_LABEL

PICTURES = 4
BAND = 7
"""Networks in a row of an image."""
MAPS = (
    "Maps are gradients of the logit of the label, by the networks of the first seed on the same "
    "test images. p: what the first of the networks gives the label."
)


def run(context: Context, study: str) -> Result:
    rows = STUDIES[study].rows
    found = judged(
        context,
        Judging(
            name=f"gallery-{study}", study=study,
            rows=[replace(r, seeds=ONE) for r in (rows[:2] if context.quick else rows)],
            plan=EvaluatePlan(
                data=DataPlan(images=PICTURES), target=OF_LABEL,
                methods={GRADIENT: {}}, metrics={"gini": {}},
            ),
        ),
    )  # fmt: skip
    first = found.first(found.rows[0])
    shown = first.inputs[:PICTURES]
    columns = network_columns(found, found.rows, shown)
    bands = [columns[at : at + BAND] for at in range(0, len(columns), BAND)]
    lines = cases(first, shown)
    pictures = photos(first, shown) if context.photos else None
    return Result(
        title=f"Gradients of networks trained in several ways ({study})",
        settings={"images": [record["input"] for record in shown], "method": GRADIENT},
        figures={called(row): _ginis(found, row) for row in found.rows},
        tables=[_table(found, shown)],
        notes=[MAPS, gallery.READING],
        pictures={
            f"training-gallery-{study}-{place}.png": gallery.picture(lines, band, pictures)
            for place, band in enumerate(bands, 1)
        },
    )


def _ginis(found: Judged, row: Row) -> list[float]:
    """Of each image's map."""
    return [value(record, "gini") for record in clean(found.first(row))]


def _table(found: Judged, shown: Sequence[Record]) -> Table:
    return Table(
        caption="Gini of the maps that are shown, by image. accuracy: on all test images.",
        header=["penalty", "protocol", "epsilon", "accuracy",
                *(Path(record["input"]).stem for record in shown)],
        rows=[
            [row.label, row.protocol.name, row.described,
             f"{next(iter(found.accuracy[row.stem].values())):.1f}", *_ginis(found, row)]
            for row in found.rows
        ],
    )  # fmt: skip
