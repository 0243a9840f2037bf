"""What `evaluate` is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from moreaugrad.attacks import ATTACKS
from moreaugrad.runs.plans.maps import CLEAN, METRICS_HELP, MapsPlan, read_attacks, read_metrics
from moreaugrad.runs.plans.option import Settings, option

OF_DATA = "data"
"""As `labels` of the published attack: the data set's classes."""
USUAL: Mapping[str, Settings] = {
    name: {} for name in ("normalised-distance", "top-k", "ssim", "gini", "zeros")
}


@dataclass(frozen=True, kw_only=True)
class EvaluatePlan(MapsPlan):
    """images x methods, and each of these under every attack at every budget.

    An attack has, besides the settings of its class: `epsilons` of its own; `over`, the setting
    that these are values of, instead of epsilon (sigma of Gaussian noise); `source`, the label or
    name of the method that its steps are computed on; `surrogate`, the beta of a softplus network
    for these steps; `through` may be a list, of which each method takes the first that it has.
    `labels = "data"` gives the published attack the data set's classes.
    epsilons: the budgets of the other attacks; norm, units: of all attacks that are not given their
    own. A metric that asks the network has `score`: which one, or "explained" for that of each
    method. maps: for how many images maps are kept; None is all.
    """

    GROUP: ClassVar[str] = "Evaluation"
    PARTS: ClassVar[tuple[str, ...]] = ("methods", "metrics", "attacks")

    metrics: Mapping[str, Settings] = option(
        USUAL, METRICS_HELP, read=read_metrics, shown=", ".join(USUAL)
    )  # fmt: skip
    attacks: Mapping[str, Settings] = option(
        {}, "[LABEL=]NAME[:SETTING=VALUE,...]: an attack (top-k, mass-centre, gaussian, ...). "
        "Settings besides its own: source=METHOD, surrogate=BETA, epsilons=[...], over=SETTING.",
        "--attack", read=read_attacks, repeated=True,
    )  # fmt: skip
    epsilons: tuple[float, ...] = option((), "Budgets of the attacks, separated by commas.")
    norm: str | None = option(None, "Norm of the budgets: l2 or linf.", shown="l2")
    units: str | None = option(
        None, "Units of the budgets: input (after the preprocessing) or pixel (0 to 1).",
        shown="input",
    )  # fmt: skip
    maps: int | None = option(None, "Number of images whose maps are kept.", shown="all")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maps is not None and self.maps < 0:
            raise ValueError(f"maps: expected at least 0, got {self.maps}")
        if CLEAN in self.attacks:
            raise ValueError(f"attacks: expected another label, {CLEAN!r} is the map without one")
        for label in self.attacks:
            self.budgets(label)

    def budgets(self, attack: str) -> tuple[float | None, ...]:
        """The epsilons of an attack; (None,) for one that needs none and has none.

        Errors: ValueError where there are none.
        """
        given = self.attacks[attack]
        kind = ATTACKS[str(given.get("attack", attack))]
        found = given.get("epsilons", self.epsilons)
        values = tuple(found) if isinstance(found, (list, tuple)) else (found,)
        if not values and not kind.load().needs_epsilon:
            return (None,)
        if not values or not all(type(v) in (int, float) and v >= 0 for v in values):
            raise ValueError(
                f"epsilons: expected numbers >= 0 for the attack {attack}, got "
                f"{list(values) or 'none'}"
            )
        return tuple(sorted({float(value) for value in values}))
