"""Quality levels: tolerances by name, of maps whose error is a Monte-Carlo error, and their cost.

Such an error falls with the square root of the evaluations: a third of it costs about nine times
as much.
"""

from __future__ import annotations

from typing import Any

from moreaugrad.settings import nearest

STANDARD = "standard"
QUALITIES = {"preview": 0.3, STANDARD: 0.1, "fine": 0.03}
"""Tolerances by name."""
EXACT = 1e-3
"""Tolerance of a named level where there is no noise, and so no such error."""
ALLOWED, ALLOWED_AT_MOST = 16384, 262144
"""Default of max_evaluations at the standard level, and the largest one, of small tolerances."""
USUAL = 2048
"""Evaluations that a map of a photo usually takes at the standard level."""


def tolerance_of(value: float | str, name: str = "tolerance") -> float:
    """The tolerance that is given as a number or as the name of a level. Errors: ValueError."""
    found = QUALITIES.get(value, 0.0) if isinstance(value, str) else value
    if not 0 < found < float("inf"):
        levels = ", ".join(QUALITIES)
        hint = nearest(value, QUALITIES) if isinstance(value, str) else ""
        raise ValueError(
            f"{name}: expected a finite number > 0 or one of {levels}; got {value!r}{hint}"
        )
    return found


def is_level(value: object) -> bool:
    """Whether a setting's value is the name of a level."""
    return isinstance(value, str) and value in QUALITIES


def evaluations_to_reach(tolerance: float, error: Any, evaluations: Any) -> Any:
    """About how many evaluations have an error of `tolerance`, where these have this error."""
    return evaluations * (error / tolerance) ** 2


def usual_evaluations(tolerance: float) -> int:
    """Those that a map usually takes."""
    found: float = evaluations_to_reach(tolerance, QUALITIES[STANDARD], USUAL)
    return round(found)


def allowed_evaluations(tolerance: float) -> int:
    """The default of max_evaluations at a tolerance."""
    found: float = evaluations_to_reach(tolerance, QUALITIES[STANDARD], ALLOWED)
    return round(min(max(found, ALLOWED), ALLOWED_AT_MOST))
