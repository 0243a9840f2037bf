"""Names chosen from a list, with the nearest one suggested."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
