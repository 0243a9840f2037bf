"""The commands as functions, for notebooks and scripts: the same runs, with tables as results."""

from __future__ import annotations

import html
import os
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from moreaugrad.attacks import ATTACKS
from moreaugrad.attacks.catalogue import CLEAN
from moreaugrad.explainers import METHODS
from moreaugrad.extras import required
from moreaugrad.metrics import METRICS
from moreaugrad.models.loaded import LoadedModel
from moreaugrad.reports.folder import PAGE, table_rows
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.runs.engine import execute
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.maps.run import MapsRun
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.common import CELLS, ComputePlan, DataPlan
from moreaugrad.runs.plans.explain import EvaluatePlan, ExplainPlan, ReportPlan
from moreaugrad.runs.plans.maps import COMMON, OF_LABEL, MapsPlan
from moreaugrad.runs.plans.option import Plan, options, plan_in
from moreaugrad.runs.plans.parts import chosen_names, read_metrics, read_parts
from moreaugrad.runs.plans.text import Settings
from moreaugrad.runs.report import ReportRun
from moreaugrad.settings import Documented, nearest

if TYPE_CHECKING:
    import pandas

Model = str | nn.Module | LoadedModel
"""A name as the command line takes it, or a network."""
Data = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Tensor | np.ndarray[Any, Any]
"""Files, folders or globs, the name of a data set, or inputs `[B, C, H, W]` of the network."""
Target = int | str | Sequence[int] | Tensor | None
"""A class by index or label, "label" for the data set's own; of inputs, also one index for each."""
Parts = str | Iterable[str] | Mapping[str, Settings]
"""Names, or settings by name."""
TABLE_ROWS = 100
"""Of the table that a notebook shows."""
P = TypeVar("P", bound=Plan)
M = TypeVar("M", bound=MapsPlan)


