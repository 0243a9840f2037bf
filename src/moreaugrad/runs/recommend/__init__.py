"""Which explanation method suits a network: candidates measured within a given time."""

from moreaugrad.runs.recommend.run import RecommendRun

__all__ = ["RecommendRun"]
