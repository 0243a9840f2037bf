"""Names that other people chose, as text that can be shown and written; numbers in names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

SURROGATE = re.compile("[\ud800-\udfff]")
"""Python's stand-in for a byte of a file name that is not UTF-8; it cannot be encoded."""
UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that terminals and browsers act on instead of showing them: control characters, which
begin escape sequences, unusual line separators and overrides of the reading direction; and
surrogates."""


def shown(text: str) -> str:
    """Text of unknown origin made harmless for a terminal or a page."""
    return UNSHOWN.sub("\ufffd", text)


def number_name(value: float) -> str:
    """A number in a name: with the fewest digits that identify it, so that different numbers have
    different names."""
    return repr(float(value)).removesuffix(".0")


def percent_name(fraction: float) -> str:
    """A fraction in percent, as exact as `number_name`, without the percent sign."""
    percent = Decimal(repr(float(fraction))).scaleb(2)
    return f"{percent.normalize():f}"


def readable(text: str) -> str:
    """Text that can be encoded in UTF-8: bytes of a name that are not UTF-8 are escaped, as in
    `caf\\xe9.png`."""
    return SURROGATE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def some(names: Iterable[str], separator: str = ", ", most: int = 5) -> str:
    """The first names of many for a message, and how many more there are."""
    every = list(names)
    shown = separator.join(every[:most])
    if len(every) <= most:
        return shown
    return f"{shown}{separator.strip(', ')} and {len(every) - most} more"
