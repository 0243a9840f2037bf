"""Explanations to one HTML file: pictures inside, nothing fetched, readable without scripts."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from moreaugrad.files import write_atomically
from moreaugrad.names import shown
from moreaugrad.report import wording
from moreaugrad.report.content import Page, Tile
from moreaugrad.report.embedding import data_uri, svg_uri
from moreaugrad.report.summary import summarise

if TYPE_CHECKING:
    import jinja2


@cache
def templates() -> jinja2.Environment:
    """Those of the pages, each compiled once."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("moreaugrad.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "data_uri": data_uri,
        "svg_uri": svg_uri,
        "number": wording.number,
        "exact": wording.exact,
        "percent": wording.percent,
        "figures": wording.figures,
        "setting": wording.setting,
        "low": wording.low,
    }
    return environment


def render_page(page: Page) -> str:
    """The page as HTML: no script is needed to read it, and nothing is fetched."""
    environment = templates()
    script = environment.get_template("script.js").render()
    # The browser runs this very script and no other, whatever a label may contain.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    tiles = list(_tiles(page))
    drawn = [picture for tile in tiles for picture in tile.pictures.values()]
    palettes = {picture.scale.palette for picture in drawn if picture.scale}
    return environment.get_template("page.html.j2").render(
        page=page,
        summary=summarise(page.sections),
        views=list(dict.fromkeys(name for tile in tiles for name in tile.pictures)),
        palettes=sorted(palettes, key=lambda item: item.name),
        script_digest=digest,
    )


def _harmless(value: object) -> object:
    """What a template inserts; markup is made of values that have been through here."""
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def write_page(path: str | os.PathLike[str], page: Page) -> None:
    """Write `render_page(page)` to `path`, whole or not at all."""
    write_atomically(path, render_page(page).encode())


def _tiles(page: Page) -> Iterator[Tile]:
    for section in page.sections:
        for answer in section.answers:
            yield from answer.tiles
        for sweep in section.sweeps:
            yield from sweep.tiles
