"""The commands as functions, for notebooks and scripts: the same runs, with tables as results."""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from moreaugrad.attacks import ATTACKS
from moreaugrad.explainers import METHODS
from moreaugrad.metrics import METRICS
from moreaugrad.models.loaded import LoadedModel
from moreaugrad.reports.folder import table_rows
from moreaugrad.reports.reading import CLEAN, MapsFolder
from moreaugrad.runs.engine import execute
from moreaugrad.runs.inputs import Inputs, TensorInputs
from moreaugrad.runs.maps.run import MapsRun
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.common import CELLS, DataPlan, ModelPlan
from moreaugrad.runs.plans.evaluate import EvaluatePlan
from moreaugrad.runs.plans.explain import ExplainPlan
from moreaugrad.runs.plans.maps import MapsPlan, chosen_names, read_parts
from moreaugrad.runs.plans.option import Settings
from moreaugrad.runs.plans.report import ReportPlan
from moreaugrad.runs.report import ReportRun

if TYPE_CHECKING:
    import pandas

Model = str | nn.Module | LoadedModel
"""A name as the command line takes it, or a network."""
Images = str | os.PathLike[str] | Sequence[str] | Tensor
"""Files, folders or globs, the name of a data set, or inputs `[B, C, H, W]` of the network."""
Parts = str | Iterable[str] | Mapping[str, Settings]
"""Names, or settings by name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """What a run made. rows: one for each map, with names of nested values joined by dots, as in
    `records.csv`. maps: tensors `[C, H, W]` by method and the image's index. folder: of the run,
    where one was given; page: its HTML page, where it has one. failures: what was left out.

        results = moreaugrad.compare(model, x, methods="simple-gradient,sparse-moreaugrad")
        results.to_pandas().groupby("method")["metrics.gini"].mean()
    """

    rows: Sequence[Mapping[str, Any]]
    maps: Mapping[str, Mapping[int, Tensor]]
    failures: Sequence[str] = ()
    folder: Path | None = None
    page: Path | None = None

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame. Errors: ImportError without pandas."""
        import pandas

        return pandas.DataFrame([dict(row) for row in self.rows])

    def _repr_html_(self) -> str:
        """A table of what most readers ask for."""
        names = ["input", "method", "attack", "epsilon", "map.status", "map.zeros", "map.error"]
        names += [name for name in self._columns() if name.startswith("metrics.")]
        names = [name for name in names if any(row.get(name) is not None for row in self.rows)]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_shown(row.get(n)))}</td>" for n in names) + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def explain(
    model: Model,
    images: Images,
    methods: Parts = "sparse-moreaugrad",
    *,
    target: int | str | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **plan: Any,
) -> Results:
    """Explains images, as `moreaugrad explain` does.

    model: a name, or a network; its preprocessing is that of its source, and none for a module.
    images: files, folders or globs, "cells", or a tensor of the network's inputs.
    methods: names (also with commas, or "all"), or settings by name. target: a class by index or
    label; None is each input's prediction. out: a folder for the run, which can then be resumed and
    has a page; without it nothing is kept.
    plan: further fields of `runs.plans.explain.ExplainPlan`.
    Errors: ValueError for whatever cannot work.
    """
    given = ExplainPlan(methods=_parts(METHODS, methods), target=target, **plan)
    return _run("explain", given, model, images, out, overwrite)


def compare(
    model: Model,
    images: Images,
    methods: Parts = "all,-published-moreaugrad",
    **how: Any,
) -> Results:
    """Explains images by several methods: `explain` with other methods by default."""
    return explain(model, images, methods, **how)


def evaluate(
    model: Model,
    data: Images,
    methods: Parts,
    *,
    attacks: Parts = (),
    metrics: Parts | None = None,
    epsilons: Sequence[float] = (),
    images: int | None = None,
    target: int | str | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **plan: Any,
) -> Results:
    """Measures maps on data and under attacks, as `moreaugrad evaluate` does.

    data: a data set's folder or zip archive, "cells", files, or a tensor of the network's inputs.
    attacks, metrics: names or settings by name; metrics None: the command's own. epsilons: budgets
    of the attacks. images: how many of the data set. The others: see `explain`.
    plan: further fields of `runs.plans.evaluate.EvaluatePlan`.
    """
    plan["data"] = DataPlan(images=images)
    if metrics is not None:
        plan["metrics"] = _parts(METRICS, metrics)
    given = EvaluatePlan(
        methods=_parts(METHODS, methods), attacks=_parts(ATTACKS, attacks),
        epsilons=tuple(epsilons), target=target, **plan,
    )  # fmt: skip
    return _run("evaluate", given, model, data, out, overwrite)


def report(*runs: str | os.PathLike[str], out: str | os.PathLike[str], **plan: Any) -> Path:
    """Draws runs of any command, as `moreaugrad report` does; the page.

    plan: further fields of `runs.plans.report.ReportPlan`.
    """
    given = ReportPlan(runs=tuple(map(str, runs)), **plan)
    execute(ReportRun(given), Path(out), overwrite=True)
    return Path(out) / "index.html"


def _parts(registry: Any, given: Parts) -> dict[str, Settings]:
    if isinstance(given, Mapping):
        return {name: dict(settings) for name, settings in given.items()}
    names = [given] if isinstance(given, str) else list(given)
    return read_parts(registry, {}, chosen_names(registry, names)) if names else {}


def _run(
    command: str, plan: Any, model: Model, images: Images, out: Any, overwrite: bool
) -> Results:
    network: Network | None = None
    if isinstance(model, str):
        plan = replace(plan, model=replace(plan.model, name=model))
    else:
        network = Network.of(model)
        plan = replace(plan, model=ModelPlan(name=network.model.name))
    inputs: Inputs | None = None
    if isinstance(images, Tensor):
        inputs = TensorInputs.of(images)
    else:
        plan = replace(plan, data=_data(plan, images))
    run = MapsRun(plan, command=command, network=network, inputs=inputs)
    with tempfile.TemporaryDirectory() if out is None else nullcontext(str(out)) as place:
        outcome = execute(run, Path(place), overwrite=overwrite)
        found = MapsFolder.read(Path(place))
        maps: dict[str, dict[int, Tensor]] = {}
        for record in found.records:
            values = found.map(record) if record["attack"] == CLEAN else None
            if values is not None:
                maps.setdefault(record["method"], {})[record["index"]] = values
        rows = list(table_rows(outcome.directory, found.config))
    page = None if out is None else Path(out) / "index.html"
    return Results(
        rows=rows, maps=maps, failures=list(map(str, outcome.failures)),
        folder=None if out is None else Path(out),
        page=page if page is not None and page.is_file() else None,
    )  # fmt: skip


def _data(plan: MapsPlan, images: Any) -> DataPlan:
    names = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    one = str(names[0]) if len(names) == 1 else ""
    source = one == CELLS or (one and isinstance(plan, EvaluatePlan))
    if source:
        return replace(plan.data, source=one)
    return replace(plan.data, files=tuple(map(str, names)))
