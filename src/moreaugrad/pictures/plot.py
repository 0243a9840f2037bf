"""Maps as matplotlib figures, for notebooks and papers."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from moreaugrad.files.atomic import write_atomically
from moreaugrad.pictures.levels import Floats, colours, normalise, one_map, palette, reduce
from moreaugrad.pictures.png import SETTINGS_KEY
from moreaugrad.pictures.render import (
    NEUTRAL,
    Picture,
    Scale,
    Style,
    as_photo,
    draw,
    heatmap,
)
from moreaugrad.registry import choose
from moreaugrad.settings import expect

PANEL = 3.0
"""Width of a panel in inches."""
NAMED_BARS = 60
"""With more bars than this their names are left out."""


class ShownFigure(Figure):
    """A figure that a notebook displays without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        return figure_bytes(self, "png")


def figure(
    values: Tensor | ArrayLike,
    image: Tensor | ArrayLike | None = None,
    *,
    title: str = "",
    names: Sequence[str] | None = None,
    style: Style | None = None,
    z_scores: Tensor | ArrayLike | None = None,
) -> Figure:
    """All views of one map side by side, after the image if there is one.

    values, image, z_scores: as in `draw`. A map `[N]` becomes bars; names: a label for each.
    Errors: ValueError for a map that cannot be drawn, and another number of names than bars.
    """
    values, style = one_map(values), style or Style()
    if values.ndim == 1:
        named = names is not None and len(names) <= NAMED_BARS
        tall = max(1.5, 0.28 * len(values) + 0.8) if named else PANEL
        shown = ShownFigure(figsize=((2 if named else 3) * PANEL, tall), layout="constrained")
        _bars(shown.subplots(), values, names, title, style)
        return shown
    pictures = list(draw(values, image, style, z_scores).values())
    if image is not None:
        pictures.insert(0, as_photo(image))
    panels = [(picture.view, picture) for picture in pictures]
    return _row(panels, title or pictures[-1].caption, columns=len(panels))


def draw_map(
    axis: Axes,
    values: Tensor | ArrayLike,
    image: Tensor | ArrayLike | None = None,
    *,
    view: str | None = None,
    title: str = "",
    names: Sequence[str] | None = None,
    style: Style | None = None,
    z_scores: Tensor | ArrayLike | None = None,
) -> None:
    """One view of one map on axes: by default the overlay, or the heat map without an image.

    The others as in `figure`. Errors: ValueError for a view that such a map does not have.
    """
    values, style = one_map(values), style or Style()
    if values.ndim == 1:
        expect(view is None, "view", "None, as a map [N] is drawn as bars", view)
        _bars(axis, values, names, title, style)
        return
    pictures = draw(values, image, style, z_scores)
    view = view or ("heat" if image is None else "overlay")
    choose("view", view, pictures)
    draw_panel(axis, title, pictures[view])


def plot_grid(
    panels: Sequence[Callable[[Axes], None]],
    title: str = "",
    *,
    columns: int = 4,
    size: tuple[float, float] = (PANEL, PANEL + 0.75),
) -> Figure:
    """Panels side by side, each drawn by its own function. size: of one of them in inches."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width, tall = size
    shown = ShownFigure(
        figsize=(width * columns, tall * rows + 0.3 * bool(title)), layout="constrained"
    )
    if title:
        shown.suptitle(title, fontsize="medium", parse_math=False)
    axes = list(shown.subplots(rows, columns, squeeze=False).flat)
    for axis, drawn in zip(axes, panels, strict=False):
        drawn(axis)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return shown


def plot_maps(
    maps: Mapping[str, Tensor | ArrayLike],
    image: Tensor | ArrayLike | None = None,
    *,
    signed: bool = False,
    title: str = "",
    columns: int = 4,
    style: Style | None = None,
) -> Figure:
    """Several maps of one image, a panel for each, titled by their keys.

    maps: `[C, H, W]` or `[H, W]` each. signed: with the sign of the sum over the channels instead
    of the magnitude. columns: panels in a row at most.
    Errors: ValueError for no maps at all and for a map that cannot be drawn.
    """
    if not maps:
        raise ValueError("expected at least one map, got none")
    panels = [(name, heatmap(values, signed=signed, style=style)) for name, values in maps.items()]
    if image is not None:
        panels.insert(0, ("image", as_photo(image)))
    return _row(panels, title, columns=min(columns, len(panels)))


def save_figure(
    shown: Figure, path: str | os.PathLike[str], settings: Mapping[str, Any] | None = None
) -> None:
    """Write a figure, either the whole file or nothing. Its suffix chooses the format.

    settings: kept in a PNG file as JSON, see `read_settings`.
    Errors: ValueError for a suffix that matplotlib cannot write.
    """
    kind = Path(path).suffix.lstrip(".").lower() or "png"
    known = sorted(shown.canvas.get_supported_filetypes())
    if kind not in known:
        raise ValueError(f"expected a file ending in one of {', '.join(known)}; got {Path(path)}")
    write_atomically(path, figure_bytes(shown, kind, settings))


def figure_bytes(shown: Figure, kind: str, settings: Mapping[str, Any] | None = None) -> bytes:
    """A figure as a file of one of matplotlib's formats; a PNG file carries `settings`."""
    metadata = {SETTINGS_KEY: json.dumps(settings or {}, sort_keys=True)} if kind == "png" else None
    file = io.BytesIO()
    shown.savefig(file, format=kind, metadata=metadata, dpi=144)
    return file.getvalue()


