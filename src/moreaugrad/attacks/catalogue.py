"""Attacks by name. A new one is one class and one row here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moreaugrad.registry import Registry, Row

if TYPE_CHECKING:
    from moreaugrad.attacks.base import Attack
    from moreaugrad.attacks.objectives import Aim
    from moreaugrad.explainers.base import Explainer

GHORBANI = "Ghorbani et al. (2019), arXiv 1710.10547"
_HERE = "moreaugrad.attacks."
CLEAN = "clean"
"""The attack of a map without one, in records and names of tensors."""

ATTACKS = Registry(
    "attack",
    {
        "top-k": Row(
            _HERE + "descent:TopKAttack",
            "minimises D, the fraction of the map's magnitude on the clean map's k largest entries",
            GHORBANI,
        ),
        "matched": Row(
            _HERE + "matched:MatchedAttack",
            "makes a metric of the clean and the attacked map as bad as it can",
            GHORBANI,
        ),
        "mass-centre": Row(
            _HERE + "descent:MassCentreAttack",
            "moves the centre of the map's magnitude",
            GHORBANI,
        ),
        "target-region": Row(
            _HERE + "descent:TargetRegionAttack",
            "moves the map's magnitude into a region",
            GHORBANI,
        ),
        "manipulation": Row(
            _HERE + "manipulation:ManipulationAttack",
            "makes the map similar to a given one while the output stays",
            "Dombrowski et al. (2019), arXiv 1906.07983",
        ),
        "gaussian": Row(
            _HERE + "baselines:GaussianNoiseAttack",
            "adds Gaussian noise",
            "baseline",
        ),
        "random-search": Row(
            _HERE + "baselines:RandomSearch",
            "a metric made worse by random points on the sphere, without a gradient",
            "baseline",
        ),
        "published-top-k": Row(
            _HERE + "baselines:PublishedTopKAttack",
            "the MoreauGrad paper's attack as released, for comparison",
            "Zhang and Farnia (2023), arXiv 2302.05294",
        ),
    },
    [_HERE + "base:Attack"],
    group="moreaugrad.attacks",
)
"""All attacks by name; `ATTACKS[name].load()` is the class."""


def aim(name: str, settings: Mapping[str, Any]) -> Aim | None:
    """What the attack of that name is aimed at with these settings, see `Attack.aimed_at`."""
    row = ATTACKS[name]
    found: Aim | None = row.load().aimed_at(row.defaults() | dict(settings))
    return found


def build(name: str, explainer: Explainer, **settings: Any) -> Attack:
    """The attack of that name, or of your own `package.module:Class`, on an explainer's maps.

    >>> attack = mg.attacks.build("top-k", mg.SimpleGradient(model), epsilon=0.5, steps=10)
    >>> result = attack.attack(x)

    Errors: ValueError for an unknown name or setting, and a value of another type.
    """
    found: Attack = ATTACKS.build(name, explainer, **settings)
    return found
