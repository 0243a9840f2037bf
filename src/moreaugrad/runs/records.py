"""Records of what was computed: plain values without clock times, so that equal runs are equal."""

from __future__ import annotations

import json
import math
import platform
from importlib.metadata import version
from typing import Any

import captum
import numpy as np
import torch
from torch import Tensor

from moreaugrad.explainers.explanation import Explanation
from moreaugrad.files.names import readable
from moreaugrad.files.units import Record
from moreaugrad.runs.plans.common import ComputePlan

TROUBLE = (ValueError, TypeError, FloatingPointError, MemoryError, RuntimeError, AssertionError)
"""What a method or a network raises for an input that does not suit it."""


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {
        "moreaugrad": version("moreaugrad"),
        "torch": torch.__version__,
        "captum": captum.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def environment(compute: ComputePlan) -> Record:
    """What a run's bytes depend on besides its configuration: versions, CPU and device, threads."""
    device = torch.device(compute.device or "cpu")
    found: Record = {
        "versions": versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "device": device.type,
        "threads": compute.threads,
    }
    if device.type == "cuda":
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found


def map_record(explanation: Explanation, row: int) -> Record:
    """How a map came about; what has no meaning for its method is left out."""
    status = explanation.status[row]
    error = float(explanation.error[row])
    figures = {
        name: float(getattr(explanation, name)[row])
        for name in ("score", "error", "residual", "eta", "zeros")
    }
    details = {name: float(values[row]) for name, values in explanation.details.items()}
    return {
        "status": status.value,
        "ok": status.ok,
        "failed": status.failed,
        **({} if status.ok else {"message": status.described(error), "remedy": status.remedy}),
        "steps": int(explanation.steps[row]),
        "evaluations": int(explanation.evaluations[row]),
        **finite(figures),
        **({"details": finite(details)} if finite(details) else {}),
    }


def finite(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def number(value: float) -> float | None:
    """JSON has no NaN: null."""
    return value if math.isfinite(value) else None


def numbers(values: Tensor) -> list[float | None]:
    return [number(float(value)) for value in values.flatten().tolist()]


def line(error: BaseException) -> str:
    """An error in one line, which a record can hold."""
    text = readable(" ".join(str(error).split()))
    return text or type(error).__name__


def problem(error: Exception) -> str:
    """What a method, an attack or a metric raised for an input, in one line.

    Raises it again where it says nothing about the input: memory that ran out, files. Everything
    else is recorded, so that one part that breaks does not end a run of many.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        raise MemoryError("not enough memory: use a smaller --batch-size or --block") from error
    if isinstance(error, OSError):
        raise error
    expected = isinstance(error, TROUBLE)
    return line(error) if expected else f"{type(error).__name__}: {line(error)}"


def json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
