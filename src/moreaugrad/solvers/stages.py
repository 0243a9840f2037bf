"""What an iterative solver has so far, for those who look at it while it works."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from torch import Tensor

from moreaugrad.solvers.solution import Collector, Solution, Status

Ended = tuple[Solution, Tensor]
"""A solution, and the variable `[B, n]` whose prox it is."""
Stages = Generator[Callable[[], Ended], None, Ended]
"""What the active samples would have if the evaluations ended here, computed only where it is
called, before the next one; at last the solution."""


def last(stages: Stages) -> Ended:
    """The solution; what comes before is not computed."""
    while True:
        try:
            next(stages)
        except StopIteration as end:
            found: Ended = end.value
            return found


def stage(status: Sequence[Status], record: Callable[[], dict[str, Any]], mean: Tensor) -> Ended:
    """The active samples as they are now."""
    out = Collector(mean)
    out.close(status, **record())
    return out.solution(), mean
