"""Maps to pictures, in one place: reduction, percentile clip, palette, and the settings kept."""

from moreaugrad.pictures.levels import describe, normalise, reduce
from moreaugrad.pictures.palettes import PALETTES, Palette, palette
from moreaugrad.pictures.png import png_bytes, read_settings, save_png
from moreaugrad.pictures.render import (
    Picture,
    Scale,
    Style,
    as_photo,
    draw,
    heatmap,
    masked,
    overlay,
    photo,
)

__all__ = [
    "PALETTES",
    "Palette",
    "Picture",
    "Scale",
    "Style",
    "as_photo",
    "describe",
    "draw",
    "heatmap",
    "masked",
    "normalise",
    "overlay",
    "palette",
    "photo",
    "png_bytes",
    "read_settings",
    "reduce",
    "save_png",
]
