"""Penalties by name. A new one is one class and one row here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moreaugrad.registry import Registry, Row

ADVGRAD = "Gong, Dou and Farnia (2024), AdvGrad"


PENALTIES = Registry(
    "penalty",
    {
        "l1": Row("moreaugrad.penalties.separable:L1", "eta |g|_1", ADVGRAD),
        "group": Row(
            "moreaugrad.penalties.groups:GroupL2", "eta sum_S |g_S|_2 over square blocks", ADVGRAD,
        ),
        "elastic-net": Row(
            "moreaugrad.penalties.separable:ElasticNet", "l1 |g|_1 + l2 |g|_2^2", ADVGRAD,
        ),
        "squared-l2": Row(
            "moreaugrad.penalties.separable:SquaredL2", "weight |g|_2^2",
            "Drucker and LeCun (1992)",
        ),
        "weighted-l2": Row(
            "moreaugrad.penalties.separable:WeightedL2",
            "sum_i w_i g_i^2, a table with a weight for each entry", ADVGRAD,
        ),
        "box": Row(
            "moreaugrad.penalties.separable:Box", "0 between two bounds, infinite elsewhere"
        ),
        "harmonisation": Row(
            "moreaugrad.training.harmonisation:Harmonisation",
            "epsilon sum_i (max A - A_i + floor) g_i^2, A the attention map", ADVGRAD,
        ),
        "published-harmonisation": Row(
            "moreaugrad.training.harmonisation:PublishedHarmonisation",
            "the released heuristic, no penalty's maximiser", ADVGRAD,
        ),
        "zero": Row("moreaugrad.penalties.base:Zero", "0, without weights"),
    },
    ["moreaugrad.penalties.base:Penalty", "moreaugrad.training.harmonisation:GuidedPenalty"],
)  # fmt: skip
"""All penalties by name; `PENALTIES[name].load()` is the class."""

TRAINING = tuple(name for name in PENALTIES if name not in ("weighted-l2", "box"))
"""Penalties of a network's gradient in training: finite, with the same weights for all entries."""


def build(name: str, *weights: float, **settings: Any) -> Any:
    """The penalty of that name, or of your own `package.module:Class`, with these weights.

    >>> penalty = mg.penalties.build("elastic-net", 0.01, 0.05)

    weights: the class's required arguments in order, then its settings that are floats.
    Errors: ValueError for an unknown name or setting, another number of weights, and weights that
    the penalty does not take.
    """
    row = PENALTIES[name]
    needed = row.needs()
    optional = [key for key, value in row.defaults().items() if isinstance(value, float)]
    if not len(needed) <= len(weights) <= len(needed) + len(optional):
        wanted = [*needed, *(f"[{name}]" for name in optional)]
        raise ValueError(
            f"penalty {name}: expected the numbers {', '.join(wanted) or 'none'}, "
            f"got {', '.join(f'{value:g}' for value in weights) or 'none'}"
        )
    more = dict(zip(optional, weights[len(needed) :], strict=False))
    return PENALTIES.build(name, *weights[: len(needed)], **more, **settings)


def read(text: str | Mapping[str, Any]) -> Any:
    """The penalty of a configuration or a command line.

    text: a name and its weights, as in "elastic-net 0.01 0.05", or a table of the name and the
    fields, as in {name = "group", eta = 1.0, size = 4}, the form of `Explainer.settings`.
    Errors: ValueError, as for `build`.
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
    """The name of a penalty in `PENALTIES`; `package.module:Class` for a class without a row."""
    target = f"{type(penalty).__module__}:{type(penalty).__qualname__}"
    return next((name for name, row in PENALTIES.items() if row.target == target), target)
