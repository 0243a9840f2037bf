"""Results as a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moreaugrad.pictures import heatmap, photo
from moreaugrad.report import Answer as Shown
from moreaugrad.report import Page, Section, Sweep, Tile
from moreaugrad.report.wording import number, percent
from moreaugrad.runs.explaining import Answer
from moreaugrad.runs.records import versions
from moreaugrad.runs.results import Failure, Result
from moreaugrad.runs.variants import limit

if TYPE_CHECKING:
    from moreaugrad.runs.prepare import Prepared

TRUTH = (
    "Scores are against the known truth: how well the magnitude of a map, summed over the "
    "channels, finds the part of the picture that tells its class (bright in “known truth”). "
    "AUROC is 0.5 for chance and 1 at best; AP, the average precision, is for chance the part's "
    "share of the picture. Zeros of a sparse map count as ties: what it leaves out costs it AUROC."
)


def section(prepared: Prepared, answers: Sequence[Answer]) -> Section:
    """An input with its maps."""
    own = answers[0]
    sample = own.sample
    swept = [one for one in own.results if one.variant.value is not None]
    sweep = prepared.job.sweep
    sweeps = []
    if sweep is not None and swept:
        sweeps.append(
            Sweep(
                parameter=sweep.over,
                values=[one.variant.value or 0.0 for one in swept],
                tiles=[tile(one) for one in swept],
                limit=limit(sweep),
            )
        )
    shown = [_shown(answer, several=len(answers) > 1) for answer in answers]
    return Section(
        **vars(shown[0]),
        title=sample.case.title,
        photo=photo(prepared.network.model.preprocess.pixels(sample.x).permute(2, 0, 1)),
        truth=None if sample.truth is None else heatmap(sample.truth),
        sweeps=sweeps,
        note=f"True class: {sample.label}." if sample.label else "",
        beside=shown[1] if len(shown) > 1 else None,
    )


def _shown(answer: Answer, *, several: bool) -> Shown:
    told = answer.told
    return Shown(
        network=answer.subject.name if several else "",
        prediction=[(item["label"], item["probability"]) for item in told["prediction"]],
        target=told["target"]["label"] if "target" in told else "",
        tiles=[tile(one) for one in answer.results if one.variant.value is None],
    )


def tile(one: Result) -> Tile:
    """A map with its numbers."""
    record = one.record
    warnings = [] if record["ok"] else [record["message"], record.get("remedy", "")]
    warnings = [*filter(None, warnings), *one.notes]
    error = record.get("error", math.nan)
    extra = {"eta": number(record["eta"])} if record.get("eta") else {}
    if "baseline" in record["settings"] and not math.isnan(error):
        extra["completeness error"], error = percent(error), math.nan
    return Tile(
        title=one.variant.method,
        pictures=one.pictures,
        status=record["status"],
        ok=not record["failed"],
        warning="; ".join(warnings) or None,
        zeros=record.get("zeros", math.nan),
        gini=record.get("gini", math.nan),
        error=error,
        residual=record.get("residual", math.nan),
        evaluations=record["evaluations"],
        seconds=one.seconds,
        scores=one.scores,
        extra=extra,
    )


def page(
    prepared: Prepared,
    sections: Sequence[Section],
    failures: Sequence[Failure],
    command: str,
    config: str,
    *,
    total: int,
    seconds: float,
) -> Page:
    """The whole page of a job."""
    network, used = prepared.network, versions()
    names = [subject.name for subject in prepared.subjects]
    facts = {
        **dict(zip(("model", "beside it"), names, strict=False)),
        "score": prepared.variants[0].explainer.score,
        "device": f"{network.compute.device}, {network.compute.dtype}",
        "time": f"{seconds:.0f} s",
        "versions": f"moreaugrad {used['moreaugrad']}, torch {used['torch']}",
    }
    tiles = (item for part in sections for answer in part.answers for item in answer.tiles)
    notes = [TRUTH] if any(item.scores for item in tiles) else []
    if total > len(sections):
        notes.append(
            f"The first {len(sections)} of {total} inputs are shown; the maps and pictures of all "
            "are in the folders beside this page."
        )
    notes += [f"Left out: {failure}" for failure in failures]
    return Page(
        title=_title(prepared, total),
        lead=_lead(prepared),
        sections=sections,
        command=command,
        facts=facts,
        notes=notes,
        settings=config,
    )


def _title(prepared: Prepared, total: int) -> str:
    job, cases = prepared.job, prepared.cases
    what = "pictures" if job.cells is None else "synthetic cells"
    where = cases[0].title if total == 1 else f"{total} {what}"
    methods = {**job.methods, **(job.beside.methods if job.beside else {})}
    how = "" if job.beside is None else " of two networks"
    if len(methods) > 1:
        return f"{len(methods)} methods{how} on {where}"
    if methods:
        return f"{next(iter(methods))}{how} on {where}"
    assert job.sweep is not None
    return f"{job.sweep.method} on {where}, over {job.sweep.over}"


def _lead(prepared: Prepared) -> str:
    asked = prepared.job.target
    what = "each input's predicted class" if asked is None else prepared.network.label(int(asked))
    names = " and ".join(subject.name for subject in prepared.subjects)
    computed = "each compute it for itself" if prepared.job.beside else "computes it"
    return (
        f"What in each input raises the {prepared.variants[0].explainer.score} of {what}, "
        f"as {names} {computed}."
    )
