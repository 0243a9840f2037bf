"""Maps to pictures: heat map, signed map, overlay and masked image, each with its scale."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from moreaugrad.files.atomic import write_atomically
from moreaugrad.pictures.levels import (
    Floats,
    describe,
    finite,
    limits,
    normalise,
    one_map,
    reduce,
)
from moreaugrad.pictures.palettes import Palette, palette
from moreaugrad.pictures.png import png_bytes
from moreaugrad.registry import choose

Bytes = NDArray[np.uint8]

NEUTRAL = (138, 141, 148)
"""The grey of a map that is zero everywhere: no colour of a palette, so never taken for a value."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How maps are drawn.

    `percentile`: magnitudes from this percentile of the picture on get the last colour.
    `reduction`: channels to one magnitude, "abs-sum" or "max-abs" (signed pictures take the sum).
    `opacity`: of the strongest entries in an overlay. `keep`: share of pixels a mask leaves.
    """

    percentile: float = 99.0
    reduction: str = "abs-sum"
    palette: str = "magma"
    signed_palette: str = "blue-white-orange"
    opacity: float = 0.9
    keep: float = 0.1

    def __post_init__(self) -> None:
        choose("reduction of an unsigned picture", self.reduction, ("abs-sum", "max-abs"))
        palette(self.palette, signed=False)
        palette(self.signed_palette, signed=True)
        for name, value, top in (
            ("percentile", self.percentile, 100.0),
            ("opacity", self.opacity, 1.0),
            ("keep", self.keep, 1.0),
        ):
            if not 0 < value <= top:
                raise ValueError(f"{name}: expected a number in (0, {top:g}]; got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What the colours of a picture mean: `low` and `high` lie at the ends of the palette."""

    palette: Palette
    low: float
    high: float
    percentile: float
    reduction: str

    @property
    def starts_near_zero(self) -> bool:
        """Whether the lower end is a tiny positive number, whose digits would say nothing."""
        return 0 < self.low < self.high / 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """`pixels` `[H, W, 3]` sRGB bytes, how they were made, and a caption in words."""

    view: str
    pixels: Bytes
    caption: str
    scale: Scale | None = None

    def settings(self) -> dict[str, Any]:
        """What the picture shows and how, JSON-able."""
        found: dict[str, Any] = {"view": self.view, "caption": self.caption}
        if self.scale is not None:
            found |= {
                "palette": self.scale.palette.name,
                "low": self.scale.low,
                "high": self.scale.high,
                "percentile": self.scale.percentile,
                "reduction": self.scale.reduction,
            }
        return found

    def png(self, settings: Mapping[str, Any] | None = None) -> bytes:
        """The picture as a PNG file that carries `settings` and, as "picture", its own."""
        return png_bytes(self.pixels, {**(settings or {}), "picture": self.settings()})

    def save(self, path: str | os.PathLike[str], settings: Mapping[str, Any] | None = None) -> None:
        write_atomically(path, self.png(settings))


