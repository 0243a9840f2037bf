"""Penalties by name, with their weights in order, and protocols with them."""

from __future__ import annotations

from moreaugrad.data.examples import Examples
from moreaugrad.runs.train.plan import TrainPlan
from moreaugrad.space import InputSpace
from moreaugrad.training.protocol import Protocol


def make_protocol(plan: TrainPlan, space: InputSpace, examples: Examples) -> Protocol:
    """Errors: ValueError for an unknown name or setting, and for weights that do not fit."""
    return Plain()
