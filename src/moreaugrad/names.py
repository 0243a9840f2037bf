"""Names: chosen from a list, with the nearest one suggested; numbers as parts of names; and names
of anybody as text that can be written, or shown without harm."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
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


def nearest(name: str, known: Iterable[str]) -> str:
    """`'; did you mean ...?'`, or nothing when no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def choose(what: str, name: str, known: Iterable[str]) -> str:
    """`name` when it is known. Errors: ValueError that lists what is, and the nearest."""
    options = list(known)
    if name not in options:
        raise ValueError(
            f"{what}: expected one of {', '.join(options)}; got {name!r}{nearest(name, options)}"
        )
    return name


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
