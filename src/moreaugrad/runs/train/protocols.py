"""The protocol of a plan, with its penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from moreaugrad.data.examples import Examples
from moreaugrad.models import LoadedModel
from moreaugrad.penalties import L1, PENALTIES, ElasticNet, GroupL2, Penalty
from moreaugrad.penalties import build as build_penalty
from moreaugrad.penalties.catalogue import TRAINING
from moreaugrad.registry import choose
from moreaugrad.runs.plans.toml import of_type
from moreaugrad.runs.plans.train import ProtocolPlan, TrainPlan
from moreaugrad.score.checks import ForwardError
from moreaugrad.score.forward import forward
from moreaugrad.score.inputs import InputSpace
from moreaugrad.training import (
    PROTOCOLS,
    ConditionalGradient,
    GuidedPenalty,
    Iterative,
    NormalisedAscent,
    ProjectedGradient,
    ProjectedMaximiser,
    Update,
    build,
)
from moreaugrad.training.penalty import PenaltyProtocol
from moreaugrad.training.protocol import Protocol

PUBLISHED = "published"
"""A setting of `iterative`: true for the updates of the released code."""
UPDATES: dict[str, Callable[[], Update]] = {
    "conditional-gradient": ConditionalGradient,
    "projected-maximiser": ProjectedMaximiser,
    "projected-gradient": ProjectedGradient,
    "normalised-ascent": NormalisedAscent,
}


def make_penalty(plan: ProtocolPlan) -> Penalty | GuidedPenalty | None:
    """Errors: ValueError for an unknown name and another number of weights."""
    if plan.penalty is None:
        if plan.epsilon:
            raise ValueError("epsilon: expected a penalty with it (--penalty), got none")
        return None
    if plan.penalty in PENALTIES and plan.penalty not in TRAINING:
        raise ValueError(
            f"penalty: expected one of {', '.join(TRAINING)}, got {plan.penalty}, which is a "
            "penalty of maps alone"
        )
    known = PENALTIES[plan.penalty].defaults()
    blocks = {"size": plan.group, "channels": plan.channels}
    settings = {name: value for name, value in blocks.items() if name in known}
    if "blank" in known:
        # Maps that should not be blank were refused when the data were read.
        settings["blank"] = True
    found: Penalty | GuidedPenalty = build_penalty(plan.penalty, *plan.epsilon, **settings)
    return found


def make_protocol(plan: TrainPlan, space: InputSpace) -> Protocol:
    """Errors: ValueError for an unknown name or setting, a penalty that is missing or not
    wanted."""
    chosen, penalty = plan.protocol, make_penalty(plan.protocol)
    wanted = "penalty" in PROTOCOLS[chosen.name].needs()
    if wanted and penalty is None:
        raise ValueError(
            f"penalty: the protocol {chosen.name} needs one of {', '.join(TRAINING)} "
            "(--penalty), got none"
        )
    if penalty is not None and not wanted:
        raise ValueError(
            f"penalty: the protocol {chosen.name} takes none, got {chosen.penalty}; a usual one "
            "with a penalty is --protocol fast"
        )
    hints = {**PROTOCOLS[chosen.name].hints(), "update": str, PUBLISHED: bool}
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
    # Unknown settings are reported by the names of the class.
    build(chosen.name, penalty, **settings)
    return Iterative.published(penalty, **settings)


def check_attention(plan: ProtocolPlan, protocol: Protocol, examples: Examples) -> None:
    """Errors: ValueError for harmonisation with data that have no attention maps."""
    guided = isinstance(protocol, PenaltyProtocol) and isinstance(protocol.penalty, GuidedPenalty)
    if guided and not examples.has_attention:
        raise ValueError(
            f"penalty: {plan.penalty} expected attention maps with the images, and "
            f"{examples.name} has none"
        )


def check_fits(model: LoadedModel, protocol: Protocol, size: int) -> None:
    """Errors: ValueError where the network does not take colour images of this size or does not
    give a row of numbers for each, and for groups that do not fit into them."""
    if len(model.preprocess.mean) != 3:
        raise ValueError(f"{model.name}: expected a network of colour images, got one of grey")
    weight = next(model.module.parameters())
    x = torch.zeros(2, 3, size, size, dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            output = forward(model.module, x)
    except ForwardError as error:
        raise ValueError(
            f"size: {model.name} does not take images of {size} x {size} pixels "
            f"({str(error).splitlines()[0]})"
        ) from error
    if output.ndim != 2 or output.shape[1] < 2:
        raise ValueError(
            f"{model.name}: expected a classifier with an output [B, classes], got "
            f"{tuple(output.shape)} for two images"
        )
    if isinstance(protocol, PenaltyProtocol) and isinstance(protocol.penalty, Penalty):
        protocol.penalty.maximiser(x)
