"""Explanations as figures of matplotlib."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moreaugrad.explainers.batch import ExplainedBatch, as_tuple
from moreaugrad.explainers.summary import shorter
from moreaugrad.pictures import Style, photo
from moreaugrad.pictures.plot import PANEL, draw_map, figure, plot_grid


def sample_figure(
    batch: ExplainedBatch, *, part: int, title: str | None, style: Style | None
) -> Figure:
    """All views of the map of the only sample."""
    shown = f"{batch.method}, {heading(batch)}" if title is None else title
    return figure(**_given(batch, part), title=shown, style=style)


def draw_sample(
    batch: ExplainedBatch, axis: Axes, *, part: int, view: str | None, title: str | None,
    style: Style | None,
) -> Figure:  # fmt: skip
    """One view of the map of the only sample on axes; their figure."""
    shown = f"{batch.method}, {heading(batch)}" if title is None else title
    draw_map(axis, **_given(batch, part), view=view, title=shown, style=style)
    return axis.figure.figure  # the figure itself, where the axes are in a part of it


def batch_figure(
    batch: ExplainedBatch, *, part: int, view: str | None, title: str | None, style: Style | None,
    most: int,
) -> Figure:  # fmt: skip
    """A view of each of the first samples; of a map that is not finite its status."""

    def drawn(one: ExplainedBatch, name: str, axis: Axes) -> None:
        if bool(one.parts[part].isfinite().all()):
            draw_map(axis, **_given(one, part), view=view, title=name, style=style)
        else:
            axis.set_axis_off()
            axis.set_title(name, fontsize="medium", parse_math=False)
            axis.text(0.5, 0.5, "no map", ha="center", transform=axis.transAxes)

    samples = [batch.select(torch.tensor([row])) for row in range(min(most, len(batch)))]
    if not samples:
        raise ValueError("expected a sample to draw, got an explanation of none")
    more = f", the first {most} of {len(batch)} samples" if len(batch) > most else ""
    shown = f"{batch.method}{more}" if title is None else title
    panels = [partial(drawn, one, f"{row}: {heading(one)}") for row, one in enumerate(samples)]
    size = (1.5 * PANEL if batch.parts[part].ndim == 2 else PANEL, PANEL + 0.75)
    return plot_grid(panels, shown, size=size)


def heading(batch: ExplainedBatch) -> str:
    """Target and status of the only sample."""
    return f"{shorter(batch.label(int(batch.target)))}: {batch.status[0].value}"


def _given(batch: ExplainedBatch, part: int) -> dict[str, Any]:
    """The map of the only sample, its input if that is an image, and its z-scores."""
    image = photo(as_tuple(batch.inputs)[part][0])
    scores = None if batch.z_scores is None else as_tuple(batch.z_scores)[part][0]
    return {
        "values": batch.parts[part][0],
        "image": None if image is None else image.pixels,
        "z_scores": scores,
    }
