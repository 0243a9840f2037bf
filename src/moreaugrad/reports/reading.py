"""A run of maps read back: its configuration, what is finished, and rows of numbers."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from moreaugrad.attacks.catalogue import ATTACKS, CLEAN, aim
from moreaugrad.files.maps import SPARSE, read_maps
from moreaugrad.files.units import Record, Units
from moreaugrad.metrics import METRICS, Metric
from moreaugrad.reports.folder import (
    labels,
    read_config,
    shown_units,
    stages,
    tensor_name,
    unit_stem,
)

Key = tuple[str, str, float | None]
"""Method, attack and epsilon."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MapsFolder:
    """label: unlike that of every other run. inputs: records of the images; records: of all
    finished maps, in order."""

    label: str
    units: Units
    command: str
    config: Mapping[str, Any]
    text: str
    inputs: Sequence[Record]
    records: Sequence[Record]
    finished: int
    total: int
    previews: int = 0
    """Units that are not finished, of which there are maps to look at."""

    @classmethod
    def read(cls, path: Path, label: str = "") -> MapsFolder:
        """Errors: ValueError for what is not the folder of such a run."""
        command, config, text = read_config(path)
        units = Units(path)
        samples, through = stages(config)
        # A block of images that is missing would shift the places of those after it.
        known = [units.finished(unit) for unit in samples]
        whole = samples[: known.index(False)] if False in known else samples
        made = list(shown_units(units, through))
        return cls(
            label=label, units=units, command=command, config=config, text=text,
            inputs=[record for unit in whole for record in units.records(unit)],
            records=[record for unit in made for record in units.records(unit)],
            finished=sum(map(units.finished, [*samples, *through])),
            total=len(samples) + len(through), previews=len({*made} - {*through}),
        )  # fmt: skip

    @property
    def path(self) -> Path:
        return self.units.path

    @property
    def complete(self) -> bool:
        return self.finished == self.total

    @property
    def explains(self) -> bool:
        """Whether each image has a folder of files."""
        return self.command != "evaluate"

    @property
    def of_texts(self) -> bool:
        """Whether its inputs are texts."""
        return any("text" in record for record in self.inputs)

    @cached_property
    def rates(self) -> Mapping[int, float | None]:
        """Of inputs that are series or volumes, the samples per second, by their indices."""
        return {r["index"]: r["array"]["rate"] for r in self.inputs if "array" in r}

    @property
    def unreadable(self) -> list[Record]:
        return [record for record in self.inputs if "problem" in record]

    @cached_property
    def methods(self) -> Mapping[str, Mapping[str, Any]]:
        """What each label is, see `folder.labels`."""
        return labels(self.config)

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self.config.get("metrics", {})
        return found

    def metric(self, label: str) -> Any:
        """The registry's row of a metric; one of somebody's own as the configuration spells it out,
        for a report loads nothing."""
        given = self.metrics[label]
        name = given.get("metric", label)
        if name not in METRICS:
            return Metric(name, "", **{key: given[key] for key in Metric.columns})
        return METRICS[name]

    @property
    def attacks(self) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self.config.get("attacks", {})
        return found

    def aimed(self, attack: str, metric: str) -> bool | None:
        """Whether an attack is aimed at a metric; None for noise, and for somebody's own attack,
        which a report does not load."""
        given = self.attacks[attack]
        name = given.get("attack", attack)
        found = aim(name, given) if name in ATTACKS else None
        own = self.metrics[metric]
        return None if found is None else found.at(own.get("metric", metric), own)

    def sweeps_epsilon(self, attack: str) -> bool:
        """Its budgets are those of the whole run, so that it compares with other attacks."""
        given = self.attacks[attack]
        return "epsilons" not in given and "over" not in given

    @cached_property
    def by_key(self) -> Mapping[Key, list[Record]]:
        """Records in the order of the configuration: methods, then attacks, then budgets."""
        order = [CLEAN, *self.attacks]
        found: dict[Key, list[Record]] = {}
        for record in self.records:
            key = (record["method"], record["attack"], record["epsilon"])
            found.setdefault(key, []).append(record)
        methods = list(self.methods)
        return dict(
            sorted(
                found.items(),
                key=lambda item: (
                    methods.index(item[0][0]), order.index(item[0][1]), item[0][2] or 0.0,
                ),
            )
        )  # fmt: skip

    def budgets(self, attack: str) -> list[float | None]:
        return list(dict.fromkeys(key[2] for key in self.by_key if key[1] == attack))

    @cached_property
    def _blocks(self) -> Mapping[int, int]:
        size = self.config.get("block", 1)
        return {record["index"]: place // size for place, record in enumerate(self.inputs)}

    def input_tensors(self, index: int) -> dict[str, Tensor]:
        """What the network takes in of an image, and its ground truth, where they are kept."""
        found = self._tensors(unit_stem(self._blocks[index]))
        names = {str(index): "input", f"{index}/truth": "truth"}
        return {name: found[key] for key, name in names.items() if key in found}

    def keeps(self, record: Record) -> bool:
        """Whether the map of a record is kept."""
        if self.explains:
            return self._file(record).is_file()
        return self._name(record, "map") in self._tensors(self._unit(record))

    def map(
        self, record: Record, what: str = "map"
    ) -> Tensor | None:  # "input": what an attack made of the image; "z_scores": of the entries
        """The map of a record, where it is kept."""
        if self.explains:
            file = self._file(record)
            return read_maps(file).get(what) if file.is_file() else None
        return self._tensors(self._unit(record)).get(self._name(record, what))

    def _file(self, record: Record) -> Path:
        folder: str = next(r["folder"] for r in self.inputs if r["index"] == record["index"])
        return self.path / folder / f"{record['method']}.safetensors"

    def _unit(self, record: Record) -> str:
        return unit_stem(self._blocks[record["index"]], record["method"])

    def _name(self, record: Record, what: str) -> str:
        return tensor_name(record["index"], record["attack"], record["epsilon"], what)

    @cached_property
    def _tensors(self) -> Callable[[str], dict[str, Tensor]]:
        """The tensors of a unit. Two are kept: a block of images, and its maps by one method."""
        return lru_cache(maxsize=2)(self.units.tensors)

    def seconds(self, record: Record) -> float:
        """Of its unit, by image; NaN where it is not known."""
        file = self.path / "times" / record["method"] / f"{self._blocks[record['index']]:05d}.json"
        try:
            return float(json.loads(file.read_bytes()))
        except (OSError, ValueError):
            return math.nan


def stored_words(form: str | None, records: Iterable[Record]) -> str:
    """How maps are stored that are to be in a form, and what that loses at most; empty for maps
    that are to be exact, and where none is stored."""
    every = [record["stored"] for record in records if "stored" in record]
    if form is None or not every:
        return ""
    exact: int = sum(one["as"] != form for one in every)
    if form == SPARSE:
        found, why = "as their entries that are not zero, without loss", "would take more bytes"
    else:
        error = max(one.get("error", 0.0) for one in every)
        found = f"as {form}: relative error at most {_rounded_up(error)}"
        why = "would lose more than rounding, or take as many bytes"
    because = f"because {form} {why}"
    if exact == len(every):
        return f"maps are stored exactly, {because}"
    rest = f"; {exact} of {len(every)} are stored exactly, {because}" if exact else ""
    return f"maps are stored {found}{rest}"


def _rounded_up(value: float) -> str:
    """Two digits, not below the value."""
    found = Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(value)
    return f"{found:e}" if found else "0"


def value(record: Record, metric: str) -> float:
    """A metric of a record; NaN where it is undefined."""
    found = record.get("metrics", {}).get(metric)
    return math.nan if found is None else float(found)


def numbers(record: Record) -> dict[str, float]:
    """Metrics of a record that has not failed, and what the map or the attack took.

    "converged": 1 for a map that reached its method's accuracy.
    """
    if "attacked" in record:
        attacked = record["attacked"]
        distance = math.nan if attacked["distance"] is None else attacked["distance"]
        more = {"distance": distance, "evaluations": float(attacked["evaluations"])}
    else:
        found = record["map"]
        more = {"converged": float(found["ok"]), "evaluations": float(found["evaluations"])}
    return {name: value(record, name) for name in record["metrics"]} | more


def failed(record: Record) -> bool:
    """Whether there is no map, or the attack failed and says nothing about it."""
    return "problem" in record or not record.get("attacked", {"ok": True})["ok"]


def why(record: Record) -> str:
    """Of a failed record."""
    found: str = record["problem"] if "problem" in record else record["attacked"]["message"]
    return found


def unusable(records: Iterable[Record]) -> list[str]:
    """What to know of maps that failed and have metrics all the same, alike ones of a method
    counted together: they are in all means, so that no method gains by failing."""
    maps = [record for record in records if record.get("attack") == CLEAN and "map" in record]
    totals = Counter(record["method"] for record in maps)
    counted = Counter(
        (record["method"], found["message"], found["remedy"])
        for record in maps
        if (found := record["map"])["failed"]
        and any(each is not None for each in record["metrics"].values())
    )
    return [
        f"{method}: {count} of {totals[method]} map{'s' * (totals[method] != 1)} failed, and the "
        f"means include {'it' if count == 1 else 'them'}: {message}; {remedy}"
        for (method, message, remedy), count in counted.items()
    ]
