"""What a run would cost: a short timing of real passes, times the evaluations it takes at most."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from moreaugrad.explainers.base import Explainer
from moreaugrad.score.forward import Chunks
from moreaugrad.score.score import Score
from moreaugrad.score.targets import TargetLike

TIMED = 3


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one method: maps, gradient evaluations of each at most, and seconds for all of them."""

    key: str
    maps: int
    evaluations: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """At most: methods that stop at a tolerance often take a quarter of it or less.

    seconds_per_evaluation: the mean where there are several networks.
    """

    inputs: int
    seconds_per_evaluation: float
    costs: tuple[Cost, ...]

    @property
    def evaluations(self) -> int:
        return sum(cost.maps * cost.evaluations for cost in self.costs)

    @property
    def seconds(self) -> float:
        return sum(cost.seconds for cost in self.costs)

    def words(self, duration: Callable[[float], str]) -> str:
        """The totals; duration: seconds in words."""
        return (
            f"{self.inputs} inputs, {self.evaluations} gradient evaluations at most, "
            f"{1000 * self.seconds_per_evaluation:.2g} ms each: {duration(self.seconds)} at most"
        )


def seconds_per_evaluation(explainer: Explainer, first: Tensor, target: TargetLike) -> float:
    """Of full passes of one input, `first` a batch of it alone."""
    flat = first.reshape(1, -1)
    size = min(16, Chunks.of(explainer.batch_size, flat).size)
    batch = first.expand(size, *first.shape[1:])
    score = Score(
        explainer.forward_func,
        kind=explainer.score,
        task=explainer.task,
        layer=explainer.layer,
        batch_size=size,
        check=explainer.check,
    )
    bound = score.bind(batch, target)
    bound.value_and_grad()
    times = []
    for _ in range(TIMED):
        began = time.perf_counter()
        bound.value_and_grad()[1].sum().item()  # waits for an accelerator
        times.append(time.perf_counter() - began)
    return statistics.median(times) / size
