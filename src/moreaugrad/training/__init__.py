"""Training whose networks have sparse gradients: the protocols that perturb a batch.

A new protocol is one class and one row here; the command line and the documentation's tables read
the rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from moreaugrad.registry import check_settings, choose

if TYPE_CHECKING:
    from moreaugrad.penalties import Penalty
    from moreaugrad.training.baselines import GaussianNoise, Plain
    from moreaugrad.training.fast import Fast
    from moreaugrad.training.free import Free
    from moreaugrad.training.harmonisation import (
        GuidedPenalty,
        Harmonisation,
        PublishedHarmonisation,
    )
    from moreaugrad.training.iterative import Iterative, Momentum
    from moreaugrad.training.losses import LOSSES, PerSampleLoss, cross_entropy, hinge
    from moreaugrad.training.penalised import Penalised
    from moreaugrad.training.protocol import (
        Adversary,
        OvershootWarning,
        Perturbation,
        Protocol,
        Round,
    )
    from moreaugrad.training.updates import (
        ConditionalGradient,
        NormalisedAscent,
        ProjectedGradient,
        ProjectedMaximiser,
        Update,
    )

__all__ = [
    "LOSSES",
    "PROTOCOLS",
    "Adversary",
    "ConditionalGradient",
    "Fast",
    "Free",
    "GaussianNoise",
    "GuidedPenalty",
    "Harmonisation",
    "Iterative",
    "Kind",
    "Momentum",
    "NormalisedAscent",
    "OvershootWarning",
    "Penalised",
    "PerSampleLoss",
    "Perturbation",
    "Plain",
    "ProjectedGradient",
    "ProjectedMaximiser",
    "Protocol",
    "PublishedHarmonisation",
    "Round",
    "Update",
    "build",
    "cross_entropy",
    "hinge",
]


@dataclass(frozen=True)
class Kind:
    """A row of the registry: where the class is."""

    target: str
    summary: str
    needs_penalty: bool = True

    def load(self) -> type[Protocol]:
        module, name = self.target.split(":")
        found: type[Protocol] = getattr(importlib.import_module(module), name)
        return found

    def defaults(self) -> dict[str, Any]:
        """Every setting with its default, the penalty left out."""
        known = (item for item in fields(self.load()) if item.init and item.name != "penalty")
        return {
            item.name: item.default if item.default_factory is MISSING else item.default_factory()
            for item in known
        }


_HERE = "moreaugrad.training."

PROTOCOLS: Mapping[str, Kind] = {
    "fast": Kind(_HERE + "fast:Fast", "one step to the linearised maximum"),
    "iterative": Kind(_HERE + "iterative:Iterative", "several steps on the inner problem"),
    "momentum": Kind(_HERE + "iterative:Momentum", "steps along an average of gradients"),
    "free": Kind(_HERE + "free:Free", "each batch several times, one pass an update"),
    "penalised": Kind(_HERE + "penalised:Penalised", "the penalty, by double backward"),
    "gaussian-noise": Kind(
        _HERE + "baselines:GaussianNoise", "noise on the input", needs_penalty=False
    ),
    "plain": Kind(_HERE + "baselines:Plain", "the loss alone", needs_penalty=False),
}


def build(name: str, penalty: Penalty | GuidedPenalty | None = None, **settings: Any) -> Protocol:
    """The protocol of that name. Errors: ValueError for an unknown name or setting, and a
    value of another type."""
    kind = PROTOCOLS[choose("protocol", name, PROTOCOLS)]
    check_settings(name, list(kind.defaults()), get_type_hints(kind.load()), settings)
    if kind.needs_penalty != (penalty is not None):
        wanted = "a penalty" if kind.needs_penalty else "no penalty"
        raise ValueError(f"penalty: {name} takes {wanted}, got {penalty!r}")
    given: dict[str, Any] = {"penalty": penalty} if kind.needs_penalty else {}
    return kind.load()(**given, **settings)


# Loaded when first used, so that the names above can be listed without torch.
_HOMES = {kind.target.split(":")[1]: kind.target.split(":")[0] for kind in PROTOCOLS.values()} | {
    name: _HERE + home
    for home, names in {
        "harmonisation": ("GuidedPenalty", "Harmonisation", "PublishedHarmonisation"),
        "losses": ("LOSSES", "PerSampleLoss", "cross_entropy", "hinge"),
        "protocol": ("Adversary", "OvershootWarning", "Perturbation", "Protocol", "Round"),
        "updates": (
            "ConditionalGradient",
            "NormalisedAscent",
            "ProjectedGradient",
            "ProjectedMaximiser",
            "Update",
        ),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
