"""What a page shows: inputs, their maps, sweeps over a setting, and how they were made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from moreaugrad.pictures import Picture
from moreaugrad.text.drawing import Drawn


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """One map of one input. Figures that have no meaning for the method are NaN or None.

    `views`: images by name, as `pictures.draw` gives them (none where the map could not be
    drawn); the first is shown first. `status` in a word or two, `ok` when the map can be used as
    it is, `warning`: what to do otherwise. `text`: the highlighted text, of a map of one.
    `zeros`: fraction in [0, 1]; `gini`: index over all entries; `error`, `residual`: relative;
    `evaluations`: gradients of one sample.
    `scores`: against the ground truth, larger is better. `extra`: further rows of the table.
    """

    title: str
    views: Mapping[str, Picture]
    status: str
    ok: bool = True
    warning: str | None = None
    zeros: float = math.nan
    gini: float = math.nan
    error: float = math.nan
    residual: float = math.nan
    evaluations: int | None = None
    seconds: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)
    text: Drawn | None = None


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
class Answer:
    """What one network answers to an input: the predicted classes with probabilities, and its maps.

    `network`: its name, where a page has several. `target`: the class explained.
    """

    network: str = ""
    prediction: Sequence[tuple[str, float]] = ()
    target: str = ""
    tiles: Sequence[Tile] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Section(Answer):
    """One input: its image and a network's answer.

    `truth`: the ground truth map. `sweeps`: of that network. `note`: a line under the heading.
    `compared`: the answer of another network to the same input. `peak`: the slice of a volume that
    is shown first.
    """

    title: str
    photo: Picture | None = None
    truth: Picture | None = None
    sweeps: Sequence[Sweep] = ()
    note: str = ""
    compared: Answer | None = None
    peak: int = 0

    @property
    def answers(self) -> Sequence[Answer]:
        return (self,) if self.compared is None else (self, self.compared)

    @property
    def slices(self) -> range:
        """The numbers of the slices that its pictures have below each other."""
        tiles = [tile for answer in self.answers for tile in answer.tiles]
        tiles += [tile for sweep in self.sweeps for tile in sweep.tiles]
        views = [view for tile in tiles for view in tile.views.values()]
        return next((view.slices for view in views if view.slices), range(0))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A number as text, its confidence interval, and what is missing from it."""

    text: str = ""
    interval: str = ""
    best: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """`rows`: a heading and an entry for each of `columns`. `head`: what the headings are."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Entry]]]
    head: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """A drawing as SVG, and what it shows in words."""

    title: str
    svg: str
    words: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """`command`: what made the page. `facts`: model, versions, ... in the header. `notes`: below
    it. `settings`: what runs the job again, as text. With `tables` the page does not make its own
    summary of the maps."""

    title: str
    sections: Sequence[Section]
    lead: str = ""
    command: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    settings: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()

    template: ClassVar[str] = "page.html.j2"
    scripts: ClassVar[Sequence[str]] = ("script.js",)


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to use for a purpose. reasons: sentences. command, python: how."""

    title: str
    choice: str
    summary: str
    reasons: Sequence[str]
    command: str
    python: str


@dataclass(frozen=True, kw_only=True, eq=False)
class RecommendationPage(Page):
    """`advice`: one for each purpose. `points`: JSON of the candidates, which the chart is drawn of
    by a script; `charts` are shown without one. `background`: headings with a paragraph each."""

    advice: Sequence[Advice] = ()
    background: Mapping[str, str] = field(default_factory=dict)
    points: str = ""

    template: ClassVar[str] = "recommendation.html.j2"
    scripts: ClassVar[Sequence[str]] = ("script.js", "fronts.js")
