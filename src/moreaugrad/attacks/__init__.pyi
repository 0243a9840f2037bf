from .base import Attack as Attack
from .catalogue import ATTACKS as ATTACKS, build as build
from .gaussian import GaussianNoiseAttack as GaussianNoiseAttack
from .gradient import (
    MassCentreAttack as MassCentreAttack,
    TargetRegionAttack as TargetRegionAttack,
    TopKAttack as TopKAttack,
)
from .manipulation import ManipulationAttack as ManipulationAttack
from .published import PublishedTopKAttack as PublishedTopKAttack
from .random_search import RandomSearch as RandomSearch
from .result import AttackResult as AttackResult, AttackStatus as AttackStatus
