"""Robustness, sparsity and faithfulness of maps over a data set, in a directory of records."""

from moreaugrad.runs.evaluate.cost import estimate_evaluate
from moreaugrad.runs.evaluate.plan import EvaluatePlan, read_plan
from moreaugrad.runs.evaluate.prepare import PreparedEvaluate, prepare_evaluate
from moreaugrad.runs.evaluate.work import EvaluateOutcome, run_evaluate
from moreaugrad.runs.team import Team, team

__all__ = [
    "EvaluateOutcome",
    "EvaluatePlan",
    "PreparedEvaluate",
    "Team",
    "estimate_evaluate",
    "prepare_evaluate",
    "read_plan",
    "run_evaluate",
    "team",
]
