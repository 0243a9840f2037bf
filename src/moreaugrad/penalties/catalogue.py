"""Penalties by name. A new one is one class and one row here."""

from __future__ import annotations

import dataclasses
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
            "moreaugrad.penalties.group:GroupL2", "eta sum_S |g_S|_2 over square blocks", ADVGRAD,
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
    },
    ["moreaugrad.penalties.base:Penalty", "moreaugrad.training.harmonisation:GuidedPenalty"],
)  # fmt: skip


def build(name: str, *weights: float, **settings: Any) -> Any:
    """The penalty of that name, or of a `package.module:Class` of your own, with these weights.

        mg.penalties.build("elastic-net", 0.01, 0.05)

    weights: what the class has no default for, in order, and then the row's `optional` settings.
    Errors: ValueError for an unknown name or setting, another number of weights, and weights that
    are not finite and >= 0.
    """
    row = PENALTIES[name]
    needed = row.needs()
    if not len(needed) <= len(weights) <= len(needed) + len(row.optional):
        wanted = [*needed, *(f"perhaps {name}" for name in row.optional)]
        raise ValueError(
            f"epsilon: expected the numbers {', '.join(wanted) or 'none'} of the penalty {name}, "
            f"got {', '.join(f'{value:g}' for value in weights) or 'none'}"
        )
    if not all(0 <= value < float("inf") for value in weights):
        given = ", ".join(f"{value:g}" for value in weights)
        raise ValueError(f"epsilon: expected finite numbers >= 0, got {given}")
    more = dict(zip(row.optional, weights[len(needed) :], strict=False))
    return PENALTIES.build(name, *weights[: len(needed)], **more, **settings)