@dataclass(frozen=True, kw_only=True, eq=False)
class Results(metaclass=Documented, heading="Attributes"):
    """The results of `explain`, `compare` and `evaluate`.

    >>> results = mg.compare(model, x, methods="simple-gradient,cafo")
    >>> found = results.maps["cafo"][0], results.rows[0]["map.zeros"]
    """

    rows: Sequence[Mapping[str, Any]]
    """One for each map, with names of nested values joined by dots, as in `records.csv`."""
    maps: Mapping[str, Mapping[int, Tensor]]
    """Tensors `[C, H, W]` by method and the image's index."""
    failures: Sequence[str] = ()
    """Messages about what failed and was left out."""
    folder: Path | None = None
    """The folder of the run, where `out` was given."""
    page: Path | None = None
    """Its HTML page, where it has one."""

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame. Errors: ImportError without pandas."""
        pandas = required("pandas", "pandas", "to_pandas()")

        return pandas.DataFrame([dict(row) for row in self.rows])

    def _repr_html_(self) -> str:
        """A table of what most readers ask for, of the first `TABLE_ROWS` maps."""
        names = ["input", "method", "attack", "epsilon", "map.status", "map.zeros", "map.error"]
        every = dict.fromkeys(name for row in self.rows for name in row)
        names += [name for name in every if name.startswith("metrics.")]
        names = [name for name in names if any(row.get(name) is not None for row in self.rows)]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_shown(row.get(n)))}</td>" for n in names) + "</tr>"
            for row in self.rows[:TABLE_ROWS]
        )
        left_out = len(self.rows) - TABLE_ROWS
        more = f"<p>{left_out} more rows not shown: to_pandas() has them.</p>" * (left_out > 0)
        failed = "".join(f"<p>{html.escape(why)}</p>" for why in self.failures)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return table + more + failed

    def __repr__(self) -> str:
        images = len({row["index"] for row in self.rows})
        more = "" if self.folder is None else f", folder={str(self.folder)!r}"
        return (
            f"Results({len(self.rows)} maps of {images} images, {len(self.failures)} "
            f"failures{more})"
        )


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def explain(
    model: Model,
    data: Data,
    methods: Parts = "sparse-moreaugrad",
    *,
    images: int | None = None,
    target: Target = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **plan: Any,
) -> Results:
    """Explains images, as `moreaugrad explain` does.

    model: a name, or a network; its preprocessing is that of its source, and none for a module
    (`moreaugrad.models.LoadedModel` declares one, and labels).
    data: files, folders or globs, "cells", or the network's inputs as a tensor or an array.
    methods: names (also with commas, or "all"), or settings by name. images: how many of the data
    set "cells", chosen by the seed. target: a class by index or label, "label" for the data set's
    own, or an index for each row of a tensor; None is each input's prediction. out: a folder for
    the run, which can then be resumed and has a page; without it nothing is kept.
    plan: further options of the command by name, such as `rho=0.5`, `seed=1` or `device="cuda"`,
    and other fields of `runs.plans.explain.ExplainPlan`.
    Errors: ValueError or TypeError for a plan that cannot be run.
    """
    given = plan_with(ExplainPlan, plan, methods=parts_of(METHODS, methods))
    return _run("explain", given, model, data, images, target, out, overwrite)


def compare(
    model: Model,
    data: Data,
    methods: Parts = "all,-published-moreaugrad",
    *,
    images: int | None = None,
    target: Target = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **plan: Any,
) -> Results:
    """Explains images by several methods, as `moreaugrad compare` does: `explain` with other
    methods by default."""
    given = plan_with(ExplainPlan, plan, methods=parts_of(METHODS, methods))
    return _run("compare", given, model, data, images, target, out, overwrite)


def evaluate(
    model: Model,
    data: Data,
    methods: Parts,
    *,
    attacks: Parts = (),
    metrics: Parts | None = None,
    epsilons: float | Sequence[float] = (),
    images: int | None = None,
    target: Target = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **plan: Any,
) -> Results:
    """Measures maps on data and under attacks, as `moreaugrad evaluate` does.

    data: a data set's folder or zip archive, "cells", files, or a tensor of the network's inputs.
    attacks, metrics: names or settings by name; metrics None: the command's own. epsilons: budgets
    of the attacks. images: how many of the data set. The others: see `explain`.
    plan: further options of the command by name, and other fields of
    `runs.plans.explain.EvaluatePlan`.
    """
    if metrics is not None:
        plan["metrics"] = metrics
    budgets = (epsilons,) if isinstance(epsilons, (int, float)) else tuple(epsilons)
    given = plan_with(
        EvaluatePlan, plan, methods=parts_of(METHODS, methods), attacks=parts_of(ATTACKS, attacks),
        epsilons=budgets,
    )  # fmt: skip
    return _run("evaluate", given, model, data, images, target, out, overwrite)


def report(*runs: str | os.PathLike[str], out: str | os.PathLike[str], **plan: Any) -> Path:
    """Draws runs of any command, as `moreaugrad report` does; the page.

    plan: further fields of `runs.plans.explain.ReportPlan`.
    """
    given = _with(ReportPlan(runs=tuple(map(str, runs))), plan)
    outcome = execute(ReportRun(given), Path(out), overwrite=True)
    if outcome.interrupted:
        raise KeyboardInterrupt
    return Path(out) / PAGE


def parts_of(
    registry: Any, given: Parts, usual: Mapping[str, Settings] = {}
) -> dict[str, Settings]:
    """usual: settings of parts that are named alone. Errors: ValueError for an unknown name,
    TypeError for what names nothing."""
    what = f"{registry.part}s: expected names, or settings by name"
    if isinstance(given, Mapping):
        for name, settings in given.items():
            if not isinstance(settings, Mapping):
                raise TypeError(f"{what}, got {settings!r} for {name!r}")
        return {name: dict(settings) for name, settings in given.items()}
    names = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{what}, got {_kinds(names)}")
    if registry is METRICS:
        return read_metrics({}, names)
    return read_parts(registry, usual, chosen_names(registry, names)) if names else {}


def plan_with(kind: type[P], given: Mapping[str, Any], **own: Any) -> P:
    """A plan with options by name; those of methods go to every method that has them."""
    common = {name: value for name, value in given.items() if name in COMMON}
    others = {name: value for name, value in given.items() if name not in COMMON}
    own["settings"] = {**others.pop("settings", {}), **common}
    if "metrics" in others:
        others["metrics"] = parts_of(METRICS, others["metrics"])
    return _with(kind(**own), others)


def _with(plan: P, given: Mapping[str, Any]) -> P:
    """The plan with fields of itself, and of the plans in it, by name. Errors: TypeError for a
    name that is none."""
    every = reversed(list(options(type(plan), ("sweep",))))
    places = {place[-1]: place for place, _ in every if place[-1] not in plan.EDITS}
    places |= {item.name: (item.name,) for item in fields(plan)}
    for name, value in given.items():
        if name not in places:
            raise TypeError(f"there is no option {name!r}{nearest(name, (*places, *COMMON))}")
        plan = _replaced(plan, places[name], value)
    return plan


def _replaced(plan: P, place: Sequence[str], value: Any) -> P:
    head, *rest = place
    if rest:
        kind = plan_in(get_type_hints(type(plan))[head])
        assert kind is not None
        value = _replaced(getattr(plan, head) or kind(), rest, value)
    return replace(plan, **{head: value})


def prepared(
    plan: M, model: Model, data: Data, images: int | None, target: Target
) -> tuple[M, Network | None, Inputs | None]:
    """The plan of a network, images and classes, and those that are at hand."""
    data = torch.as_tensor(data) if isinstance(data, np.ndarray) else data
    network: Network | None = None
    if isinstance(model, str):
        plan = replace(plan, model=replace(plan.model, name=model))
    elif not isinstance(model, (nn.Module, LoadedModel)):
        raise TypeError(f"model: expected a name, a torch module or a LoadedModel, got {model!r}")
    elif plan.model != type(plan.model)() or plan.compute != ComputePlan():
        raise ValueError(
            "model: a network in memory is used as it is: its weights, preprocessing and device "
            "are its own"
        )
    else:
        network = Network.of(model, data if isinstance(data, Tensor) else None)
        plan = replace(plan, model=type(plan.model)(name=network.model.name))
    inputs: Inputs | None = None
    common = target is None or isinstance(target, (int, str))
    if isinstance(data, Tensor):
        if images is not None:
            raise ValueError("images: expected a data set to choose from, got a tensor: slice it")
        inputs = Inputs.of(data, None if common else _classes(target))
        target = target if common else OF_LABEL
    elif common:
        plan = replace(plan, data=replace(_data(plan, data), images=images))
    else:
        raise TypeError("target: expected one class for all images, unless they are a tensor")
    chosen: dict[str, Any] = {"target": target}
    return replace(plan, **chosen), network, inputs


def _run(
    command: str, plan: Any, model: Model, data: Data, images: int | None, target: Target, out: Any,
    overwrite: bool,
) -> Results:  # fmt: skip
    plan, network, inputs = prepared(plan, model, data, images, target)
    run = MapsRun(plan, command=command, network=network, inputs=inputs)
    with tempfile.TemporaryDirectory() if out is None else nullcontext(str(out)) as place:
        outcome = execute(run, Path(place), overwrite=overwrite)
        if outcome.interrupted:
            raise KeyboardInterrupt
        found = MapsFolder.read(Path(place))
        maps: dict[str, dict[int, Tensor]] = {}
        for record in found.records:
            values = found.map(record) if record["attack"] == CLEAN else None
            if values is not None:
                maps.setdefault(record["method"], {})[record["index"]] = values
        folder = None if out is None else Path(out)
        return Results(
            rows=list(table_rows(outcome.directory, found.config)), maps=maps,
            failures=list(map(str, outcome.failures)), folder=folder,
            page=folder / PAGE if folder and (folder / PAGE).is_file() else None,
        )  # fmt: skip


def _classes(target: Any) -> list[int]:
    if callable(target):
        raise TypeError(
            "target: expected a class index for each input, got a function: explain it by a "
            "method's own class, such as SmoothGrad(model).explain(x, target)"
        )
    found = torch.as_tensor(target)
    if found.ndim != 1 or found.is_floating_point() or found.is_complex():
        raise ValueError(f"target: expected a class index for each input, got {target!r}")
    return [int(index) for index in found]


def _data(plan: MapsPlan, data: Any) -> DataPlan:
    names = list(data) if isinstance(data, Iterable) and not isinstance(data, str) else [data]
    if not names or not all(isinstance(name, (str, os.PathLike)) for name in names):
        raise TypeError(
            "data: expected files, folders or globs, a data set, or the network's inputs as one "
            f"tensor [B, C, H, W]; got {_kinds(names)}"
        )
    files = tuple(map(str, names))
    whole = len(files) == 1 and (Path(files[0]).is_dir() or zipfile.is_zipfile(files[0]))
    if files == (CELLS,) or (whole and not isinstance(plan, ExplainPlan)):
        return replace(plan.data, source=files[0])
    return replace(plan.data, files=files)


def _kinds(values: Iterable[Any]) -> str:
    """The types of values in words."""
    return " and ".join(dict.fromkeys(type(value).__name__ for value in values)) or "none"
