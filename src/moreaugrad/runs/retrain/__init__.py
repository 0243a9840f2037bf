"""Studies that train networks again and again: DiffROAR, stability, label randomisation."""

from moreaugrad.runs.retrain.diffroar import DiffRoarStudy
from moreaugrad.runs.retrain.pairs import LabelsStudy, PairStudy, StabilityStudy
from moreaugrad.runs.retrain.plan import DiffRoarPlan, LabelsPlan, StabilityPlan
from moreaugrad.runs.study import Study, StudyOutcome, run_study

__all__ = [
    "DiffRoarPlan",
    "DiffRoarStudy",
    "LabelsPlan",
    "LabelsStudy",
    "PairStudy",
    "StabilityPlan",
    "StabilityStudy",
    "Study",
    "StudyOutcome",
    "run_study",
]
