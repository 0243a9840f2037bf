"""Attacks on explanations: inputs near x, of the same class, with another map.

A new attack is one class and one row here; the command line and the documentation's tables read
the rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from moreaugrad.registry import check_settings, choose

if TYPE_CHECKING:
    from moreaugrad.attacks.base import Attack
    from moreaugrad.attacks.gaussian import GaussianNoise
    from moreaugrad.attacks.gradient import MassCentreAttack, TargetRegionAttack, TopKAttack
    from moreaugrad.attacks.manipulation import ManipulationAttack
    from moreaugrad.attacks.published import PublishedTopKAttack
    from moreaugrad.attacks.random_search import RandomSearch
    from moreaugrad.attacks.result import AttackResult, AttackStatus
    from moreaugrad.explainers.base import Explainer

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackResult",
    "AttackStatus",
    "GaussianNoise",
    "Kind",
    "ManipulationAttack",
    "MassCentreAttack",
    "PublishedTopKAttack",
    "RandomSearch",
    "TargetRegionAttack",
    "TopKAttack",
    "build",
]

GHORBANI = "Ghorbani et al. (2019), arXiv 1710.10547"


@dataclass(frozen=True)
class Kind:
    """A row of the registry: where the class is."""

    target: str
    summary: str
    paper: str

    def load(self) -> type[Attack]:
        module, name = self.target.split(":")
        found: type[Attack] = getattr(importlib.import_module(module), name)
        return found

    def defaults(self) -> dict[str, Any]:
        """Every setting with its default, the explainer left out."""
        return {item.name: item.default for item in fields(self.load())[1:]}


_HERE = "moreaugrad.attacks."

ATTACKS: Mapping[str, Kind] = {
    "top-k": Kind(
        _HERE + "gradient:TopKAttack",
        "takes the map's magnitude off its largest entries",
        GHORBANI,
    ),
    "mass-centre": Kind(
        _HERE + "gradient:MassCentreAttack",
        "moves the centre of the map's magnitude",
        GHORBANI,
    ),
    "target-region": Kind(
        _HERE + "gradient:TargetRegionAttack",
        "draws the map's magnitude into a region",
        GHORBANI,
    ),
    "manipulation": Kind(
        _HERE + "manipulation:ManipulationAttack",
        "makes the map look like a given one",
        "Dombrowski et al. (2019), arXiv 1906.07983",
    ),
    "gaussian": Kind(
        _HERE + "gaussian:GaussianNoise",
        "Gaussian noise",
        "baseline",
    ),
    "random-search": Kind(
        _HERE + "random_search:RandomSearch",
        "top-k without any gradient: random points on the sphere",
        "baseline",
    ),
    "published-top-k": Kind(
        _HERE + "published:PublishedTopKAttack",
        "the MoreauGrad paper's attack as released, for comparison",
        "Zhang and Farnia (2023), arXiv 2302.05294",
    ),
}


def build(name: str, explainer: Explainer, **settings: Any) -> Attack:
    """The attack of that name. Errors: ValueError for an unknown name or setting, and a
    value of another type."""
    kind = ATTACKS[choose("attack", name, ATTACKS)]
    check_settings(name, list(kind.defaults()), get_type_hints(kind.load()), settings)
    return kind.load()(explainer, **settings)


# Loaded when first used, so that the names above can be listed without torch.
_HOMES = {kind.target.split(":")[1]: kind.target.split(":")[0] for kind in ATTACKS.values()} | {
    "Attack": _HERE + "base",
    "AttackResult": _HERE + "result",
    "AttackStatus": _HERE + "result",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
