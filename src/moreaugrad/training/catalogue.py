"""Training protocols by name. A new one is one class and one row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moreaugrad.registry import Registry, Row

if TYPE_CHECKING:
    from moreaugrad.penalties import Penalty
    from moreaugrad.training.harmonisation import GuidedPenalty
    from moreaugrad.training.protocol import Protocol

ADVGRAD = "Gong, Dou and Farnia (2024), AdvGrad"
_HERE = "moreaugrad.training."

PROTOCOLS = Registry(
    "protocol",
    {
        "fast": Row(_HERE + "adversaries:Fast", "one step to the linearised maximum", ADVGRAD),
        "iterative": Row(
            _HERE + "adversaries:Iterative", "several steps on the inner problem", ADVGRAD
        ),
        "momentum": Row(
            _HERE + "adversaries:Momentum", "steps along an average of gradients",
            "Dong et al. (2018), arXiv 1710.06081",
        ),
        "free": Row(
            _HERE + "adversaries:Free", "each batch several times, one pass an update",
            "Shafahi et al. (2019), arXiv 1904.12843",
        ),
        "penalised": Row(
            _HERE + "baselines:Penalised", "the penalty itself, by double backward", ADVGRAD
        ),
        "gaussian-noise": Row(_HERE + "baselines:GaussianNoise", "noise on the input", "baseline"),
        "plain": Row(_HERE + "baselines:Plain", "the loss alone", "baseline"),
    },
    [_HERE + "protocol:Protocol"],
)  # fmt: skip
"""All protocols by name; `PROTOCOLS[name].load()` is the class."""


def build(name: str, penalty: Penalty | GuidedPenalty | None = None, **settings: Any) -> Protocol:
    """The protocol of that name, or of your own `package.module:Class`.

    >>> protocol = mg.training.build("iterative", mg.L1(0.02), steps=3)

    Errors: ValueError for an unknown name or setting, a value of another type, and a penalty that
    is missing or not expected.
    """
    wanted = "penalty" in PROTOCOLS[name].needs()
    given = [] if penalty is None else [penalty]
    if wanted != bool(given):
        raise ValueError(
            f"penalty: {name} takes {'a' if wanted else 'no'} penalty, got {penalty!r}"
        )
    found: Protocol = PROTOCOLS.build(name, *given, **settings)
    return found
