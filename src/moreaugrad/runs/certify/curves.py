"""What tables and figures show of a record's curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Shares = list[float | None]


def lines(record: Mapping[str, Any]) -> Iterator[tuple[str, bool, Shares]]:
    """The curve, whether its map is taken as exact, and its overlap by radius."""
    for key, curve in record["curves"].items():
        yield key, False, curve["overlap"]
        if "overlap_if_exact" in curve:
            yield key, True, curve["overlap_if_exact"]


def last_change(record: Mapping[str, Any]) -> int:
    """The index of the radius from which on no overlap falls; the last one where none does."""
    ends = [shares.index(shares[-1]) for _, _, shares in lines(record)]
    return max(ends) or len(record["radii"]) - 1
