"""Maps to look at within seconds, while the final ones are computed: each the method's own at the
quality "preview"; and, from how they went, what the final ones will take."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from moreaugrad.data.dataset import Chosen
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.explainers.quality import QUALITIES, evaluations_to_reach, tolerance_of
from moreaugrad.files.units import Record
from moreaugrad.pictures.wording import count, duration, number
from moreaugrad.reports.folder import PAGE, preview_stem, shown_units
from moreaugrad.runs.directory import RunDirectory, json_text
from moreaugrad.runs.engine import Observer
from moreaugrad.runs.maps import interactions
from moreaugrad.runs.maps.block import Block, evaluations
from moreaugrad.runs.maps.methods import Method
from moreaugrad.runs.network import Network
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.timing import memory_so_far

LEVEL = "preview"
MOST = 128
"""Evaluations of a preview."""
QUICK = 1024
"""Evaluations up to which a map of a method without levels is made at once."""
CENTRED = 4
"""Times as many evaluations as a centre spares a preview; it spares a final map hardly any."""
SHORTEST = 1e-9
"""Seconds of an evaluation that took no time that a clock shows."""
LONG = 600.0
"""Seconds from which on it is asked whether to go on."""
BUDGETS = "times/budgets.json"


def refined(method: Method) -> Moreau | None:
    """The explainer of a method whose maps are solved to more than a preview."""
    found = method.explainer
    if not isinstance(found, Moreau) or not found.fresh:
        return None
    return found if tolerance_of(found.tolerance) < QUALITIES[LEVEL] else None


def preview_of(method: Method, explainer: Moreau) -> Method:
    """The method at the quality "preview", within few evaluations."""
    own = replace(method, interactions=0)
    return _limited(own, explainer, min(MOST, _most(explainer)), tolerance=LEVEL)


def within_budget(method: Method, budgets: Mapping[str, int]) -> Method:
    """The method with the evaluations that it is left, by its label."""
    explainer = refined(method)
    if explainer is None or method.label not in budgets:
        return method
    return _limited(method, explainer, budgets[method.label])


def _limited(method: Method, explainer: Moreau, most: int, **settings: Any) -> Method:
    return replace(method, explainer=replace(explainer, max_evaluations=most, **settings))


def _most(explainer: Moreau) -> int:
    """Evaluations of each chain."""
    return explainer.map_budget() // explainer.chains


@dataclass(kw_only=True, eq=False)
class Pace:
    """How long evaluations took, by the labels of methods."""

    seconds: dict[str, float] = field(default_factory=dict)
    spent: Counter[str] = field(default_factory=Counter)

    def add(self, method: Method, seconds: float, records: Iterable[Record]) -> None:
        parts = [record.get(part, {}) for record in records for part in ("map", "interactions")]
        count = sum(part.get("evaluations", 0) for part in parts)
        if count:
            self.seconds[method.label] = self.seconds.get(method.label, 0.0) + seconds
            self.spent[method.label] += count

    def each(self, method: Method) -> float:
        """Seconds of an evaluation; of all methods where this one is not known, 0 if none is."""
        if self.spent[method.label]:
            return self.seconds[method.label] / self.spent[method.label]
        return sum(self.seconds.values()) / max(1, self.spent.total())


class Maps(Protocol):
    """A run of maps, as previews see it."""

    network: Network
    processes: Processes
    watch: Observer

    @property
    def stages(self) -> Sequence[Sequence[str]]: ...

    def left(self, directory: RunDirectory) -> list[str]: ...

    def maps_of(self, unit: str) -> tuple[Method, list[Chosen]]: ...

    def meter(self, units: Iterable[tuple[Method, Sequence[Chosen]]]) -> None: ...

    def made(self, method: Method, images: Sequence[Chosen]) -> tuple[Block, float]: ...

    def timed(self, unit: str, directory: RunDirectory, seconds: float) -> None: ...

    def finish(self, directory: RunDirectory) -> None: ...


def first_maps(run: Maps, directory: RunDirectory, limit: float | None) -> Mapping[str, int]:
    """Makes maps to look at and a page of them, says what the final ones will take, and asks where
    that is long. What a method makes as quickly is final at once.

    limit: seconds that the maps may take in all, or None. Returns the most evaluations of each
    chain that it leaves, by the labels of methods. Errors: KeyboardInterrupt for a no.
    """
    began, pace, jobs = time.perf_counter(), Pace(), list[tuple[str, Method, Sequence[Chosen]]]()
    budgets = read_budgets(directory) if limit else {}
    final = run.left(directory)
    for unit in final:
        method, images = run.maps_of(unit)
        explainer = refined(method)
        if explainer is None:
            if evaluations(method) <= QUICK:
                jobs.append((unit, method, images))
        elif budgets is None or not directory.finished(preview_stem(unit)):
            jobs.append((preview_stem(unit), preview_of(method, explainer), images))
    run.meter((method, images) for _, method, images in jobs)
    for unit, method, rows in jobs:
        block, seconds = run.made(method, rows)
        directory.write(unit, block.files(unit))
        if unit in final:
            run.timed(unit, directory, seconds)
        pace.add(method, seconds, block.records)
    run.processes.wait()
    left = [unit for unit in run.stages[1] if not directory.finished(unit)]
    if left and run.processes.rank == 0:
        page = directory.path / PAGE if any(shown_units(directory, run.stages[1])) else None
        if page is not None:
            run.finish(directory)
            run.watch.page(page)
        if budgets is None:
            rest = limit - (time.perf_counter() - began) if limit else 0.0
            units = [(method, len(images)) for method, images in map(run.maps_of, left)]
            budgets = shared_out(rest * run.processes.size, pace, units)
            directory.put(BUDGETS, json_text(budgets).encode())
        _announce(run, directory, pace, left, budgets, page)
    return run.processes.from_first(budgets) or {}


def _announce(
    run: Maps, directory: RunDirectory, pace: Pace, left: Sequence[str],
    budgets: Mapping[str, int], page: Path | None,
) -> None:  # fmt: skip
    """Says what is left to do. page: of the first maps, if there are any.

    Errors: KeyboardInterrupt where it is not to be done.
    """
    total = seconds = 0.0
    for unit in left:
        method, images = run.maps_of(unit)
        each = needed(directory, unit, within_budget(method, budgets), len(images))
        total, seconds = total + each, seconds + each * pace.each(method)
    seconds /= run.processes.size
    size = sum(file.stat().st_size for file in directory.path.rglob("*") if file.is_file())
    memory = memory_so_far(run.network.device)
    used = "" if memory is None else f", {number(memory / 1e9)} GB of memory"
    takes = f"about {duration(seconds)}" if seconds else "an unknown time"
    what = "the maps take" if page is None else f"first maps: {page}; the final ones take"
    more = "" if page is None else f", {number(size / 1e6)} MB on disk"
    passes = f"at most about {count(total)} more gradient evaluations"
    run.watch.news(f"{what} {passes}: {takes}{used}{more}")
    asked = seconds > LONG and run.processes.size == 1
    if asked and not run.watch.agreed(f"The final maps take about {duration(seconds)}. Go on?"):
        raise KeyboardInterrupt


def needed(directory: RunDirectory, unit: str, method: Method, images: int) -> float:
    """Evaluations of a unit of final maps, by the errors of its previews; at most, without."""
    explainer, preview = refined(method), preview_stem(unit)
    if explainer is None or not directory.finished(preview):
        return float(evaluations(method) * images)
    most, total = explainer.budget(), float(interactions.evaluations(method) * images)
    for found in (record["map"] for record in directory.records(preview) if "map" in record):
        spent, reached = found["evaluations"], float(most)
        if found["error"] is not None:
            tolerance = tolerance_of(explainer.tolerance)
            reached = evaluations_to_reach(tolerance, found["error"], spent)
            reached *= CENTRED if explainer.centre else 1
        total += min(max(reached, spent), most)
    return total


def shared_out(left: float, pace: Pace, units: Iterable[tuple[Method, int]]) -> dict[str, int]:
    """The most evaluations of each chain, by the labels of methods, with which all maps that are
    refined take the seconds that are left, each as long. units: methods, and how many maps."""
    explainers, count = dict[str, tuple[Moreau, float]](), 0
    for method, images in units:
        explainer, each = refined(method), pace.each(method)
        if explainer is None:
            left -= evaluations(method) * images * each
        else:
            left -= interactions.evaluations(method) * images * each
            explainers[method.label] = explainer, each * explainer.chains
            count += images
    return {
        label: max(MOST, min(_most(explainer), int(left / count / max(each, SHORTEST))))
        for label, (explainer, each) in explainers.items()
    }


def read_budgets(directory: RunDirectory) -> dict[str, int] | None:
    """None where there are none yet, or none that can be read."""
    try:
        found = json.loads((directory.path / BUDGETS).read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and all(type(most) is int for most in found.values())
    return found if whole else None
