"""Wall-clock times that can be compared: taken in turns, medians over rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

import torch

from moreaugrad.runs.timing import clock

Work = Callable[[], object]


def interleaved(works: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """Median seconds of each, run A B A B ... after one warm-up, so that drifts hit all alike."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seconds[name].append(timed(work))
    return {name: statistics.median(found) for name, found in seconds.items()}


def timed(work: Work) -> float:
    """Seconds of one call, once an accelerator has computed everything."""
    began = _clock()
    work()
    return _clock() - began


def _clock() -> float:
    return clock(torch.device("cuda" if torch.cuda.is_initialized() else "cpu"))
