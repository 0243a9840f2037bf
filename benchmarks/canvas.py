"""A picture of pictures and words, placed by pixels."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]

COLOURS = 96
"""Of the palette that a picture is reduced to: noise costs little more than a byte a pixel."""


class Canvas:
    """A white picture with whole pixels from the upper left, and words that matplotlib sets."""

    def __init__(self, width: int, height: int) -> None:
        self.height = height
        self.figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
        self.agg = FigureCanvasAgg(self.figure)

    def image(self, x: int, y: int, pixels: Bytes, room: int) -> None:
        """In the middle of a square of `room` pixels."""
        spare = (room - pixels.shape[1]) // 2, (room - pixels.shape[0]) // 2
        below = self.height - y - spare[1] - pixels.shape[0]
        self.figure.figimage(pixels, x + spare[0], below, origin="upper")

    def words(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        align: str = "center",
        colour: str = "k",
    ) -> None:
        self.figure.text(
            x,
            self.height - y,
            text,
            transform=None,
            fontsize=size,
            color=colour,
            ha=align,
            va="center",
        )

    def png(self, *, few_colours: bool) -> bytes:
        self.agg.draw()
        drawn = Image.fromarray(np.asarray(self.agg.buffer_rgba())).convert("RGB")
        if few_colours:
            drawn = drawn.quantize(COLOURS, dither=Image.Dither.NONE)
        file = io.BytesIO()
        drawn.save(file, format="png", optimize=True)
        return file.getvalue()
