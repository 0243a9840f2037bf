from .base import (
    DifferentiablePenalty as DifferentiablePenalty,
    Penalty as Penalty,
    SparsePenalty as SparsePenalty,
    Weight as Weight,
    Zero as Zero,
)
from .box import Box as Box
from .catalogue import PENALTIES as PENALTIES, build as build
from .group import GroupL2 as GroupL2
from .l1 import L1 as L1
from .quadratic import ElasticNet as ElasticNet, SquaredL2 as SquaredL2, WeightedL2 as WeightedL2
