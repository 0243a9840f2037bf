"""Explanations as figures of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from moreaugrad.explainers.batch import ExplainedBatch, as_tuple
from moreaugrad.explainers.summary import shorter
from moreaugrad.pictures import Picture, Style, lines, photo
from moreaugrad.pictures.lines import is_series
from moreaugrad.pictures.plot import (
    PANEL,
    draw_map,
    draw_panel,
    draw_scale,
    figure,
    panel_size,
    plot_grid,
)
from moreaugrad.pictures.slices import heaviest, one_slice, slice_views
from moreaugrad.registry import choose


def sample_figure(
    batch: ExplainedBatch, *, part: int, title: str | None, style: Style | None,
    rate: float | None = None,
) -> Figure:  # fmt: skip
    """All views of the map of the only sample."""
    shown = f"{batch.method}, {heading(batch)}" if title is None else title
    values, inputs = batch.parts[part][0], as_tuple(batch.inputs)[part][0]
    if _lines(values, inputs, None, rate):
        panels = [
            partial(_draw, batch, part=part, view=view, title=view, style=style, rate=rate)
            for view in lines.VIEWS
        ]
        return plot_grid(panels, shown, columns=1, size=_size(values))
    given = _given(batch, part)
    if values.ndim == 4:
        views, numbers = slice_views(values, inputs, style, given["z_scores"]), heaviest(values)
        panels = [
            partial(
                draw_panel, name=f"{view}, slice {number}", picture=one_slice(views[view], number)
            )
            for view in (_main(views), "signed")
            for number in numbers
        ]
        return plot_grid(panels, shown, columns=len(numbers), size=panel_size(*values.shape[-2:]))
    return figure(**given, title=shown, style=style)


def draw_sample(
    batch: ExplainedBatch, axis: Axes, *, part: int, view: str | None, title: str | None,
    style: Style | None, rate: float | None = None,
) -> Figure:  # fmt: skip
    """One view of the map of the only sample on axes; their figure."""
    shown = f"{batch.method}, {heading(batch)}" if title is None else title
    _draw(batch, axis, part=part, view=view, title=shown, style=style, rate=rate)
    return axis.figure.figure  # the figure itself, where the axes are in a part of it


def batch_figure(
    batch: ExplainedBatch, *, part: int, view: str | None, title: str | None, style: Style | None,
    most: int, rate: float | None = None,
) -> Figure:  # fmt: skip
    """A view of each of the first samples; of a map that is not finite its status."""

    def drawn(one: ExplainedBatch, name: str, axis: Axes) -> None:
        if bool(one.parts[part].isfinite().all()):
            _draw(one, axis, part=part, view=view, title=name, style=style, rate=rate)
        else:
            axis.set_axis_off()
            axis.set_title(name, fontsize="medium", parse_math=False)
            axis.text(0.5, 0.5, "no map", ha="center", transform=axis.transAxes)

    samples = [
        batch.select(torch.tensor([row], device="cpu")) for row in range(min(most, len(batch)))
    ]
    if not samples:
        raise ValueError("expected a sample to draw, got an explanation of none")
    more = f", the first {most} of {len(batch)} samples" if len(batch) > most else ""
    shown = f"{batch.method}{more}" if title is None else title
    panels = [partial(drawn, one, f"{row}: {heading(one)}") for row, one in enumerate(samples)]
    first = batch.parts[part][0]
    if _lines(first, as_tuple(batch.inputs)[part][0], view, rate):
        return plot_grid(panels, shown, columns=1, size=_size(first))
    size = (1.5 * PANEL if first.ndim == 1 else PANEL, PANEL + 0.75)
    return plot_grid(panels, shown, size=size)


def heading(batch: ExplainedBatch) -> str:
    """Target and status of the only sample."""
    return f"{shorter(batch.label(int(batch.target)))}: {batch.status[0].value}"


def _draw(
    batch: ExplainedBatch, axis: Axes, *, part: int, view: str | None, title: str,
    style: Style | None, rate: float | None,
) -> None:  # fmt: skip
    """One view of the map of the only sample: of a volume the slice where most of it is."""
    values, inputs = batch.parts[part][0], as_tuple(batch.inputs)[part][0]
    if _lines(values, inputs, view, rate):
        scale = lines.draw_lines(
            axis, values, inputs, view=view or lines.LINE, rate=rate, title=title, style=style
        )
        draw_scale(axis, scale, "", lines.scale_place(_channels(values)))
        return
    given = _given(batch, part)
    if values.ndim == 4:
        views = slice_views(values, inputs, style, given["z_scores"])
        number = heaviest(values, 1)[0]
        picture = one_slice(views[choose("view", view or _main(views), views)], number)
        draw_panel(axis, f"{title}, slice {number}", picture)
        return
    draw_map(axis, **given, view=view, title=title, style=style)


def _size(values: Tensor) -> tuple[float, float]:
    """Of the panel of a series in inches."""
    return lines.WIDTH, 1.0 + lines.panel_height(_channels(values))


def _channels(values: Tensor) -> int:
    return len(values) if values.ndim == 2 else 1


def _lines(values: Tensor, inputs: Tensor, view: str | None, rate: float | None) -> bool:
    """Whether a map is drawn as lines: that of a series, unless another view is asked for."""
    if values.shape != inputs.shape or view not in (None, *lines.VIEWS):
        return False
    return is_series(values.shape, rate) or (view == lines.LINE and values.ndim < 3)


def _main(views: Mapping[str, Picture]) -> str:
    """The view of a volume that shows where a map is."""
    return "overlay" if "overlay" in views else "heat"


def _given(batch: ExplainedBatch, part: int) -> dict[str, Any]:
    """The map of the only sample, its input if that is an image, and its z-scores."""
    image = photo(as_tuple(batch.inputs)[part][0])
    scores = None if batch.z_scores is None else as_tuple(batch.z_scores)[part][0]
    return {
        "values": batch.parts[part][0],
        "image": None if image is None else image.pixels,
        "z_scores": scores,
    }
