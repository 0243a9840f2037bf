"""What a training would take: a short timing of real steps."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from moreaugrad.runs.estimate import Cost, Estimate
from moreaugrad.runs.network import fixed_threads
from moreaugrad.runs.train.prepare import PreparedTrain
from moreaugrad.training.loop import Trainer

TIMED = 4


@dataclass(frozen=True, kw_only=True)
class TrainEstimate(Estimate):
    """batches: of the whole training. updates, passes: of the weights and forward, in each.
    seconds: without the measuring of each epoch."""

    batches: int
    updates: float
    passes: float

    def words(self, duration: Callable[[float], str]) -> str:
        return (
            f"{self.batches} batches, {self.updates:g} updates of the weights and {self.passes:g} "
            f"passes in each: {duration(self.seconds)}, and the measuring of each epoch"
        )


def estimate_train(prepared: PreparedTrain, trainer: Trainer) -> TrainEstimate:
    """Takes a few steps, whose weights are thrown away; nothing is written."""
    plan, pieces = prepared.plan, list(prepared.protocols)
    counts, times = Counter[str](), []
    hooks = [
        prepared.module.register_forward_hook(lambda *_: counts.update(["passes"])),
        prepared.optimiser.register_step_post_hook(lambda *_: counts.update(["updates"])),
    ]
    try:
        with fixed_threads(plan.threads):
            began = time.perf_counter()
            batches = prepared.loader.pieces(0, pieces, plan.shards or 1)
            for number, parts in enumerate(islice(batches, TIMED)):
                found = [prepared.piece(n, part) for n, part in zip(pieces, parts, strict=True)]
                trainer.step(found, count=plan.batch, step=number)
                times.append(time.perf_counter() - began)
                began = time.perf_counter()
    finally:
        for hook in hooks:
            hook.remove()
    passes = counts["passes"] / len(times) / len(pieces)
    # The first one warms up.
    each = statistics.median(times[1:] or times)
    steps, most = prepared.steps, math.ceil(passes)
    return TrainEstimate(
        inputs=len(prepared.training), seconds_per_evaluation=each / passes,
        costs=(Cost(key="training", maps=steps, evaluations=most, seconds=steps * each),),
        batches=steps, updates=counts["updates"] / len(times), passes=passes,
    )  # fmt: skip
