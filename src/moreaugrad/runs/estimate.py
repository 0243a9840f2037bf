"""What a job would cost: a short timing of real passes, times the evaluations it takes at most."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from torch import Tensor

from moreaugrad.explainers.base import Explainer
from moreaugrad.runs.network import fixed_threads
from moreaugrad.runs.prepare import Prepared
from moreaugrad.runs.variants import Variant
from moreaugrad.score.chunks import Chunks
from moreaugrad.score.readout import TargetLike
from moreaugrad.score.score import Score

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


def estimate(prepared: Prepared) -> Estimate:
    """Times full passes of the first input; nothing is written."""

    def cost(variant: Variant, each: float) -> Cost:
        maps = sum(variant in prepared.wanted(case) for case in prepared.cases)
        most = variant.explainer.budget()
        return Cost(key=variant.key, maps=maps, evaluations=most, seconds=maps * most * each)

    costs = []
    with fixed_threads(prepared.network.compute.threads):
        for one in prepared.subjects:
            explainer = one.variants[0].explainer
            each = seconds_per_evaluation(explainer, one.first, one.target)
            costs += [cost(variant, each) for variant in one.variants]
    total = sum(cost.maps * cost.evaluations for cost in costs)
    return Estimate(
        inputs=len(prepared.cases),
        seconds_per_evaluation=sum(cost.seconds for cost in costs) / total,
        costs=tuple(costs),
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
