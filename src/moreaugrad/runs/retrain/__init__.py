"""Studies that train networks again and again: DiffROAR, stability, permuted labels."""

from moreaugrad.runs.retrain.diffroar import DiffRoarRun
from moreaugrad.runs.retrain.pairs import LabelsRun, StabilityRun

__all__ = ["DiffRoarRun", "LabelsRun", "StabilityRun"]
