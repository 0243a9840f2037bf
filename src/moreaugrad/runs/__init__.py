"""Jobs: pictures through explainers into maps, records and one page."""

from moreaugrad.runs.config import job_toml, read_job
from moreaugrad.runs.demo import demo_job
from moreaugrad.runs.estimate import Cost, Estimate, estimate
from moreaugrad.runs.job import BesidePlan, CellsPlan, ComputePlan, Job, ModelPlan, SweepPlan
from moreaugrad.runs.pace import Watch
from moreaugrad.runs.prepare import Prepared, prepare
from moreaugrad.runs.run import Outcome, run

__all__ = [
    "BesidePlan",
    "CellsPlan",
    "ComputePlan",
    "Cost",
    "Estimate",
    "Job",
    "ModelPlan",
    "Outcome",
    "Prepared",
    "SweepPlan",
    "Watch",
    "demo_job",
    "estimate",
    "job_toml",
    "prepare",
    "read_job",
    "run",
]
