"""What a run's bytes depend on besides its configuration."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from moreaugrad.runs.job import ComputePlan
from moreaugrad.runs.records import versions


def environment(compute: ComputePlan) -> dict[str, Any]:
    """Versions, processor and device, threads."""
    device = torch.device(compute.device or "cpu")
    found: dict[str, Any] = {
        "versions": versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "device": device.type,
        "threads": compute.threads,
    }
    if device.type == "cuda":
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found


@contextmanager
def deterministic(device: str | None) -> Iterator[None]:
    """While open, convolutions on a GPU are computed the same way each time."""
    if torch.device(device or "cpu").type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
