"""Colour-blind-safe palettes, as tables: drawing a picture needs no plotting library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moreaugrad.registry import choose

LEVELS = 256


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours between anchors at equal distances, linear in sRGB.

    An unsigned palette takes values in [0, 1] and its lightness rises with them. A signed one
    takes [-1, 1]: lightness depends on the magnitude alone, the hue on the sign.
    """

    name: str
    anchors: str
    signed: bool = False

    @cached_property
    def table(self) -> NDArray[np.uint8]:
        """`[LEVELS, 3]` colours; a signed one has one less, so that zero has its own."""
        anchors = np.array([list(bytes.fromhex(word)) for word in self.anchors.split()])
        at = np.linspace(0, len(anchors) - 1, LEVELS - self.signed)
        places = np.arange(len(anchors))
        channels = [np.interp(at, places, anchors[:, channel]) for channel in range(3)]
        return np.stack(channels, axis=-1).round().astype(np.uint8)

    def colours(self, values: NDArray[np.float64]) -> NDArray[np.uint8]:
        """`[...]` values in [0, 1] (signed: [-1, 1]) to `[..., 3]` sRGB bytes."""
        share = (values + 1) / 2 if self.signed else values
        index = (np.clip(share, 0, 1) * (len(self.table) - 1)).round().astype(np.intp)
        return self.table[index]

    @property
    def upper(self) -> Palette:
        """The brighter two thirds of an unsigned palette, for drawing over pictures."""
        words = self.anchors.split()
        return Palette(name=f"upper-{self.name}", anchors=" ".join(words[len(words) // 3 :]))

    @property
    def stops(self) -> tuple[str, ...]:
        """The anchors as `#rrggbb`, for gradients drawn by others."""
        return tuple(f"#{word}" for word in self.anchors.split())


# magma and cividis: 33 samples of the tables of matplotlib (CC0). blue-white-orange: made in
# CIELAB with equal lightness at equal distance from the middle, L* from 97 down to 45, the hues
# on both sides of the axis that red-green-blind eyes keep.
PALETTES: Mapping[str, Palette] = {
    palette.name: palette
    for palette in (
        Palette(
            name="magma",
            anchors="000004 030312 0a0822 130d34 1d1147 29115a 36106b 440f76 51127c 5d177f 6a1c81 "
            "762181 832681 902a81 9c2e7f aa337d b73779 c23b75 cf4070 db476a e55064 ee5b5e f4695c "
            "f9785d fb8761 fd9668 fea571 feb47b fec287 fed194 fde0a1 fceeb0 fcfdbf",
        ),
        Palette(
            name="cividis",
            anchors="00224e 00285b 002e6a 053371 1a386f 273e6e 32436d 3b496c 434e6c 4b546c 535a6d "
            "5a5f6e 61656f 686a71 6f7073 767676 7d7c78 838179 8b8778 928d78 9a9376 a29975 aaa073 "
            "b3a670 bbad6d c3b369 ccba64 d4c15f ddc858 e6d051 efd748 f8df3c fee838",
        ),
        Palette(name="grey", anchors="000000 ffffff"),
        Palette(
            name="blue-white-orange",
            anchors="076fb0 0b80c6 0f92dc 13a5f2 49b6fe 7ec7fe a6d7ff cbe8ff f6f6f6 "
            "fcdfc1 f7c998 f0b473 e79e50 dd892c cf7508 ba6506 a55504",
            signed=True,
        ),
    )
}


def palette(name: str, *, signed: bool) -> Palette:
    """The palette of that name and kind. Errors: ValueError with the nearest name."""
    known = [key for key, value in PALETTES.items() if value.signed == signed]
    return PALETTES[choose("signed palette" if signed else "palette", name, known)]
