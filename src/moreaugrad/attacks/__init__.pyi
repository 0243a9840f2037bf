from .base import Attack as Attack, AttackResult as AttackResult
from .baselines import (
    GaussianNoiseAttack as GaussianNoiseAttack,
    PublishedTopKAttack as PublishedTopKAttack,
    RandomSearch as RandomSearch,
)
from .catalogue import ATTACKS as ATTACKS, build as build
from .descent import (
    MassCentreAttack as MassCentreAttack,
    TargetRegionAttack as TargetRegionAttack,
    TopKAttack as TopKAttack,
)
from .manipulation import ManipulationAttack as ManipulationAttack
from .matched import MatchedAttack as MatchedAttack
from .problem import AttackStatus as AttackStatus
