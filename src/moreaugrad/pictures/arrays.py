"""Maps of inputs of any shape: lines of series, slices of volumes, images and bars."""

from __future__ import annotations

from torch import Tensor

from moreaugrad.pictures.lines import is_series, line_pictures, series_picture
from moreaugrad.pictures.render import Picture, Style, draw, photo
from moreaugrad.pictures.slices import slice_views, volume_picture


def draw_array(
    values: Tensor,
    inputs: Tensor,
    style: Style | None = None,
    z_scores: Tensor | None = None,
    *,
    rate: float | None = None,
) -> dict[str, Picture]:
    """All views of the map of an input; {} where the map has more than four axes.

    values, inputs: of one sample, on the CPU, of the same shape unless the map is of a layer.
    rate: samples per second of a series.
    """
    if is_series(values.shape, rate) and values.shape == inputs.shape:
        return line_pictures(values, inputs, rate=rate, style=style)
    if values.ndim == 4:
        return slice_views(values, inputs, style, z_scores)
    if values.ndim > 4:
        return {}
    image = photo(inputs) if inputs.shape[-2:] == values.shape[-2:] else None
    return draw(values, None if image is None else image.pixels, style, z_scores)


def input_picture(inputs: Tensor, rate: float | None = None) -> Picture | None:
    """An input of one sample; None where it is no series, volume or image."""
    if is_series(inputs.shape, rate):
        return series_picture(inputs, rate)
    return volume_picture(inputs) if inputs.ndim == 4 else photo(inputs)
