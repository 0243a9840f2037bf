"""Values as they are written on the command line."""

from __future__ import annotations

import contextlib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

Settings = Mapping[str, Any]
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)")


def words(text: str) -> tuple[str, ...]:
    """Those between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(name: str, text: str, kind: type = float, expected: str = "") -> list[Any]:
    """`0,0.1,1` as numbers, of kind int whole ones. expected: in words, for the message.

    Errors: ValueError, also for one that is infinite or NaN.
    """
    parts = text.split(",")
    with contextlib.suppress(ValueError):
        if kind is int and all(word.strip().removeprefix("-").isdecimal() for word in parts):
            return list(map(int, parts))  # exactly, however large
        found = [float(word) for word in parts]
        if all(math.isfinite(one) and one == kind(one) for one in found):
            return list(map(kind, found))
    usual = f"{'whole' if kind is int else 'finite'} numbers, separated by commas"
    raise ValueError(f"{name}: expected {expected or usual}; got {text!r}")


def seconds(name: str, text: str) -> float:
    """`90`, `90s`, `15m` or `2h`. Errors: ValueError for another form, and for no time."""
    match = DURATION.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise ValueError(f"{name}: expected a time such as 90s, 15m or 2h, got {text!r}")
    return float(match[1]) * SECONDS[match[2] or "s"]


def setting(name: str, text: str) -> tuple[str, Any]:
    """`NAME=VALUE`. Errors: ValueError for another form."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ValueError(f"{name}: expected NAME=VALUE, got {text!r}")
    return key.strip(), typed(value.strip())


def read_settings(before: Settings, texts: Sequence[str]) -> Settings:
    """Settings with those of `--set NAME=VALUE`."""
    return {**before, **dict(setting("--set", text) for text in texts)}


def typed(text: str) -> Any:
    """A value as TOML has it; `8,16` and `[a,b]` are lists; what is neither is text.

    Errors: ValueError for lists nested too deeply to be read.
    """
    try:
        for attempt in (text, f"[{text}]" if "," in text else text):
            with contextlib.suppress(tomllib.TOMLDecodeError):
                found = tomllib.loads(f"value = {attempt}")
                if len(found) == 1 and isinstance(found["value"], (bool, int, float, str, list)):
                    return found["value"]
    except RecursionError:
        what = f"a list nested too deeply: {text[:20]!r}..."
        raise ValueError(f"expected a value, got {what}") from None
    if text.startswith("[") and text.endswith("]"):
        return [typed(word.strip()) for word in text[1:-1].split(",")]
    return text
