"""What to evaluate: data, methods, attacks on their maps, and the metrics that judge them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli_w

from moreaugrad.attacks import ATTACKS
from moreaugrad.data.layouts import AUTO, check_layout
from moreaugrad.files.foreign import check_named, read_toml
from moreaugrad.registry import is_code, labelled, refuse_code
from moreaugrad.runs.config import (
    finding,
    found_from,
    from_table,
    moved_network,
    relative,
    to_table,
)
from moreaugrad.runs.job import ComputePlan, ModelPlan

Settings = Mapping[str, Any]

LABEL = re.compile(r"[\w+-][\w.+-]*")
"""Of a method or an attack: it names files and columns."""
OF_LABEL = "label"
"""As a target: the data set's class in place of the prediction."""
OF_DATA = "data"
"""As `labels` of the published attack: the data set's classes."""


@dataclass(frozen=True, kw_only=True)
class EvaluatePlan:
    """samples x methods, and each of these under every attack at every budget.

    data: a folder or a zip of one; layout, split: see `data.layouts`. samples: how many pictures,
    chosen by `seed`; None is all. target: a class, "label" for the data set's own, or None for each
    clean input's prediction.
    methods, attacks, metrics: settings by label. A label is a name of the registry, or the settings
    tell it (`method`, `attack`, `metric`), so that one can come twice. An attack has, besides the
    settings of its class: `epsilons` of its own; `over`, the setting that these are values of, in
    place of epsilon (sigma of Gaussian noise); `source`, the label or name of the method that its
    steps are computed on; `surrogate`, the beta of a softplus network for these steps; `through`
    may be a list, of which each method takes the first that it has. `labels = "data"` gives the
    published attack the data set's classes.
    epsilons: the budgets of the other attacks. A metric that asks the network has `score`: which
    one, or "explained" for that of each method.
    block: samples of a unit of work. maps: for how many samples maps are kept; None is all.
    unreadable: the share of pictures from which on the run fails.
    chosen, files, network, outputs: digests of the chosen pictures' names, of the contents
    of their files, of the network, and of the names of its outputs; filled in.
    """

    data: str
    layout: str = AUTO
    split: str | None = None
    samples: int | None = None
    seed: int = 0
    target: int | str | None = None
    epsilons: tuple[float, ...] = ()
    block: int = 4
    maps: int | None = None
    unreadable: float = 0.1
    chosen: str = ""
    network: str = ""
    files: str = ""
    outputs: str = ""
    model: ModelPlan = field(default_factory=ModelPlan)
    compute: ComputePlan = field(default_factory=ComputePlan)
    methods: Mapping[str, Settings] = field(default_factory=dict)
    metrics: Mapping[str, Settings] = field(default_factory=dict)
    attacks: Mapping[str, Settings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_named("data", self.data)
        check_layout(self.layout)
        if not self.methods:
            raise ValueError("methods: expected at least one, got none")
        for part in ("method", "metric", "attack"):
            object.__setattr__(self, f"{part}s", labelled(part, getattr(self, f"{part}s")))
        for name, least in (("samples", 1), ("block", 1), ("maps", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if not 0 <= self.unreadable <= 1:
            raise ValueError(f"unreadable: expected a share in [0, 1], got {self.unreadable!r}")
        for label in (*self.methods, *self.attacks, *self.metrics):
            if not LABEL.fullmatch(label):
                raise ValueError(
                    f"{label!r}: expected a label of letters, digits and any of . _ + -"
                )
        if CLEAN in self.attacks:
            raise ValueError(f"attacks: expected another label, {CLEAN!r} is the map without one")
        for label in self.attacks:
            self.budgets(label)

    def budgets(self, attack: str) -> tuple[float | None, ...]:
        """The epsilons of an attack; (None,) for one that needs none and has none.

        Errors: ValueError where there are none.
        """
        given = self.attacks[attack]
        name = ATTACKS.check(str(given.get("attack", attack)))
        found = given.get("epsilons", self.epsilons)
        values = tuple(found) if isinstance(found, (list, tuple)) else (found,)
        # One that somebody else has written says so itself, when it is made: a report of its maps
        # does not load it.
        if not values and (is_code(name) or not ATTACKS[name].load().needs_epsilon):
            return (None,)
        if not values or not all(type(v) in (int, float) and v >= 0 for v in values):
            raise ValueError(
                f"epsilons: expected numbers >= 0 for the attack {attack}, got "
                f"{list(values) or 'none'}"
            )
        return tuple(sorted({float(value) for value in values}))


CLEAN = "clean"


def read_plan(path: str | Path, *, trust: bool = False) -> EvaluatePlan:
    """The plan of a TOML file; paths in it are relative to its folder and may begin with an
    environment variable; warns of those that lead out of the folder.

    trust: whether code that it names may be run, see `ModelPlan`.
    Errors: ValueError that names the file and what is wrong in it.
    """
    file = Path(path)
    if not trust:
        refuse_code(read_toml(file), file)
    with finding(file, found_from) as find:
        plan = parsed_plan(file, find)
    return replace(plan, model=replace(plan.model, named_in=str(file), trust=trust))


def parsed_plan(file: Path, find: Callable[[str], str]) -> EvaluatePlan:
    """The same, of which nothing is to be run. find: what gives the paths in it."""
    table = read_toml(file)
    try:
        plan = from_table(EvaluatePlan, table)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from None
    # The digests are of another start; this one makes its own.
    plan = replace(plan, chosen="", network="", files="", outputs="")
    return _moved(plan, find)


def plan_toml(plan: EvaluatePlan, folder: Path) -> str:
    """The plan as the text of a TOML file in `folder`."""
    return tomli_w.dumps(to_table(_moved(plan, lambda name: relative(name, folder))))


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Those that a TOML file can hold."""
    return {key: v for key, v in settings.items() if isinstance(v, (str, int, float))}


def _moved(plan: EvaluatePlan, move: Callable[[str], str]) -> EvaluatePlan:
    """The plan with every path in it changed."""
    return replace(plan, data=move(plan.data), model=moved_network(plan.model, move))
