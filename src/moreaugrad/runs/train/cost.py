"""What a training would take: a short timing of real steps."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from itertools import islice

from moreaugrad.runs.network import fixed_threads
from moreaugrad.runs.train.prepare import PreparedTrain
from moreaugrad.runs.train.work import make_trainer

TIMED = 4


@dataclass(frozen=True, kw_only=True)
class TrainEstimate:
    """batches: of the whole training. updates, passes: of the weights and forward, in each."""

    batches: int
    updates: float
    passes: float
    seconds_per_batch: float

    @property
    def seconds(self) -> float:
        """Without the judging of each epoch."""
        return self.batches * self.seconds_per_batch


def estimate_train(prepared: PreparedTrain) -> TrainEstimate:
    """Takes a few steps, whose weights are thrown away; nothing is written."""
    trainer, pieces = make_trainer(prepared), list(prepared.protocols)
    counts = {"passes": 0, "updates": 0}

    def passed(*_: object) -> None:
        counts["passes"] += 1

    def updated(*_: object) -> None:
        counts["updates"] += 1

    hooks = [
        prepared.module.register_forward_hook(passed),
        prepared.optimiser.register_step_post_hook(updated),
    ]
    times = []
    shards = prepared.plan.shards or 1
    try:
        with fixed_threads(prepared.plan.threads):
            began = time.perf_counter()
            batches = prepared.loader.pieces(0, pieces, shards)
            for number, parts in enumerate(islice(batches, TIMED)):
                found = [prepared.piece(n, part) for n, part in zip(pieces, parts, strict=True)]
                trainer.step(found, count=prepared.plan.batch, step=number)
                times.append(time.perf_counter() - began)
                began = time.perf_counter()
    finally:
        for hook in hooks:
            hook.remove()
    return TrainEstimate(
        batches=prepared.steps,
        updates=counts["updates"] / len(times),
        passes=counts["passes"] / len(times) / len(pieces),
        # The first one warms up.
        seconds_per_batch=statistics.median(times[1:] or times),
    )
