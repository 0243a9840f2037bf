from .base import Attack as Attack
from .catalogue import ATTACKS as ATTACKS, build as build
from .descent import (
    MassCentreAttack as MassCentreAttack,
    TargetRegionAttack as TargetRegionAttack,
    TopKAttack as TopKAttack,
)
from .gradient_free import (
    GaussianNoiseAttack as GaussianNoiseAttack,
    RandomSearch as RandomSearch,
)
from .manipulation import ManipulationAttack as ManipulationAttack
from .published import PublishedTopKAttack as PublishedTopKAttack
from .result import AttackResult as AttackResult, AttackStatus as AttackStatus
