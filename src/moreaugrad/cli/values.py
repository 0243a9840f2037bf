"""Values as they are written on the command line: numbers, sizes, classes, settings."""

from __future__ import annotations

import contextlib
import math
import tomllib
from typing import Any

from moreaugrad.cli.options import Common


def numbers(name: str, text: str) -> list[float]:
    """`0,0.1,1` as numbers. Errors: ValueError, also for one that is infinite or NaN."""
    with contextlib.suppress(ValueError):
        found = [float(word) for word in text.split(",")]
        if all(map(math.isfinite, found)):
            return found
    raise ValueError(f"--{name}: expected finite numbers, separated by commas; got {text!r}")


def whole_numbers(name: str, text: str) -> list[int]:
    """`0,1,2` as whole numbers. Errors: ValueError."""
    found = numbers(name, text)
    if any(value != int(value) for value in found):
        raise ValueError(f"--{name}: expected whole numbers, separated by commas; got {text!r}")
    return list(map(int, found))


def size(name: str, text: str) -> int | tuple[int, int]:
    """`SIDE` or `HEIGHT,WIDTH`, in pixels. Errors: ValueError."""
    found = whole_numbers(name, text)
    if len(found) > 2:
        raise ValueError(f"--{name}: expected SIDE or HEIGHT,WIDTH, got {text!r}")
    return found[0] if len(found) == 1 else (found[0], found[1])


def batch_size(options: Common) -> int | None:
    """None where it is chosen. Errors: ValueError for what is no number of passes."""
    text = options.batch_size
    if text in (None, "auto"):
        return None
    found = whole_numbers("batch-size", str(text))
    if len(found) != 1 or found[0] < 1:
        raise ValueError(f"--batch-size: expected auto or a whole number of passes, got {text!r}")
    return found[0]


def target_of(options: Common) -> int | str | None:
    target = options.target
    decimal = target is not None and target.lstrip("-").isdecimal()
    return int(str(target)) if decimal else target


def typed(text: str) -> Any:
    """A value as TOML has it; `8,16` is a list; what is neither is text.

    Errors: ValueError for lists nested too deeply to be read.
    """
    for attempt in (text, f"[{text}]" if "," in text else text):
        try:
            found = tomllib.loads(f"value = {attempt}")
        except tomllib.TOMLDecodeError:
            continue
        except RecursionError:
            raise ValueError(
                f"expected a value, got a list nested too deeply: {text[:20]!r}..."
            ) from None
        if len(found) == 1 and isinstance(found["value"], (bool, int, float, str, list)):
            return found["value"]
    return text