def heatmap(
    values: Tensor | ArrayLike, *, signed: bool = False, style: Style | None = None
) -> Picture:
    """One map as colours: `[C, H, W]` (any C), `[H, W]`, or `[N]` (bars).

    Unsigned: magnitude, summed over the channels. Signed: the sum over the channels, with the
    middle of the palette at zero. A map of zeros is a neutral grey, and the caption says so.
    Errors: ValueError for NaN, infinite entries, another rank or an empty map.
    """
    style = style or Style()
    values = one_map(values)
    how = "sum" if signed else style.reduction
    chosen = palette(style.signed_palette if signed else style.palette, signed=signed)
    reduced = reduce(values, how)
    low, high = (float(end.item()) for end in limits(reduced, style.percentile, signed=signed))
    if not values.any():
        pixels = np.broadcast_to(np.array(NEUTRAL, np.uint8), (*reduced.shape, 3))
        pixels = _bars(reduced, pixels, signed=signed) if reduced.ndim == 1 else pixels
    else:
        levels = normalise(reduced, style.percentile, signed=signed)
        colours = chosen.colours(levels)
        pixels = _bars(levels, colours, signed=signed) if levels.ndim == 1 else colours
    # A signal of few channels is a strip: rows are repeated until it can be seen.
    pixels = pixels.repeat(max(1, pixels.shape[1] // (8 * pixels.shape[0])), axis=0)
    return Picture(
        view="signed" if signed else "heat",
        pixels=np.ascontiguousarray(pixels),
        caption=describe(values),
        scale=_scale(chosen, 0.0 - high if signed else low, high, how, style),
    )


def overlay(
    values: Tensor | ArrayLike, image: Tensor | ArrayLike, *, style: Style | None = None
) -> Picture:
    """The heat map over the picture in grey; opacity rises with the level."""
    style = style or Style()
    values, photo_pixels = one_map(values), _photo_pixels(image)
    reduced = reduce(values, style.reduction)
    _same_size(reduced, photo_pixels)
    low, high = (float(end.item()) for end in limits(reduced, style.percentile, signed=False))
    # The dark end of a palette would hide weak entries: an overlay starts above it.
    chosen = palette(style.palette, signed=False).upper
    level = normalise(reduced, style.percentile)
    alpha = (style.opacity * level**0.7)[..., None]
    grey = 30 + 0.65 * _grey(photo_pixels)[..., None]
    return Picture(
        view="overlay",
        pixels=_bytes((1 - alpha) * grey + alpha * chosen.colours(level)),
        caption=describe(values),
        scale=_scale(chosen, low, high, style.reduction, style),
    )


def masked(
    values: Tensor | ArrayLike, image: Tensor | ArrayLike, *, style: Style | None = None
) -> Picture:
    """The picture at the share `keep` of its pixels where the map is largest; the rest is faded.

    Pixels where the map is zero are never kept; of equal ones the earlier (row by row).
    """
    style = style or Style()
    values, photo_pixels = one_map(values), _photo_pixels(image)
    reduced = reduce(values, style.reduction)
    _same_size(reduced, photo_pixels)
    wanted = max(1, round(style.keep * reduced.size))
    order = np.argsort(-reduced, axis=None, kind="stable")[:wanted]
    kept = np.zeros(reduced.size, bool)
    kept[order] = True
    kept = kept.reshape(reduced.shape) & (reduced > 0)
    faded = 118 + 0.15 * (_grey(photo_pixels)[..., None] - 128)
    return Picture(
        view="masked",
        pixels=_bytes(np.where(kept[..., None], photo_pixels, faded)),
        caption=f"{kept.mean():.1%} of the pixels kept, where the map is largest"
        if kept.any()
        else describe(values),
    )


def photo(inputs: Tensor | ArrayLike) -> Picture | None:
    """An input `[C, H, W]` (C of 1 or 3) or `[H, W]` as a picture, or None for other shapes.

    Values in [0, 1] are shown as they are; others (a normalised input) are stretched from their
    own smallest to their largest.
    """
    values = finite(inputs)
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = values.transpose(1, 2, 0)
    elif values.ndim != 2:
        return None
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        values = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return as_photo(values)


def as_photo(image: Tensor | ArrayLike) -> Picture:
    """A picture `[H, W]` or `[H, W, 3]`, floats in [0, 1] or bytes, as it is."""
    pixels = _photo_pixels(image)
    height, width = pixels.shape[:2]
    return Picture(view="photo", pixels=pixels, caption=f"{width} x {height} pixels")


def draw(
    values: Tensor | ArrayLike,
    image: Tensor | ArrayLike | None = None,
    style: Style | None = None,
) -> dict[str, Picture]:
    """All views of a map by name: heat, signed and, over an image, overlay and masked."""
    views = [heatmap(values, style=style), heatmap(values, signed=True, style=style)]
    if image is not None:
        views += [overlay(values, image, style=style), masked(values, image, style=style)]
    return {picture.view: picture for picture in views}


def _scale(chosen: Palette, low: float, high: float, how: str, style: Style) -> Scale:
    return Scale(palette=chosen, low=low, high=high, percentile=style.percentile, reduction=how)


def _bars(levels: Floats, colours: Bytes, *, signed: bool, height: int = 160) -> Bytes:
    """`[N]` levels as bars `[height, W, 3]`; many entries share a bar, the largest one shown."""
    most = 1024
    if len(levels) > most:
        chunks = np.array_split(np.arange(len(levels)), most)
        strongest = np.array([chunk[np.abs(levels[chunk]).argmax()] for chunk in chunks])
        levels, colours = levels[strongest], colours[strongest]
    width = max(1, 640 // len(levels))
    gap = 0 if width < 4 else max(1, width // 8)
    canvas = np.full((height, len(levels) * width, 3), 236, np.uint8)
    base = height // 2 if signed else height - 1
    reach = base - 4
    for position, (level, colour) in enumerate(zip(levels, colours, strict=True)):
        end = base - round(level * reach)
        rows = slice(min(base, end), max(base, end) + 1)
        canvas[rows, position * width : (position + 1) * width - gap] = colour
    canvas[base] = NEUTRAL
    return canvas


def _photo_pixels(image: Tensor | ArrayLike) -> Bytes:
    """`[H, W]`, `[H, W, 1]` or `[H, W, 3]`, floats in [0, 1] or bytes, to `[H, W, 3]` bytes."""
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] not in (1, 3):
        raise ValueError(
            "expected a picture [H, W] or [H, W, 3]; "
            f"got shape {list(array.shape)}: pictures.photo() makes one from a model's input"
        )
    if array.dtype != np.uint8:
        floats = finite(array)
        if floats.min() < 0 or floats.max() > 1:
            raise ValueError(
                "expected a picture of floats in [0, 1]; got values from "
                f"{floats.min():.3g} to {floats.max():.3g}: undo the model's normalisation"
            )
        array = _bytes(255 * floats)
    return np.broadcast_to(array, (*array.shape[:2], 3))


def _same_size(reduced: Floats, pixels: Bytes) -> None:
    if reduced.shape != pixels.shape[:2]:
        raise ValueError(
            f"expected a picture of the map's size {list(reduced.shape)}; "
            f"got {list(pixels.shape[:2])}: crop and resize it as the model's input was"
        )


def _grey(pixels: Bytes) -> Floats:
    """Luma of Rec. 601."""
    return np.asarray(pixels @ np.array([0.299, 0.587, 0.114]))


def _bytes(values: Floats) -> Bytes:
    return np.clip(values, 0, 255).round().astype(np.uint8)
