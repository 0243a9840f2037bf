"""The plan that needs nothing from outside."""

from __future__ import annotations

from importlib.resources import as_file, files

from moreaugrad.runs.plans.explain import ExplainPlan
from moreaugrad.runs.plans.toml import read_plan


def demo_plan() -> ExplainPlan:
    """Synthetic cells through the built-in networks; see `demo.toml`."""
    with as_file(files("moreaugrad.runs").joinpath("demo.toml")) as path:
        return read_plan(ExplainPlan, path)
