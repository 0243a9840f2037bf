"""An image of images and words, placed by pixels."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]


class Canvas:
    """A white image with whole pixels from the upper left, and words that matplotlib sets."""

    def __init__(self, width: int, height: int) -> None:
        self.height = height
        self.figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
        self.agg = FigureCanvasAgg(self.figure)

    def image(self, x: int, y: int, pixels: Bytes) -> None:
        self.figure.figimage(pixels, x, self.height - y - len(pixels), origin="upper")

    def words(
        self, x: float, y: float, text: str, *, size: float, align: str = "center",
        colour: str = "k",
    ) -> None:  # fmt: skip
        self.figure.text(
            x, self.height - y, text, transform=None,
            fontsize=size, color=colour, ha=align, va="center",
        )  # fmt: skip

    def png(self, colours: Bytes | None = None) -> bytes:
        """With `colours` `[K, 3]` each pixel gets the nearest of them, which makes a small file."""
        self.agg.draw()
        drawn = Image.fromarray(np.asarray(self.agg.buffer_rgba())).convert("RGB")
        if colours is not None:
            known = Image.new("P", (1, 1))
            known.putpalette(colours.tobytes())
            drawn = drawn.quantize(palette=known, dither=Image.Dither.NONE)
        file = io.BytesIO()
        drawn.save(file, format="png", optimize=True)
        return file.getvalue()
