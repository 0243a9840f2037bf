"""The robustness study under attacks that are aimed at what is measured.

For each network one run of `moreaugrad evaluate` in two processes at equal evaluations, and one at
equal stated error. Every metric has attacks of its own, the same for all methods, and an overlap
counts the same number of entries of every map.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import matched_tables as tables
from benchmarks.command import evaluated
from benchmarks.context import Context
from benchmarks.matched_plans import (
    LIMIT,
    NETWORKS,
    OF_FAMILIES,
    PILOT,
    QUESTIONS,
    USUAL,
    Network,
    Settings,
    equal_error_methods,
    families,
    lean,
    methods,
    pilot,
    plan,
)
from benchmarks.results import Result, Table
from benchmarks.study import PROCESSES, of_maps
from benchmarks.subjects import data_folder
from benchmarks.training_rows import STUDIES
from benchmarks.training_runs import trained
from moreaugrad.explainers import METHODS
from moreaugrad.reports.maps import CSV
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.runs.engine import execute
from moreaugrad.runs.plans.explain import EvaluatePlan, ReportPlan
from moreaugrad.runs.plans.toml import plan_toml
from moreaugrad.runs.report import ReportRun

OF_MAPS = ("zeros", "gini", tables.AOPC, "insertion", "deletion", "evaluations")


def run(context: Context, network: str) -> Result:
    own = lean(NETWORKS[network]) if context.quick else NETWORKS[network]
    own = replace(own, weights=weights(context, own))
    stem = f"matched-{network}{'-quick' if context.quick else ''}"
    equal = plan(own, methods(own))
    first = evaluated(equal, context.cache.folder / stem, processes=PROCESSES)
    measured = MapsFolder.read(first, network)
    rows, failures, complete = _summary(first)
    found, given = tables.measured(measured), methods_at_equal_error(context, stem, own, measured)
    values = tables.compared(found)
    figures = {
        "complete": complete, "summary.csv": (_page(first) / CSV).read_text(), "values": values,
    }  # fmt: skip
    more: list[Table] = []
    if given:
        second = evaluated(
            plan(own, given, at_equal_error=True), context.cache.folder / f"{stem}-equal-error",
            processes=PROCESSES,
        )  # fmt: skip
        _, lost, both = _summary(second)
        failures = [*failures, *lost]
        at_error = tables.measured(MapsFolder.read(second, network))
        at_error_values = tables.compared(at_error)
        figures |= {
            "complete": complete and both,
            "equal-error.csv": (_page(second) / CSV).read_text(),
            "equal-error values": at_error_values,
        }
        asked = {
            k: f"{v['samples']} samples" if "samples" in v else f"tolerance {own.error:g}"
            for k, v in given.items()
        }
        more = [
            tables.equal_error(at_error, asked, own.error),
            tables.differences(at_error_values, OF_FAMILIES, tables.DIFFERENCES_AT_ERROR),
            replace(tables.strongest(at_error), caption="The strongest attack at equal error."),
        ]
    return Result(
        title=f"Robustness under matched attacks: {network}",
        settings={"plan": named(equal), "equal error": given},
        figures=figures,
        tables=[
            of_maps(rows, OF_MAPS),
            tables.worst(rows, own.metrics),
            tables.own_best(found, families(equal.methods), _defaults(equal.methods)),
            tables.differences(values, QUESTIONS),
            tables.errors(found),
            *(tables.of_attacks(rows, metric) for metric in own.metrics),
            tables.strongest(found),
            *more,
        ],
        notes=[_note(own), *failures],
    )  # fmt: skip


def _note(own: Network) -> str:
    return (
        "Means over images with 95 % intervals (Student's t). For each image the worst of all "
        "attacks that are aimed at the metrics, among them a random search at "
        f"{tables.FEW}; failed attacks are left out and counted. {own.evaluations} evaluations for "
        f"each map of a method with noise, {own.draws} noise samples of it in a step of the "
        f"attack on {tables.FEW}, the same in all steps. {tables.FEW} is of all entries; a map "
        "with fewer that are not zero is compared by all of these. "
        + (
            f"At equal error, sigma is {USUAL:g}, samples were chosen on {PILOT} other images by "
            f"the mean squared error there, and tolerances allow {LIMIT} evaluations. "
            if own.equal
            else ""
        )
        + (
            "Stein's identity runs at equal error alone, with twice as many noise samples."
            if own.equal and own.stein
            else "Stein's identity was not tried."
        )
    )


def weights(context: Context, own: Network) -> str | None:
    if own.advgrad:
        row = next(r for r in STUDIES["cifar10"].rows if r.label == own.advgrad)
        row = replace(row, seeds=row.seeds[:1])
        found = trained(context, "cifar10", [row])[row.stem][row.seeds[0]]
        return str(found / "best.safetensors")
    if own.weights is None or Path(own.weights).is_absolute():
        return own.weights
    return str(data_folder() / "models" / own.weights)


def named(own: EvaluatePlan) -> str:
    """The plan with the names of its files alone: their folders are the machine's."""
    source, weights = own.data.source, own.model.weights
    named = replace(
        own, data=replace(own.data, source=source and Path(source).name),
        model=replace(own.model, weights=weights and Path(weights).name),
    )  # fmt: skip
    return plan_toml(named, Path())


def _page(run: Path) -> Path:
    return run.with_name(f"{run.name}-page")


def _summary(run: Path) -> tuple[list[dict[str, str]], list[str], bool]:
    """Rows of means, what failed, and whether the run is complete; writes its page."""
    page = _page(run)
    made = execute(ReportRun(ReportPlan(runs=(str(run),))), page, overwrite=True)
    rows = list(csv.DictReader((page / CSV).read_text(encoding="utf-8").splitlines()))
    return rows, list(map(str, made.failures)), made.complete


def methods_at_equal_error(
    context: Context, stem: str, own: Network, measured: MapsFolder
) -> Settings:
    """Methods without a tolerance have as many noise samples as bring them to the error, by what
    they state on images that are not measured."""
    if not own.equal:
        return {}
    taken = {record["index"] for record in measured.inputs}
    folder = context.cache.folder / f"{stem}-pilot"
    run = MapsFolder.read(evaluated(pilot(own), folder, processes=PROCESSES), "pilot")
    found = {label: tables.stated(run, label)["error"] for label in run.methods}
    samples = {
        label: enough([one for index, one in errors.items() if index not in taken], own)
        for label, errors in found.items()
    }
    return equal_error_methods(own, samples)


def enough(errors: Sequence[float], own: Network) -> int:
    """Samples, an even number, at which the mean squared error is `own.error` squared, from errors
    at `own.evaluations`: it falls with their number.

    Errors: ValueError without an error.
    """
    known = [one for one in errors if math.isfinite(one)]
    if not known:
        raise ValueError("errors: expected the stated errors of some maps, got none")
    ratio = math.fsum(one**2 for one in known) / len(known) / own.error**2
    return min(LIMIT, max(8, 2 * math.ceil(own.evaluations * ratio / 2)))


def _defaults(given: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """The label of each family at its default noise level, where it is measured."""
    levels = {f: METHODS[f].defaults().get("sigma") for f in families(given)}
    named = {f: f"{f}-{s:g}" for f, s in levels.items() if isinstance(s, float)}
    return {family: label for family, label in named.items() if label in given}
