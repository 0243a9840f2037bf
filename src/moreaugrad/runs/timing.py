"""Times of explanations, of the network passes in them, and the memory that they take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

MIB = 2**20


def clock(device: torch.device) -> float:
    """Seconds, once everything that the device was given is computed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call."""
    began = clock(device)
    work()
    return clock(device) - began


@contextmanager
def network_time(network: nn.Module, device: torch.device) -> Iterator[Callable[[], float]]:
    """Gives a function that returns the seconds spent in the network, forward and backward.

    Backward passes are the calls of torch.autograd.grad, which is wrapped meanwhile. On a GPU each
    pass waits until the one before it is done.
    """
    plain, spent, began, inside = torch.autograd.grad, 0.0, 0.0, False

    def entered(*_: Any) -> None:
        nonlocal began
        began = clock(device)

    def left(*_: Any) -> None:
        nonlocal spent
        spent += clock(device) - began

    def backward(*arguments: Any, **options: Any) -> Any:
        nonlocal spent, inside
        if inside:  # torch calls it again where a mode watches its functions
            return plain(*arguments, **options)
        start, inside = clock(device), True
        try:
            return plain(*arguments, **options)
        finally:
            spent, inside = spent + clock(device) - start, False

    hooks = [
        network.register_forward_pre_hook(entered, prepend=True),
        network.register_forward_hook(left, always_call=True),
    ]
    torch.autograd.grad = backward
    try:
        yield lambda: spent
    finally:
        torch.autograd.grad = plain
        for hook in hooks:
            hook.remove()


def peak_memory(work: Callable[[], object], device: torch.device) -> float | None:
    """MiB that a call takes at its peak: all tensors on a GPU, weights included; on a CPU how much
    the process grows. None where the system does not say."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return float(torch.cuda.max_memory_allocated(device)) / MIB
    try:
        # From here on the kernel counts the peak anew.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status("VmRSS")
    except OSError:
        work()
        return None
    work()
    return max(0.0, _status("VmHWM") - before)


def memory_so_far(device: torch.device) -> int | None:
    """The most bytes so far: allocated on a GPU, and otherwise of this process; None where the
    system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # on Windows
        return None
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else 1024 * found


def _status(name: str) -> float:
    """MiB, by Linux's account of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {name} in /proc/self/status")
