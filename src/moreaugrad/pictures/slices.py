"""Maps of volumes: their slices, each an image, on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from moreaugrad.pictures.levels import finite
from moreaugrad.pictures.render import Picture, Style, draw, photo

FEW = 4
"""Slices of a row."""
MOST_ROWS = 2**14
"""Rows of pixels of all slices together: browsers draw no taller image."""
GAP = 2


def heaviest(values: Tensor | ArrayLike, most: int = FEW) -> list[int]:
    """The slices of a map `[C, D, H, W]` with the largest sums of magnitudes, in order."""
    mass = np.abs(finite(values)).sum((0, 2, 3))
    return sorted(np.argsort(-mass, kind="stable")[:most].tolist())


def slice_views(
    values: Tensor | ArrayLike,
    volume: Tensor | ArrayLike,
    style: Style | None = None,
    z_scores: Tensor | ArrayLike | None = None,
) -> dict[str, Picture]:
    """All views of a map `[C, D, H, W]`, with the slices along D below each other.

    Equal colours are equal values in all slices: the scale is of the whole map. volume: the input;
    where it has another size than the map, or other than 1 or 3 channels, only the map is drawn.
    """
    maps = finite(values)
    fits = np.shape(volume)[1:] == maps.shape[1:]
    image = volume_picture(volume) if fits else None
    scores = None if z_scores is None else _stacked(z_scores)
    pictures = draw(_stacked(maps), None if image is None else image.pixels, style, scores)
    count, most = np.count_nonzero(maps), heaviest(maps, 1)[0]
    caption = f"{count} of {maps.size} entries are not zero, slice {most} has most of the map"
    return {
        name: replace(one, slices=range(maps.shape[1]), caption=caption if count else one.caption)
        for name, one in pictures.items()
    }


def volume_picture(volume: Tensor | ArrayLike) -> Picture | None:
    """A volume without a map; None for other than 1 or 3 channels."""
    values = finite(volume)
    found = photo(_stacked(values))
    return None if found is None else replace(found, slices=range(values.shape[1]))


def thinned(picture: Picture) -> Picture:
    """A picture with as many of its slices, at equal distances, as a browser draws."""
    rows, count = len(picture.pixels), len(picture.slices)
    if rows <= MOST_ROWS:
        return picture
    kept = picture.slices[:: -(-rows // MOST_ROWS)]
    pixels = picture.pixels.reshape(count, rows // count, *picture.pixels.shape[1:])[list(kept)]
    return replace(picture, pixels=pixels.reshape(-1, *pixels.shape[2:]), slices=kept)


def one_slice(picture: Picture, number: int) -> Picture:
    """A slice of a picture of all."""
    height = len(picture.pixels) // len(picture.slices)
    start = picture.slices.index(number) * height
    return replace(picture, pixels=picture.pixels[start : start + height], slices=range(0))


def in_row(picture: Picture, numbers: Sequence[int]) -> Picture:
    """Slices of a picture side by side."""
    parts = [one_slice(picture, number).pixels for number in numbers]
    gap = np.full((len(parts[0]), GAP, 3), 255, np.uint8)
    pixels = np.hstack([each for part in parts for each in (part, gap)][:-1])
    words = f"slices {', '.join(map(str, numbers))}; {picture.caption}"
    return replace(picture, pixels=pixels, slices=range(0), caption=words)


def _stacked(values: Tensor | ArrayLike) -> NDArray[Any]:
    """`[C, D, H, W]` as `[C, D * H, W]`."""
    found = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    return found.reshape(len(found), -1, found.shape[-1])
