"""Pictures as PNG files that carry their settings."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moreaugrad.files.atomic import write_atomically
from moreaugrad.files.foreign import open_image

SETTINGS_KEY = "moreaugrad"


def png_bytes(pixels: NDArray[np.uint8], settings: Mapping[str, Any] | None = None) -> bytes:
    """`[H, W, 3]` bytes as a PNG file, with `settings` as JSON in a text chunk."""
    from PIL import Image, PngImagePlugin

    chunk = PngImagePlugin.PngInfo()
    chunk.add_text(SETTINGS_KEY, json.dumps(settings or {}, sort_keys=True))
    file = io.BytesIO()
    # With at most 256 colours, as palettes give, an indexed file says the same in a third.
    codes = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, index = np.unique(codes, return_inverse=True)
    if len(colours) <= 256:
        image = Image.fromarray(index.reshape(codes.shape).astype(np.uint8))
        table = np.stack([colours >> 16, colours >> 8, colours], axis=-1).astype(np.uint8)
        image.putpalette(table.tobytes())
    else:
        image = Image.fromarray(pixels)
    image.save(file, "PNG", pnginfo=chunk, optimize=True)
    return file.getvalue()


def save_png(
    path: str | os.PathLike[str],
    pixels: NDArray[np.uint8],
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write `png_bytes` to `path`, whole or not at all."""
    write_atomically(path, png_bytes(pixels, settings))


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings that a picture of ours carries. Errors: ValueError where there are none."""
    with open_image(Path(path)) as image:
        text = image.info.get(SETTINGS_KEY)
    if not isinstance(text, str):
        raise ValueError(
            f"expected a PNG written by moreaugrad; {os.fspath(path)} carries no settings: "
            "it may come from elsewhere or have been re-encoded"
        )
    found: dict[str, Any] = json.loads(text)
    return found
