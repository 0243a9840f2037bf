"""Names that anybody may have chosen, as text that can be written or shown; numbers in names."""

from __future__ import annotations

import re
from decimal import Decimal

SURROGATE = re.compile("[\ud800-\udfff]")
"""Stands for a byte of a file's name that is no UTF-8, and cannot be written in it."""
UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What terminals and browsers obey instead of showing it: control characters, with which escape
sequences begin, ends of lines but the usual one, overrides of the reading direction; and halves of
surrogate pairs, which stand for bytes of a name that are no text."""


def shown(text: str) -> str:
    """Text that somebody else may have written, as it is shown to people."""
    return UNSHOWN.sub("\ufffd", text)


def number_name(value: float) -> str:
    """A number in a name: the fewest digits that read back as the same one, so that no two numbers
    have one name."""
    return repr(float(value)).removesuffix(".0")


def percent_name(fraction: float) -> str:
    """A fraction in percent, as exact as `number_name`, without the sign."""
    percent = Decimal(repr(float(fraction))).scaleb(2)
    return f"{percent.normalize():f}"


def readable(text: str) -> str:
    """Text that can be written in UTF-8: of names that are not UTF-8, bytes are escaped, as in
    `caf\\xe9.png`."""
    return SURROGATE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
