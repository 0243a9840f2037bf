"""The job that needs nothing from outside."""

from __future__ import annotations

from importlib.resources import as_file, files

from moreaugrad.runs.config import read_job
from moreaugrad.runs.job import Job


def demo_job() -> Job:
    """Synthetic cells through the built-in networks; see `demo.toml`."""
    with as_file(files("moreaugrad.runs").joinpath("demo.toml")) as path:
        return read_job(path)
