"""Numbers in words, for people."""

from __future__ import annotations

import math

from moreaugrad.files.foreign import number_name
from moreaugrad.pictures.render import Scale

NARROW = "\u202f"
"""The space inside numbers and before units: it does not break."""
RAISED: dict[str, str] = dict(zip("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹", strict=True))


def percent(fraction: float) -> str:
    """0.973 as `97.3 %`; only all and none are 100 % and 0 %, and errors may be more than all."""
    if not fraction <= 1:
        return f"{number(100 * fraction)}{NARROW}%" if math.isfinite(fraction) else number(fraction)
    if fraction in (0, 1):
        return f"{fraction:.0%}".replace("%", f"{NARROW}%")
    if not 0.0005 <= fraction < 0.9995:
        return f"{'> 99.9' if fraction > 0.5 else '< 0.1'}{NARROW}%"
    return f"{100 * fraction:.1f}{NARROW}%"


def number(value: float) -> str:
    """Three significant digits; an exponent as in 1.2 × 10⁻⁵."""
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "∞" if value > 0 else "−∞"
    return _typeset(f"{value:.3g}")


def exact(value: float) -> str:
    """All digits, so that no two settings look alike."""
    return _typeset(number_name(value))


def _typeset(text: str) -> str:
    text = text.replace("-", "−")
    if "e" not in text:
        return text
    digits, _, exponent = text.partition("e")
    power = str(int(exponent.replace("−", "-")))
    raised = "".join(RAISED[sign] for sign in power)
    return f"{digits}{NARROW}×{NARROW}10{raised}"


def score(value: float) -> str:
    """Three decimals, so that the figures of a column stand below each other."""
    return f"{value:.3f}".replace("-", "−") if abs(value) < 1000 else number(value)


def low(scale: Scale) -> str:
    return "≈ 0" if scale.starts_near_zero else number(scale.low)


def count(value: float) -> str:
    return f"{value:,.0f}".replace(",", NARROW)


def duration(seconds: float) -> str:
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f}{NARROW}ms"
    if seconds < 120:
        return f"{seconds:.1f}{NARROW}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes}{NARROW}min {rest}{NARROW}s"
    return f"{seconds / 3600:.1f}{NARROW}h"
