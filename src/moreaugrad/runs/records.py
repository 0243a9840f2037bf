"""What is written of each map: numbers without clock times, so that equal jobs give equal bytes."""

from __future__ import annotations

import json
import math
import platform
from importlib.metadata import version
from typing import Any

import captum
import numpy as np
import torch

from moreaugrad.explainers.explanation import Explanation

Record = dict[str, Any]


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {
        "moreaugrad": version("moreaugrad"),
        "torch": torch.__version__,
        "captum": captum.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def map_record(
    explanation: Explanation, gini: float, scores: dict[str, float], notes: list[str]
) -> Record:
    """The first sample's map in numbers; gini, scores: of that map.

    NaN (no meaning for the method) is left out.
    """
    status = explanation.status[0]
    figures = {
        "score": explanation.score,
        "residual": explanation.residual,
        "error": explanation.error,
        "zeros": explanation.zeros,
        "eta": explanation.eta,
    }
    record: Record = {
        "status": status.value,
        "ok": status.ok,
        "failed": status.failed,
        "message": status.described(float(explanation.error[0])),
        "remedy": status.remedy,
        "steps": int(explanation.steps[0]),
        "evaluations": int(explanation.evaluations[0]),
        **{name: float(values[0]) for name, values in figures.items()},
        "gini": gini,
        "details": {
            name: float(values[0])
            for name, values in explanation.details.items()
            if math.isfinite(float(values[0]))
        },
        "scores": {name: value for name, value in scores.items() if math.isfinite(value)},
        "warnings": notes,
        "settings": dict(explanation.settings),
    }
    return {name: value for name, value in record.items() if _told(value)}


def _told(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value not in ("", [], {})


def json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
