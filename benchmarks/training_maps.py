"""Maps of the networks that studies train, judged by `moreaugrad evaluate`; runs are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from benchmarks.cache import digest, digest_of
from benchmarks.command import evaluated
from benchmarks.context import Context
from benchmarks.training import interval
from benchmarks.training_rows import STUDIES, Row
from benchmarks.training_runs import result, trained
from moreaugrad.data.dataset import DataSet
from moreaugrad.data.source import open_source
from moreaugrad.files.units import Record
from moreaugrad.models.loading import Trained
from moreaugrad.reports.reading import CLEAN, MapsFolder, failed, value
from moreaugrad.runs.plans.common import ModelPlan
from moreaugrad.runs.plans.explain import EvaluatePlan
from moreaugrad.runs.plans.toml import plan_toml

QUICK = 4
"""Images of a trial."""
GRADIENT = "simple-gradient"
Keep = Callable[[Record], bool]


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What is asked of the maps of some rows of a study.

    plan: methods, attacks, metrics and how many images; its data and its network are filled in,
    the study's test images and what each row has trained.
    """

    name: str
    study: str
    rows: Sequence[Row]
    plan: EvaluatePlan


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """runs, accuracy (per cent of all test images): by stem of the row, and by seed."""

    rows: Sequence[Row]
    plan: EvaluatePlan
    runs: Mapping[str, Mapping[int, MapsFolder]]
    accuracy: Mapping[str, Mapping[int, float]]

    def first(self, row: Row) -> MapsFolder:
        """That of the row's first seed."""
        return next(iter(self.runs[row.stem].values()))

    @property
    def data(self) -> DataSet:
        data = self.plan.data
        return open_source(str(data.source), layout=data.layout, split=data.split)


def judged(context: Context, judging: Judging) -> Judged:
    """Trains and evaluates what is not yet, as many at a time as there are threads."""
    training = STUDIES[judging.study].plan(context).data
    data = replace(judging.plan.data, source=training.source, split=training.test)
    if context.quick:
        data = replace(data, images=min(data.images or QUICK, QUICK))
    plan = replace(judging.plan, data=data)
    networks = trained(context, judging.study, judging.rows)
    folder = context.cache.folder / f"judged-{judging.name}{'-quick' if context.quick else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(row, seed) for row in judging.rows for seed in networks[row.stem]]

    def evaluate(job: tuple[Row, int]) -> MapsFolder:
        row, seed = job
        network = networks[row.stem][seed]
        asked = replace(plan, model=ModelPlan(name=f"trained:{network}"))
        weights = digest_of(Path(Trained.read(network).weights))
        key = digest([plan_toml(asked, folder), weights])[:8]
        return _run(asked, folder / f"{row.stem}-{seed}-{key}", called(row))

    with ThreadPoolExecutor(context.threads) as pool:
        found = list(pool.map(evaluate, jobs))
    runs: dict[str, dict[int, MapsFolder]] = {row.stem: {} for row in judging.rows}
    accuracy: dict[str, dict[int, float]] = {row.stem: {} for row in judging.rows}
    for (row, seed), run in zip(jobs, found, strict=True):
        runs[row.stem][seed] = run
        accuracy[row.stem][seed] = 100 * result(networks[row.stem][seed])["test"]["accuracy"]
    return Judged(rows=judging.rows, plan=plan, runs=runs, accuracy=accuracy)


def _run(plan: EvaluatePlan, out: Path, label: str) -> MapsFolder:
    if not (out.exists() and MapsFolder.read(out, label).complete):
        evaluated(plan, out, "--quiet")
        print(f"  {out.name}: judged", flush=True)
    return MapsFolder.read(out, label)


def called(row: Row) -> str:
    """A row in a few words."""
    how = f" {row.protocol.name}" if row.protocol.penalty and row.protocol.name != "fast" else ""
    return f"{row.label}{how} {row.described}".strip()


def firsts(study: str, *labels: str) -> list[Row]:
    """The study's first row of each label; these are trained by the fast protocol, or plainly."""
    rows = STUDIES[study].rows
    return [next(row for row in rows if row.label == label) for label in labels]


def clean(run: MapsFolder, method: str = GRADIENT) -> list[Record]:
    """Records of the images' own maps, with the data set's `class` of each."""
    classes = {record["index"]: record.get("class") for record in run.inputs}
    return [
        record | {"class": classes[record["index"]]}
        for record in run.by_key[method, CLEAN, None]
        if not failed(record)
    ]


def mean(
    records: Sequence[Record], metric: str, *, keep: Keep | None = None,
    undefined: float = math.nan,
) -> float:  # fmt: skip
    """Over the images that `keep` takes. undefined: what counts where there is no value; NaN
    leaves these out."""
    values = [value(record, metric) for record in records if keep is None or keep(record)]
    known = [undefined if math.isnan(each) else each for each in values]
    known = [each for each in known if not math.isnan(each)]
    return math.fsum(known) / len(known) if known else math.nan


def over_seeds(
    runs: Mapping[int, MapsFolder], number: Callable[[MapsFolder], float], digits: int = 1
) -> str:
    """Mean and interval of a run's number; a seed without one is left out."""
    values = [found for found in map(number, runs.values()) if not math.isnan(found)]
    return interval(values, digits)


def kept_map(run: MapsFolder, index: int, method: str = GRADIENT) -> Tensor:
    """The clean map `[C, H, W]` of an image, by its place in the data set."""
    found = next(record for record in run.by_key[method, CLEAN, None] if record["index"] == index)
    kept = run.map(found)
    assert kept is not None
    return kept
