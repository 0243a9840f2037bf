"""The interactions of the largest entries of a run's maps."""

from __future__ import annotations

import math
import warnings

from moreaugrad.explainers.calling import Progress
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.explainers.hessian_entries import PIXEL
from moreaugrad.explainers.interactions import (
    Interactions,
    interactions,
    interactions_budget,
)
from moreaugrad.files.units import Record
from moreaugrad.runs.directory import line, number, problem
from moreaugrad.runs.maps.methods import Method

WITHOUT = "without interactions"
"""The kind of failure of a map that is there without them."""


def check_interactions(method: Method) -> None:
    """Errors: ValueError for a method whose maps have none."""
    found = method.explainer.settings()
    for name, usual in (("layer", None), ("backward", "exact")):
        if found.get(name, usual) != usual:
            raise ValueError(
                f"--interactions {method.interactions}: is for maps of the input by exact "
                f"gradients, got {method.label} with {name} = {found[name]}"
            )


def title(method: Method) -> str:
    """Of the interactions of a method's maps."""
    return f"{method.label}, interactions"


def evaluations(method: Method) -> int:
    """What those of one map take at most."""
    count = method.interactions
    return interactions_budget(method.explainer, count) if count else 0


def computed(method: Method, maps: Explanation, progress: Progress) -> list[Record]:
    """A record of each map's. What fails in a batch is tried one by one; a map stays whatever its
    interactions raise."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = interactions(
                method.explainer, maps, most=method.interactions, per=PIXEL, progress=progress
            )
    except Exception as error:
        if len(maps) == 1:
            return [{"problem": _why(error)}]
        return [computed(method, own, progress)[0] for own in maps]
    return [pairs_record(found, row) for row in range(len(maps))]


def _why(error: Exception) -> str:
    try:
        return problem(error)
    except MemoryError as short:
        return line(short)


def pairs_record(found: Interactions, row: int) -> Record:
    """The interactions of one sample: how they came about, and all pairs that are not zero, the
    strongest first."""
    status, count = found.status[row], found.index.shape[1]
    every = found.strongest(count**2, row)
    return {
        "status": status.value,
        "ok": status.ok,
        "failed": status.failed,
        **({} if status.ok else {"message": status.message, "remedy": status.remedy}),
        "evaluations": int(found.evaluations[row]),
        "entries": int((found.index[row] >= 0).sum()),
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "value": pair.value,
                "error": number(pair.error),
            }
            for pair in every
            if math.isfinite(pair.value)
        ],
    }


def no_pairs(record: Record) -> str:
    """Why a record of a map is without the interactions that were asked for; empty for others."""
    return str(record.get("interactions", {}).get("problem", ""))
