"""PNG files that carry their settings."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moreaugrad.files.foreign import open_image, parsing, regular_file
from moreaugrad.pictures.levels import Bytes

SETTINGS_KEY = "moreaugrad"
"""The text chunk of a PNG file that holds its settings."""


def png_bytes(pixels: Bytes, settings: Mapping[str, Any] | None = None) -> bytes:
    """Pixels `[H, W, 3]` as a PNG file, with `settings` as JSON in a text chunk."""
    from PIL import Image, PngImagePlugin

    chunk = PngImagePlugin.PngInfo()
    chunk.add_text(SETTINGS_KEY, json.dumps(settings or {}, sort_keys=True))
    file = io.BytesIO()
    # Heat maps have at most 256 colours: an indexed file takes a third of the space.
    codes = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, index = np.unique(codes, return_inverse=True)
    if len(found) <= 256:
        image = Image.fromarray(index.reshape(codes.shape).astype(np.uint8))
        table = np.stack([found >> 16, found >> 8, found], axis=-1).astype(np.uint8)
        image.putpalette(table.tobytes())
    else:
        image = Image.fromarray(pixels)
    image.save(file, "PNG", pnginfo=chunk, optimize=True)
    return file.getvalue()


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings that a PNG file written here carries. Errors: ValueError if there are none."""
    file = regular_file(Path(path), "a PNG written by moreaugrad")
    with parsing(os.fspath(path), "a PNG written by moreaugrad"), open_image(file) as image:
        text = image.info.get(SETTINGS_KEY)
    if not isinstance(text, str):
        raise ValueError(
            f"expected a PNG written by moreaugrad; {os.fspath(path)} carries no settings: "
            "another program may have written or re-encoded it"
        )
    found: dict[str, Any] = json.loads(text)
    return found
