"""What pages and notebooks share: templates that escape every text, and images inside of them."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import TYPE_CHECKING

from moreaugrad.files.foreign import shown
from moreaugrad.pictures import wording
from moreaugrad.pictures.render import Picture

if TYPE_CHECKING:
    import jinja2

SMALL = 128 * 128
QUALITY = 88
"""Of JPEG."""


@cache
def templates(package: str) -> jinja2.Environment:
    """Those of a package, each compiled once."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (wording.count, wording.exact, wording.low, wording.number, wording.percent)
    environment.filters |= {each.__name__: each for each in words}
    environment.filters |= {"data_uri": data_uri, "svg_uri": svg_uri}
    return environment


def _harmless(value: object) -> object:
    """What a template inserts; markup is made of values that have been through here."""
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def data_uri(picture: Picture) -> str:
    """The image itself, so that the page is one file."""
    kind, data = encoded(picture)
    return uri(f"image/{kind}", data)


def svg_uri(svg: str) -> str:
    """A drawing. Shown as an image, it runs no script and fetches nothing."""
    return uri("image/svg+xml", svg.encode())


def encoded(picture: Picture) -> tuple[str, bytes]:
    """PNG for images of a colormap, lines and small ones, where each pixel is seen; JPEG for
    photographs.

    An overlay of a photograph is about four times as large as a PNG. The exact pixels of every
    view are in the files of the results.
    """
    if picture.view in ("heat", "signed", "line") or picture.pixels[..., 0].size <= SMALL:
        return "png", picture.png()
    from PIL import Image

    file = io.BytesIO()
    # Full chroma resolution: sparse maps are single coloured pixels.
    Image.fromarray(picture.pixels).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return "jpeg", file.getvalue()


def uri(kind: str, data: bytes) -> str:
    """A file itself, as a link. kind: its media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
