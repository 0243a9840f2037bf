"""Training protocols by name. A new one is one class and one row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moreaugrad.registry import Registry, Row

if TYPE_CHECKING:
    from moreaugrad.penalties import Penalty
    from moreaugrad.training.harmonisation import GuidedPenalty
    from moreaugrad.training.protocol import PerturbingProtocol, Protocol

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


def perturbing(
    penalty: Penalty | GuidedPenalty | None, protocol: str | Protocol
) -> PerturbingProtocol:
    """The protocol of a trainer's steps: the one of that name with the penalty, or the given one.

    Errors: ValueError for a penalty with a protocol that has its own, and for a protocol that does
    not perturb the batch of one step.
    """
    from moreaugrad.training.protocol import PerturbingProtocol

    if not isinstance(protocol, str) and penalty is not None:
        raise ValueError("penalty: expected none with a protocol that has its own, or its name")
    found = build(protocol, penalty) if isinstance(protocol, str) else protocol
    if not isinstance(found, PerturbingProtocol):
        raise ValueError(
            "protocol: expected one that perturbs the batch of one step, such as 'fast', got "
            f"{type(found).__name__}, which updates the weights several times or computes the loss "
            "itself: call its rounds() in a training step of your own"
        )
    return found
