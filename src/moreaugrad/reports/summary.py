"""The maps of a page, method by method, over its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from moreaugrad.reports.content import Section, Tile
from moreaugrad.reports.wording import count, duration, percent, score


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`undefined`: how many of the averaged figures were NaN and were left out."""

    text: str
    best: bool = False
    undefined: int = 0


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Means over the inputs; `rows`: (method, one cell for each of `columns`).

    `networks`: the name of each row's network, "" where there is but one.
    """

    inputs: int
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    networks: Sequence[str]

    @property
    def groups(self) -> list[tuple[str, list[tuple[str, Sequence[Cell]]]]]:
        """The rows of each network."""
        return [
            (name, [row for row, own in zip(self.rows, self.networks, strict=True) if own == name])
            for name in dict.fromkeys(self.networks)
        ]


def summarise(sections: Sequence[Section]) -> Summary:
    """Networks and methods in the order of their first tile. Columns without any figure are left
    out."""
    methods: dict[tuple[str, str], list[Tile]] = {}
    for section in sections:
        for answer in section.answers:
            for tile in answer.tiles:
                methods.setdefault((answer.network, tile.title), []).append(tile)
    everything = [tile for tiles in methods.values() for tile in tiles]
    scores = list(dict.fromkeys(name for tile in everything for name in tile.scores))

    columns: list[tuple[str, list[Cell]]] = [("usable", _usable(methods.values()))]
    for name in scores:
        columns.append((name, _means(methods.values(), _score(name), score, mark=True)))
    for name, words, value in (
        ("Gini", score, lambda tile: tile.gini),
        ("zeros", percent, lambda tile: tile.zeros),
        ("estimated error", percent, lambda tile: tile.error),
        ("evaluations", count, lambda tile: tile.evaluations),
        ("time", duration, lambda tile: tile.seconds),
    ):
        columns.append((name, _means(methods.values(), value, words)))
    kept = [(name, cells) for name, cells in columns if any(c.text or c.undefined for c in cells)]
    return Summary(
        inputs=len(sections),
        columns=[name for name, _ in kept],
        rows=[(method, [cells[i] for _, cells in kept]) for i, (_, method) in enumerate(methods)],
        networks=[network for network, _ in methods],
    )


def _usable(groups: Iterable[Sequence[Tile]]) -> list[Cell]:
    return [Cell(text=f"{sum(tile.ok for tile in tiles)} of {len(tiles)}") for tiles in groups]


def _score(name: str) -> Callable[[Tile], float | None]:
    return lambda tile: tile.scores.get(name)


def _means(
    groups: Iterable[Sequence[Tile]],
    value: Callable[[Tile], float | None],
    words: Callable[[float], str],
    *,
    mark: bool = False,
) -> list[Cell]:
    means, undefined = [], []
    for tiles in groups:
        given = [found for tile in tiles if (found := value(tile)) is not None]
        defined = [found for found in given if not math.isnan(found)]
        means.append(math.fsum(defined) / len(defined) if defined else math.nan)
        undefined.append(len(given) - len(defined) if mark else 0)
    top = max((mean for mean in means if not math.isnan(mean)), default=math.nan)
    several = sum(not math.isnan(mean) for mean in means) > 1
    return [
        Cell(
            text="" if math.isnan(mean) else words(mean),
            best=mark and several and mean == top,
            undefined=missing,
        )
        for mean, missing in zip(means, undefined, strict=True)
    ]
