"""Training of networks, in a directory from which it can go on."""

from moreaugrad.runs.train.cost import TrainEstimate, estimate_train
from moreaugrad.runs.train.plan import (
    DataPlan,
    NetworkPlan,
    OptimiserPlan,
    ProtocolPlan,
    TrainPlan,
    read_plan,
)
from moreaugrad.runs.train.prepare import Means, PreparedTrain, prepare_train
from moreaugrad.runs.train.work import TrainOutcome, run_train

__all__ = [
    "DataPlan",
    "Means",
    "NetworkPlan",
    "OptimiserPlan",
    "PreparedTrain",
    "ProtocolPlan",
    "TrainEstimate",
    "TrainOutcome",
    "TrainPlan",
    "estimate_train",
    "prepare_train",
    "read_plan",
    "run_train",
]
