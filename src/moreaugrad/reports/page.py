"""Explanations to an HTML page: nothing fetched from elsewhere, readable without scripts."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from moreaugrad.files.atomic import write_atomically
from moreaugrad.pictures import Picture, colour_stops, html
from moreaugrad.pictures.html import data_uri, encoded
from moreaugrad.reports import wording
from moreaugrad.reports.content import Page, Table, Tile
from moreaugrad.reports.tables import summary_table
from moreaugrad.text.drawing import html_lines

if TYPE_CHECKING:
    import jinja2

INPUTS_INSIDE, MAPS_INSIDE = 32, 128
"""A page of more inputs or of more maps has its images in files next to it: with all of them
inside, 500 inputs are 53 MB, which a browser reads before it shows anything."""
LEVELS = 256
"""Colours of a heat map."""


@cache
def templates() -> jinja2.Environment:
    """Those of the pages."""
    environment = html.templates("moreaugrad.reports")
    environment.filters |= {
        "figures": wording.figures, "setting": wording.setting, "html_lines": html_lines,
    }  # fmt: skip
    return environment


def render_page(page: Page) -> str:
    """The page as HTML, all images inside: no script is needed to read it, nothing is fetched."""
    return _rendered(page, None)


def page_files(page: Page, name: str) -> dict[str, bytes]:
    """The page as files, contents by names: `name` alone, or, of a page of more than
    `INPUTS_INSIDE` inputs or `MAPS_INSIDE` maps, also its images in the folder `STEM_files`,
    which the page refers to by relative links and loads where they are looked at."""
    large = len(page.sections) > INPUTS_INSIDE or len(list(_tiles(page))) > MAPS_INSIDE
    images = _ImageFiles(f"{Path(name).stem}_files") if large else None
    text = _rendered(page, images).encode()
    # The page comes last: where it is, its images are.
    return {**({} if images is None else images.files), name: text}


def write_page(path: str | os.PathLike[str], page: Page) -> None:
    """Write `page_files` to `path` and next to it, each file whole or not at all."""
    target = Path(path)
    for name, data in page_files(page, target.name).items():
        file = target.parent / name
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, data)


def _rendered(page: Page, images: _ImageFiles | None) -> str:
    """images: the files that hold them; None puts them inside."""
    environment = templates()
    script = "\n".join(environment.get_template(name).render() for name in page.scripts)
    # The browser runs this script alone, even if a label contains another one.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    tiles = list(_tiles(page))
    drawn = [picture for tile in tiles for picture in tile.views.values()]
    scales = {(picture.view, picture.scale.palette) for picture in drawn if picture.scale}
    palettes = sorted({palette for _, palette in scales})
    heats = sorted({palette for view, palette in scales if view == "heat"})
    return environment.get_template(page.template).render(
        page=page,
        script=script,
        legend=bool(tiles) or page.template != Page.template,
        tables=page.tables or _summary(page),
        views=list(dict.fromkeys(name for tile in tiles for name in tile.views)),
        palettes={name: colour_stops(name) for name in palettes},
        heats={name: colour_stops(name, LEVELS) for name in heats},
        script_digest=digest,
        legends=_legends(tiles),
        source=data_uri if images is None else images.link,
        folder="" if images is None else images.folder,
    )


def _legends(tiles: Sequence[Tile]) -> dict[str, str]:
    """What the colours of texts mean, by a heading that names the maps where they differ."""
    found: dict[str, list[str]] = {}
    for tile in tiles:
        if tile.text is not None:
            found.setdefault(tile.text.legend, []).append(tile.title)
    if len(found) == 1:
        return {"Colours": next(iter(found))}
    return {f"Colours of {', '.join(dict.fromkeys(of))}": text for text, of in found.items()}


def _summary(page: Page) -> list[Table]:
    """Of pages that have no tables; one method alone needs none."""
    table = summary_table(page.sections)
    return [table] if len(table.rows) > 1 else []


def _tiles(page: Page) -> Iterator[Tile]:
    for section in page.sections:
        for answer in section.answers:
            yield from answer.tiles
        for sweep in section.sweeps:
            yield from sweep.tiles


@dataclass(frozen=True)
class _ImageFiles:
    """Turns images into links from a page to files in a folder next to it.

    files: their contents by names with the folder's. A name is a digest of the content, so that it
    has no character that a link cannot have, and equal images are one file.
    """

    folder: str
    files: dict[str, bytes] = field(default_factory=dict)

    def link(self, picture: Picture) -> str:
        kind, data = encoded(picture)
        name = f"{self.folder}/{hashlib.sha256(data).hexdigest()[:32]}.{kind}"
        self.files[name] = data
        return quote(name, errors="surrogateescape")
