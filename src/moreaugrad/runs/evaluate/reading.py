"""A run directory read back: its plan, what is finished, and rows of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from moreaugrad.metrics import METRICS, Metric
from moreaugrad.registry import is_code
from moreaugrad.runs.config import found_from
from moreaugrad.runs.directory import CONFIG
from moreaugrad.runs.evaluate.plan import CLEAN, EvaluatePlan, parsed_plan
from moreaugrad.runs.evaluate.store import RunFolder, Unit
from moreaugrad.runs.records import Record


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """label: unlike that of every other run. records: of all finished units, in order."""

    label: str
    folder: RunFolder
    plan: EvaluatePlan
    text: str
    samples: Sequence[Record]
    records: Sequence[Record]
    finished: int
    units: int

    @property
    def complete(self) -> bool:
        return self.finished == self.units

    @property
    def unreadable(self) -> list[Record]:
        return [record for record in self.samples if "problem" in record]

    def metric(self, label: str) -> Any:
        """The registry's row of a metric; one of somebody else's as the plan spells it out, for a
        report loads nothing."""
        given = self.plan.metrics[label]
        name = given.get("metric", label)
        if is_code(name):
            return Metric(name, "", **{key: given[key] for key in Metric.columns})
        return METRICS[name]

    def sweeps_epsilon(self, attack: str) -> bool:
        """Its budgets are those of the whole run, so that it can be set beside other attacks."""
        given = self.plan.attacks[attack]
        return "epsilons" not in given and "over" not in given

    @cached_property
    def by_key(self) -> Mapping[tuple[str, str, float | None], list[Record]]:
        """Records by method, attack and epsilon, in the order of the plan."""
        found: dict[tuple[str, str, float | None], list[Record]] = {}
        for method in self.plan.methods:
            found[method, CLEAN, None] = []
            for attack in self.plan.attacks:
                for epsilon in self.plan.budgets(attack):
                    found[method, attack, epsilon] = []
        for record in self.records:
            found[record["method"], record["attack"], record["epsilon"]].append(record)
        return found

    def tensors(self, index: int, method: str = "") -> dict[str, Tensor]:
        """What is kept of a sample: its maps by a method, or what the network takes in."""
        places = [record["index"] for record in self.samples]
        if index not in places:
            return {}
        return self.folder.tensors(Unit(places.index(index) // self.plan.block, method))


def read_run(path: Path, label: str) -> Run:
    """Errors: ValueError for a folder that `evaluate` did not make."""
    folder = RunFolder(path)
    if not (path / CONFIG).is_file():
        what = f"it holds no {CONFIG}" if path.is_dir() else "there is no such folder"
        raise ValueError(f"{path}: expected a folder that evaluate made, but {what}")
    plan = parsed_plan(path / CONFIG, lambda name: found_from(path / CONFIG, name))
    text = (path / CONFIG).read_text(encoding="utf-8")
    blocks = range(-(-(plan.samples or 0) // plan.block))
    pictures = [Unit(block) for block in blocks]
    through = [Unit(block, method) for method in plan.methods for block in blocks]
    # A block of pictures that is missing would shift the places of those after it.
    known = [folder.done(unit) for unit in pictures]
    whole = pictures[: known.index(False)] if False in known else pictures
    return Run(
        label=label,
        folder=folder,
        plan=plan,
        text=text,
        samples=[record for unit in whole for record in folder.read(unit)],
        records=[r for unit in through if folder.done(unit) for r in folder.read(unit)],
        finished=sum(map(folder.done, [*pictures, *through])),
        units=len(pictures) + len(through),
    )


def value(record: Record, metric: str) -> float:
    """A metric of a record; NaN where it is undefined."""
    found = record.get("metrics", {}).get(metric)
    return math.nan if found is None else float(found)


def numbers(record: Record) -> dict[str, float]:
    """Metrics of a record that has not failed, and what the map or the attack took.

    "as stated": 1 for a map that reached its method's accuracy.
    """
    if "attacked" in record:
        told = record["attacked"]
        distance = math.nan if told["distance"] is None else told["distance"]
        more = {"distance": distance, "evaluations": float(told["evaluations"])}
    else:
        told = record["map"]
        more = {"as stated": float(told["ok"]), "evaluations": float(told["evaluations"])}
    return {name: value(record, name) for name in record["metrics"]} | more


def failed(record: Record) -> bool:
    """The record is of no map at all, or of an attack that says nothing about it."""
    return "problem" in record or not record.get("attacked", {"ok": True})["ok"]


def why(record: Record) -> str:
    """Of a failed record."""
    told: str = record["problem"] if "problem" in record else record["attacked"]["message"]
    return told
