"""Where the pictures of a page are: inside it as data URIs, or in files next to it."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass, field
from urllib.parse import quote

from moreaugrad.pictures import Picture

SMALL = 128 * 128
QUALITY = 88


def data_uri(picture: Picture) -> str:
    """The picture itself, so that the page is one file."""
    kind, data = _encoded(picture)
    return _uri(f"image/{kind}", data)


@dataclass(frozen=True)
class PictureFiles:
    """Turns pictures into links from a page to files in a folder next to it.

    files: their contents by names with the folder's. A name is a digest of the content, so that it
    has no character that a link cannot have, and equal pictures are one file.
    """

    folder: str
    files: dict[str, bytes] = field(default_factory=dict)

    def link(self, picture: Picture) -> str:
        kind, data = _encoded(picture)
        name = f"{self.folder}/{hashlib.sha256(data).hexdigest()[:32]}.{kind}"
        self.files[name] = data
        return quote(name, errors="surrogateescape")


def svg_uri(svg: str) -> str:
    """A drawing. As a picture, it runs no script and fetches nothing, whatever it holds."""
    return _uri("image/svg+xml", svg.encode())


def _encoded(picture: Picture) -> tuple[str, bytes]:
    """PNG for palette pictures and small ones, where each pixel is seen; JPEG for photographs.

    An overlay of a photograph is about four times as large as a PNG. The exact pixels of every
    view are in the files of the results.
    """
    if picture.view in ("heat", "signed") or picture.pixels[..., 0].size <= SMALL:
        return "png", picture.png()
    from PIL import Image

    file = io.BytesIO()
    # Full chroma resolution: sparse maps are single coloured pixels.
    Image.fromarray(picture.pixels).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return "jpeg", file.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