def _row(panels: Sequence[tuple[str, Picture]], title: str, *, columns: int) -> Figure:
    size = panel_size(*panels[0][1].pixels.shape[:2])
    drawn = [partial(draw_panel, name=name, picture=picture) for name, picture in panels]
    return plot_grid(drawn, title, columns=columns, size=size)


def panel_size(height: int, width: int) -> tuple[float, float]:
    """In inches, of an image with this many pixels."""
    return PANEL, PANEL * min(2.0, max(0.25, height / width)) + 0.75


def draw_panel(axis: Axes, name: str, picture: Picture) -> None:
    """An image with its title and colour bar."""
    axis.set_axis_off()
    axis.set_title(name, fontsize="medium", parse_math=False)
    axis.imshow(picture.pixels, interpolation="nearest")
    if picture.scale is not None:
        draw_scale(axis, picture.scale, picture.caption)


def draw_scale(
    axis: Axes, scale: Scale, caption: str,
    place: tuple[float, float, float, float] = (0.04, -0.1, 0.92, 0.035),
) -> None:  # fmt: skip
    """A colour bar, by default below the panel; the caption if the colours have no range."""
    below = axis.inset_axes(place)
    if not scale.high > scale.low:
        below.set_axis_off()
        below.text(0.5, 0.5, caption, ha="center", va="center", fontsize="small")
        return
    below.imshow(palette(scale.palette)[None], aspect="auto", extent=(scale.low, scale.high, 0, 1))
    ticks = [scale.low, 0, scale.high] if scale.low < 0 else [scale.low, scale.high]
    below.set_yticks([])
    words = [f"{tick:.3g}" for tick in ticks]
    words[0] = "≈ 0" if scale.starts_near_zero else words[0]
    below.set_xticks(ticks, words, fontsize="small")
    below.get_xticklabels()[0].set_horizontalalignment("left")
    below.get_xticklabels()[-1].set_horizontalalignment("right")
    below.tick_params(length=0)
    below.spines[:].set_visible(False)


def _bars(
    axis: Axes, values: Floats, names: Sequence[str] | None, title: str, style: Style
) -> None:
    if names is not None and len(names) != len(values):
        raise ValueError(f"expected {len(values)} names, one per entry; got {len(names)}")
    signed, shades = reduce(values, "sum"), np.array(NEUTRAL) / 255
    if values.any():
        levels = normalise(signed, signed=True)
        # Pale bars could not be seen on white; their length shows the value anyway.
        visible = np.sign(levels) * (0.4 + 0.6 * np.abs(levels))
        shades = colours(visible, style.signed_palette) / 255
    named = names is not None and len(names) <= NAMED_BARS
    places = np.arange(len(values))
    thin = 0.5 * (len(values) <= NAMED_BARS)
    look: dict[str, Any] = {"color": shades, "edgecolor": "0.4", "linewidth": thin}
    if named and names is not None:
        axis.barh(places, signed, **look)
        axis.set_yticks(places, list(names), parse_math=False)
        axis.invert_yaxis()
        axis.axvline(0, color="0.4", linewidth=0.8)
        axis.set_xlabel("map")
    else:
        axis.bar(places, signed, 1.0, **look)
        axis.axhline(0, color="0.4", linewidth=0.8)
        axis.set_xlabel("entry")
        axis.set_ylabel("map")
    if not values.any():
        axis.text(0.5, 0.6, "map is zero", ha="center", transform=axis.transAxes)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize="medium", parse_math=False)
