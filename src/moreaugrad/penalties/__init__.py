"""Convex penalties: what makes a map sparse, and a perturbation structured."""

from moreaugrad.penalties.base import DifferentiablePenalty, Penalty, SparsePenalty, Weight, Zero
from moreaugrad.penalties.box import Box
from moreaugrad.penalties.group import GroupL2
from moreaugrad.penalties.l1 import L1
from moreaugrad.penalties.quadratic import ElasticNet, SquaredL2, WeightedL2

__all__ = [
    "Box",
    "DifferentiablePenalty",
    "ElasticNet",
    "GroupL2",
    "L1",
    "Penalty",
    "SparsePenalty",
    "SquaredL2",
    "Weight",
    "WeightedL2",
    "Zero",
]
