"""Training of networks, in a folder from which it resumes."""

from moreaugrad.runs.train.run import TrainRun

__all__ = ["TrainRun"]
