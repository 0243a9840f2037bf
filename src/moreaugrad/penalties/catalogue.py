"""Penalties by name. A new one is one class and one row here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from moreaugrad.registry import Registry, Row

ADVGRAD = "Gong, Dou and Farnia (2024), AdvGrad"


@dataclasses.dataclass(frozen=True)
class NamedPenalty(Row):
    """A row of the registry. optional: settings that further numbers after the weights give."""

    optional: tuple[str, ...] = ()


PENALTIES = Registry(
    "penalty",
    {
        "l1": NamedPenalty("moreaugrad.penalties.separable:L1", "eta |g|_1", ADVGRAD),
        "group": NamedPenalty(
            "moreaugrad.penalties.groups:GroupL2", "eta sum_S |g_S|_2 over square blocks", ADVGRAD,
        ),
        "elastic-net": NamedPenalty(
            "moreaugrad.penalties.separable:ElasticNet", "l1 |g|_1 + l2 |g|_2^2", ADVGRAD,
        ),
        "squared-l2": NamedPenalty(
            "moreaugrad.penalties.separable:SquaredL2", "weight |g|_2^2",
            "Drucker and LeCun (1992)",
        ),
        "harmonisation": NamedPenalty(
            "moreaugrad.training.harmonisation:Harmonisation",
            "epsilon sum_i (max A - A_i + floor) g_i^2, A the attention map", ADVGRAD,
            optional=("floor",),
        ),
        "published-harmonisation": NamedPenalty(
            "moreaugrad.training.harmonisation:PublishedHarmonisation",
            "the released heuristic, no penalty's maximiser", ADVGRAD,
        ),
        "zero": NamedPenalty("moreaugrad.penalties.base:Zero", "0, without weights"),
    },
    ["moreaugrad.penalties.base:Penalty", "moreaugrad.training.harmonisation:GuidedPenalty"],
)  # fmt: skip
"""All penalties by name; `PENALTIES[name].load()` is the class."""


def build(name: str, *weights: float, **settings: Any) -> Any:
    """The penalty of that name, or of a `package.module:Class` of your own, with these weights.

    >>> penalty = mg.penalties.build("elastic-net", 0.01, 0.05)

    weights: what the class has no default for, in order, and then the row's `optional` settings.
    Errors: ValueError for an unknown name or setting, another number of weights, and weights that
    the penalty does not take.
    """
    row = PENALTIES[name]
    needed = row.needs()
    if not len(needed) <= len(weights) <= len(needed) + len(row.optional):
        wanted = [*needed, *(f"perhaps {name}" for name in row.optional)]
        raise ValueError(
            f"epsilon: expected the numbers {', '.join(wanted) or 'none'} of the penalty {name}, "
            f"got {', '.join(f'{value:g}' for value in weights) or 'none'}"
        )
    more = dict(zip(row.optional, weights[len(needed) :], strict=False))
    return PENALTIES.build(name, *weights[: len(needed)], **more, **settings)


def read(text: str | Mapping[str, Any]) -> Any:
    """The penalty of a configuration or a command line.

    Either a name and its weights, "elastic-net 0.01 0.05"; or a table of its name and its fields,
    {name = "group", eta = 1.0, size = 4}, as `Explainer.settings` has it.
    Errors: ValueError, as of `build`.
    """
    if isinstance(text, str):
        name, *numbers = text.split() or [""]
        try:
            return build(name, *map(float, numbers))
        except ValueError as error:
            raise ValueError(
                f"penalty: expected a name and its weights, got {text!r} ({error})"
            ) from error
    fields = dict(text)
    name = str(fields.pop("name", ""))
    weights = [fields.pop(need) for need in PENALTIES[name].needs() if need in fields]
    return build(name, *weights, **fields)


def name_of(penalty: object) -> str:
    """What a penalty is called here; of a class that has no row, `package.module:Class`."""
    target = f"{type(penalty).__module__}:{type(penalty).__qualname__}"
    return next((name for name, row in PENALTIES.items() if row.target == target), target)
