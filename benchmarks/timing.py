"""Wall-clock times that can be compared: taken in turns, medians over rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

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
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Watched(nn.Module):
    """A network that adds up the seconds of its forward passes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.seconds = module.eval(), 0.0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        began = time.perf_counter()
        out: Tensor = self.module(x)
        self.seconds += time.perf_counter() - began
        return out


@contextmanager
def network_time(network: Watched) -> Iterator[Callable[[], float]]:
    """Gives a function that returns the seconds spent in the network, forward and backward.

    Backward passes are the calls of torch.autograd.grad, which is wrapped meanwhile.
    """
    plain, spent = torch.autograd.grad, 0.0
    network.seconds = 0.0

    def watched(*arguments: Any, **options: Any) -> Any:
        nonlocal spent
        began = time.perf_counter()
        found = plain(*arguments, **options)
        spent += time.perf_counter() - began
        return found

    torch.autograd.grad = watched
    try:
        yield lambda: network.seconds + spent
    finally:
        torch.autograd.grad = plain
