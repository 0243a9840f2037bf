"""Pictures inside a page, as data URIs."""

from __future__ import annotations

import base64
import io

from moreaugrad.pictures import Picture

SMALL = 128 * 128
QUALITY = 88


def data_uri(picture: Picture) -> str:
    """PNG for palette pictures and small ones, where each pixel is seen; JPEG for photographs.

    An overlay of a photograph is about four times as large as a PNG. The exact pixels of every
    view are in the files beside the page.
    """
    if picture.view in ("heat", "signed") or picture.pixels[..., 0].size <= SMALL:
        return _uri("image/png", picture.png())
    from PIL import Image

    file = io.BytesIO()
    # Full chroma resolution: sparse maps are single coloured pixels.
    Image.fromarray(picture.pixels).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return _uri("image/jpeg", file.getvalue())


def svg_uri(svg: str) -> str:
    """A drawing. As a picture, it runs no script and fetches nothing, whatever it holds."""
    return _uri("image/svg+xml", svg.encode())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
