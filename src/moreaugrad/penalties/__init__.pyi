from .base import Penalty as Penalty, Weight as Weight, Zero as Zero
from .catalogue import PENALTIES as PENALTIES, build as build
from .groups import GroupL2 as GroupL2
from .separable import (
    L1 as L1,
    Box as Box,
    ElasticNet as ElasticNet,
    SquaredL2 as SquaredL2,
    WeightedL2 as WeightedL2,
)
