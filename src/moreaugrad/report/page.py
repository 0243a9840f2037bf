"""Explanations to one HTML file: pictures inside, nothing fetched, readable without scripts."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from moreaugrad.files import write_atomically
from moreaugrad.pictures import Picture
from moreaugrad.report import wording
from moreaugrad.report.embedding import data_uri
from moreaugrad.report.summary import summarise


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """One map of one input. Figures that have no meaning for the method are NaN or None.

    `pictures`: views by name, as `pictures.draw` gives them; the first is shown first.
    None where the map could not be drawn.
    `status` in words, `ok` when the map can be used as it is; `warning`: what to do otherwise.
    `zeros`: share in [0, 1]; `error`, `residual`: relative; `evaluations`: gradients of one sample.
    `scores`: against the known truth. `extra`: further rows of the table.
    """

    title: str
    pictures: Mapping[str, Picture]
    status: str
    ok: bool = True
    warning: str | None = None
    zeros: float = math.nan
    error: float = math.nan
    residual: float = math.nan
    evaluations: int | None = None
    seconds: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """One tile for each value of a setting, ascending. `limit`: what the value 0 shows."""

    parameter: str
    values: Sequence[float]
    tiles: Sequence[Tile]
    limit: str = ""

    def __post_init__(self) -> None:
        if len(self.values) != len(self.tiles) or not self.tiles:
            raise ValueError(
                f"expected as many tiles as values, at least one; got {len(self.tiles)} tiles "
                f"and {len(self.values)} values"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """One input: its picture, the predicted classes with probabilities, and its maps.

    `target`: the class explained. `truth`: the known true map. `note`: a line under the heading.
    """

    title: str
    tiles: Sequence[Tile] = ()
    photo: Picture | None = None
    prediction: Sequence[tuple[str, float]] = ()
    target: str = ""
    truth: Picture | None = None
    sweeps: Sequence[Sweep] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """`command`: what made the page. `facts`: model, versions, ... in the header. `notes`: below
    it. `settings`: what runs the job again, as text."""

    title: str
    sections: Sequence[Section]
    lead: str = ""
    command: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    settings: str = ""


def render_page(page: Page) -> str:
    """The page as HTML: no script is needed to read it, and nothing is fetched."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("moreaugrad.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "data_uri": data_uri,
        "number": wording.number,
        "percent": wording.percent,
        "figures": wording.figures,
        "setting": wording.setting,
        "low": wording.low,
    }
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


def write_page(path: str | os.PathLike[str], page: Page) -> None:
    """Write `render_page(page)` to `path`, whole or not at all."""
    write_atomically(path, render_page(page).encode())


def _tiles(page: Page) -> Iterator[Tile]:
    for section in page.sections:
        yield from section.tiles
        for sweep in section.sweeps:
            yield from sweep.tiles
