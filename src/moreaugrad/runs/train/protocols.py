"""Penalties by name, with their weights in order, and protocols with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

import torch

from moreaugrad.data.examples import Examples
from moreaugrad.models import LoadedModel
from moreaugrad.penalties import L1, ElasticNet, GroupL2, Penalty, SquaredL2
from moreaugrad.registry import choose
from moreaugrad.runs.config import of_type
from moreaugrad.runs.train.plan import ProtocolPlan, TrainPlan
from moreaugrad.score.checks import ForwardError
from moreaugrad.score.forward import forward
from moreaugrad.score.pixels import InputSpace
from moreaugrad.training import (
    PROTOCOLS,
    ConditionalGradient,
    Fast,
    GuidedPenalty,
    Harmonisation,
    Iterative,
    NormalisedAscent,
    ProjectedGradient,
    ProjectedMaximiser,
    PublishedHarmonisation,
    Update,
    build,
)
from moreaugrad.training.protocol import PenaltyProtocol, Protocol

PUBLISHED = "published"
"""A setting of `iterative`: true for the updates of the released code."""
UPDATES: dict[str, Callable[[], Update]] = {
    "conditional-gradient": ConditionalGradient,
    "projected-maximiser": ProjectedMaximiser,
    "projected-gradient": ProjectedGradient,
    "normalised-ascent": NormalisedAscent,
}


@dataclass(frozen=True)
class Named:
    """weights: what the numbers of `epsilon` are, in order; optional: what may follow them."""

    weights: tuple[str, ...]
    make: Callable[[ProtocolPlan], Penalty | GuidedPenalty]
    summary: str
    optional: tuple[str, ...] = ()


def _harmonisation(epsilon: float, floor: float = Harmonisation.floor) -> Harmonisation:
    # Maps that should not be blank were refused when the data were read.
    return Harmonisation(epsilon, floor=floor, blank=True)


PENALTIES = {
    "l1": Named(("epsilon",), lambda plan: L1(*plan.epsilon), "epsilon |g|_1"),
    "group": Named(
        ("epsilon",),
        lambda plan: GroupL2(plan.epsilon[0], size=plan.group, channels=plan.channels),
        "epsilon sum_S |g_S|_2 over square blocks",
    ),
    "elastic-net": Named(
        ("epsilon1", "epsilon2"),
        lambda plan: ElasticNet(*plan.epsilon),
        "epsilon1 |g|_1 + epsilon2 |g|_2^2",
    ),
    "squared-l2": Named(("epsilon",), lambda plan: SquaredL2(*plan.epsilon), "epsilon |g|_2^2"),
    "harmonisation": Named(
        ("epsilon",),
        lambda plan: _harmonisation(*plan.epsilon),
        "epsilon sum_i (max A - A_i + floor) g_i^2, A the attention map",
        optional=("floor",),
    ),
    "published-harmonisation": Named(
        ("epsilon",),
        lambda plan: PublishedHarmonisation(*plan.epsilon, blank=True),
        "the released heuristic, no penalty's maximiser",
    ),
}


def make_penalty(plan: ProtocolPlan) -> Penalty | GuidedPenalty | None:
    """Errors: ValueError for an unknown name and another number of weights."""
    if plan.penalty is None:
        if plan.epsilon:
            raise ValueError("epsilon: expected a penalty beside it (--penalty), got none")
        return None
    named = PENALTIES[choose("penalty", plan.penalty, PENALTIES)]
    least, most = len(named.weights), len(named.weights) + len(named.optional)
    if not least <= len(plan.epsilon) <= most:
        wanted = [*named.weights, *(f"perhaps {name}" for name in named.optional)]
        raise ValueError(
            f"epsilon: expected the numbers {', '.join(wanted)} of the penalty {plan.penalty}, got "
            f"{', '.join(f'{value:g}' for value in plan.epsilon) or 'none'}"
        )
    if not all(0 <= value < float("inf") for value in plan.epsilon):
        told = ", ".join(f"{value:g}" for value in plan.epsilon)
        raise ValueError(f"epsilon: expected finite numbers >= 0, got {told}")
    return named.make(plan)


def make_protocol(plan: TrainPlan, space: InputSpace) -> Protocol:
    """Errors: ValueError for an unknown name or setting, a penalty that is missing or not
    wanted."""
    chosen, penalty = plan.protocol, make_penalty(plan.protocol)
    kind = PROTOCOLS[choose("protocol", chosen.name, PROTOCOLS)]
    if kind.needs_penalty and penalty is None:
        raise ValueError(
            f"penalty: the protocol {chosen.name} needs one of {', '.join(PENALTIES)} "
            "(--penalty), got none"
        )
    if penalty is not None and not kind.needs_penalty:
        raise ValueError(
            f"penalty: the protocol {chosen.name} takes none, got {chosen.penalty}; a usual one "
            "with a penalty is --protocol fast"
        )
    hints = get_type_hints(kind.load()) | {"penalty": Any, "update": str, PUBLISHED: bool}
    given = {
        name: of_type(value, hints.get(name, Any), name) for name, value in chosen.settings.items()
    }
    settings: dict[str, Any] = {"space": space, "seed": plan.seed, **given}
    if "update" in settings:
        settings["update"] = UPDATES[choose("update", str(settings["update"]), UPDATES)]()
    if not settings.pop(PUBLISHED, False):
        return build(chosen.name, penalty, **settings)
    if chosen.name != "iterative" or not isinstance(penalty, (L1, GroupL2, ElasticNet)):
        raise ValueError(
            "published: expected the protocol iterative with the penalty l1, group or elastic-net, "
            f"got {chosen.name} with {chosen.penalty}"
        )
    # Unknown settings are told by the names of the class.
    build(chosen.name, penalty, **settings)
    return Iterative.published(penalty, **settings)


def check_attention(plan: ProtocolPlan, protocol: Protocol, examples: Examples) -> None:
    """Errors: ValueError for harmonisation with data that have no attention maps."""
    guided = isinstance(protocol, PenaltyProtocol) and isinstance(protocol.penalty, GuidedPenalty)
    if guided and not examples.has_attention:
        raise ValueError(
            f"penalty: {plan.penalty} expected attention maps beside the pictures, and "
            f"{examples.name} has none"
        )


def check_fits(model: LoadedModel, protocol: Protocol, size: int) -> None:
    """Errors: ValueError where the network does not take colour pictures of this size or does not
    give a row of numbers for each, and for groups that do not fit into them."""
    if len(model.preprocess.mean) != 3:
        raise ValueError(f"{model.name}: expected a network of colour pictures, got one of grey")
    weight = next(model.module.parameters())
    x = torch.zeros(2, 3, size, size, dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            output = forward(model.module, x)
    except ForwardError as error:
        raise ValueError(
            f"size: {model.name} does not take pictures of {size} x {size} pixels "
            f"({str(error).splitlines()[0]})"
        ) from error
    if output.ndim != 2 or output.shape[1] < 2:
        raise ValueError(
            f"{model.name}: expected a classifier with an output [B, classes], got "
            f"{tuple(output.shape)} for two pictures"
        )
    if isinstance(protocol, PenaltyProtocol) and isinstance(protocol.penalty, Penalty):
        protocol.penalty.maximiser(x)


def one_step(protocol: Protocol) -> Fast | None:
    """The perturbation of the protocol's penalty, in the protocol's budget; None without one."""
    if not isinstance(protocol, PenaltyProtocol):
        return None
    return Fast(
        protocol.penalty, units=protocol.units, space=protocol.space, box=protocol.box,
        seed=protocol.seed,
    )  # fmt: skip
