"""Tiles and sweeps in words, for people."""

from __future__ import annotations

import math

from moreaugrad.metrics.catalogue import heading
from moreaugrad.pictures.wording import count, duration, exact, number, percent, score
from moreaugrad.reports.content import Sweep, Tile


def figures(tile: Tile) -> list[tuple[str, str]]:
    """The rows of a tile's table; what has no meaning for its method is left out."""
    rows = [
        ("zeros", percent, tile.zeros),
        ("Gini", score, tile.gini),
        ("estimated error", percent, tile.error),
        ("residual", number, tile.residual),
        ("evaluations", count, tile.evaluations),
        ("time", duration, tile.seconds),
    ]
    shown = [
        (label, words(value))
        for label, words, value in rows
        if value is not None and not math.isnan(value)
    ]
    return [
        *shown,
        *((heading(label), score(value)) for label, value in tile.scores.items()),
        *tile.extra.items(),
    ]


def setting(sweep: Sweep, value: float) -> str:
    """`rho = 0.3`; at zero the limit, not the value, is what is shown."""
    if value:
        return f"{sweep.parameter} = {exact(value)}"
    return f"{sweep.parameter} → 0 (limit{': ' + sweep.limit if sweep.limit else ''})"
