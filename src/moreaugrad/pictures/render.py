"""Maps as images: heat map, signed map, overlay and masked image, each with its colour scale."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from moreaugrad.files.atomic import write_atomically
from moreaugrad.pictures.levels import (
    PALETTES,
    SIGNED_PALETTES,
    UPPER,
    Bytes,
    Floats,
    colours,
    describe,
    finite,
    limits,
    normalise,
    one_map,
    reduce,
)
from moreaugrad.pictures.png import png_bytes
from moreaugrad.registry import choose
from moreaugrad.settings import expect
from moreaugrad.solvers.z_scores import certain

NEUTRAL = (138, 141, 148)
"""The grey of a map that is zero everywhere; no colormap has it, so it is not taken for a value."""
FADED = 0.25
"""Opacity that is left of what is not certain."""
MOST_BARS, BARS_WIDTH = 1024, 640


@dataclass(frozen=True, kw_only=True)
class Style:
    """How maps are drawn.

    percentile: magnitudes from this percentile of the map on have the last colour.
    reduction: channels to one magnitude, "abs-sum" or "max-abs"; signed maps are always summed.
    palette: colormap of unsigned maps, "magma", "cividis" or "grey".
    signed_palette: colormap of signed maps, "blue-white-orange".
    opacity: of the strongest entries of an overlay, in (0, 1].
    keep: fraction of the pixels that a masked image keeps.
    certain: level, such as 0.95, at which entries of an overlay whose sign or zero is not certain
    are faded; None fades none. It needs z-scores, which maps of methods with noise have.

    >>> from moreaugrad.pictures import Style
    >>> style = Style(percentile=95, palette="cividis")
    """

    percentile: float = 99.0
    reduction: str = "abs-sum"
    palette: str = "magma"
    signed_palette: str = "blue-white-orange"
    opacity: float = 0.9
    keep: float = 0.1
    certain: float | None = None

    def __post_init__(self) -> None:
        choose("reduction of an unsigned map", self.reduction, ("abs-sum", "max-abs"))
        choose("palette", self.palette, PALETTES)
        choose("signed palette", self.signed_palette, SIGNED_PALETTES)
        for name, top in (("percentile", 100.0), ("opacity", 1.0), ("keep", 1.0)):
            value = getattr(self, name)
            expect(0 < value <= top, name, f"a number in (0, {top:g}]", value)
        known = self.certain is None or 0 < self.certain < 1
        expect(known, "certain", "a level between 0 and 1", self.certain)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What the colours of a heat map mean: `low` and `high` have the first and the last colour."""

    palette: str
    low: float
    high: float
    percentile: float
    reduction: str

    @property
    def starts_near_zero(self) -> bool:
        """Whether the lower end is so small that its digits would say nothing."""
        return 0 < self.low < self.high / 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A rendered map or input: `pixels` `[H, W, 3]` in sRGB, uint8, with a caption in words.

    view: "heat", "signed", "overlay", "masked", "line", "pairs" or "photo". scale: None where the
    colours are those of a photo or of pairs. slices: the numbers of those of a volume that are
    below each other.
    """

    view: str
    pixels: Bytes
    caption: str
    scale: Scale | None = None
    slices: range = range(0)

    def settings(self) -> dict[str, Any]:
        """What it shows and how, as JSON can hold it."""
        scale = {} if self.scale is None else asdict(self.scale)
        return {"view": self.view, "caption": self.caption, **scale}

    def png(self, settings: Mapping[str, Any] | None = None) -> bytes:
        """A PNG file that carries `settings` and, as "picture", its own."""
        return png_bytes(self.pixels, {**(settings or {}), "picture": self.settings()})

    def save(self, path: str | os.PathLike[str], settings: Mapping[str, Any] | None = None) -> None:
        """Write `png` to a file, either the whole of it or nothing."""
        write_atomically(path, self.png(settings))


def heatmap(
    values: Tensor | ArrayLike, *, signed: bool = False, style: Style | None = None
) -> Picture:
    """One map as colours: `[C, H, W]` with any number of channels, `[H, W]`, or `[N]` as bars.

    Unsigned: the magnitude, reduced over the channels. Signed: the sum over the channels, zero in
    the middle of the colormap. A map of zeros is a neutral grey, and its caption says so.
    Errors: ValueError for NaN or infinite entries, another rank or an empty map.
    """
    style = style or Style()
    values = one_map(values)
    how, name = ("sum", style.signed_palette) if signed else (style.reduction, style.palette)
    reduced = reduce(values, how)
    if values.any():
        levels = normalise(reduced, style.percentile, signed=signed)
        pixels = colours(levels, name)
    else:
        levels = reduced
        pixels = np.broadcast_to(np.array(NEUTRAL, np.uint8), (*reduced.shape, 3))
    if levels.ndim == 1:
        pixels = _bars(levels, pixels, signed=signed)
    # A signal of few channels is a strip: its rows are repeated until it can be seen.
    pixels = pixels.repeat(max(1, pixels.shape[1] // (8 * pixels.shape[0])), axis=0)
    return Picture(
        view="signed" if signed else "heat",
        pixels=np.ascontiguousarray(pixels),
        caption=describe(values),
        scale=_scale(reduced, name, how, style, signed=signed),
    )


def overlay(
    values: Tensor | ArrayLike,
    image: Tensor | ArrayLike,
    *,
    style: Style | None = None,
    z_scores: Tensor | ArrayLike | None = None,
) -> Picture:
    """The heat map over the image in grey; opacity rises with the level.

    z_scores: of the map's entries, which fade what is not certain at the style's level.
    """
    style = style or Style()
    values, reduced, pixels = _over(values, image, style)
    # The dark end of a colormap would hide weak entries: an overlay starts above it.
    name = UPPER + style.palette
    level = normalise(reduced, style.percentile)
    alpha = (style.opacity * level**0.7)[..., None]
    caption = describe(values)
    if style.certain is not None and z_scores is not None:
        known = _certain_fraction(values, z_scores, style.certain)
        alpha = alpha * (FADED + (1 - FADED) * known[..., None])
        part = (known * reduced).sum() / max(reduced.sum(), np.finfo(float).tiny)
        caption += f"; {part:.1%} of it is certain at the level {style.certain:g}, the rest faded"
    grey = 30 + 0.65 * _grey(pixels)[..., None]
    return Picture(
        view="overlay",
        pixels=_bytes((1 - alpha) * grey + alpha * colours(level, name)),
        caption=caption,
        scale=_scale(reduced, name, style.reduction, style),
    )


def masked(
    values: Tensor | ArrayLike, image: Tensor | ArrayLike, *, style: Style | None = None
) -> Picture:
    """The image at the fraction `keep` of its pixels where the map is largest; the rest is faded.

    Pixels where the map is zero are never kept; of equal pixels the earlier (row by row) is.
    """
    style = style or Style()
    values, reduced, pixels = _over(values, image, style)
    wanted = max(1, round(style.keep * reduced.size))
    kept = np.zeros(reduced.size, bool)
    kept[np.argsort(-reduced, axis=None, kind="stable")[:wanted]] = True
    kept = kept.reshape(reduced.shape) & (reduced > 0)
    faded = 118 + 0.15 * (_grey(pixels)[..., None] - 128)
    return Picture(
        view="masked",
        pixels=_bytes(np.where(kept[..., None], pixels, faded)),
        caption=f"{kept.mean():.1%} of the pixels kept, where the map is largest"
        if kept.any()
        else describe(values),
    )


def photo(inputs: Tensor | ArrayLike) -> Picture | None:
    """An input `[C, H, W]` (C of 1 or 3) or `[H, W]` as an image, or None for other shapes.

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
    """An image `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, floats in [0, 1] or uint8, as it is."""
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] not in (1, 3):
        raise ValueError(
            "expected an image [H, W] or [H, W, 3], "
            f"got shape {list(array.shape)}: pictures.photo() makes one of a model's input"
        )
    if array.dtype != np.uint8:
        floats = finite(array)
        if floats.min() < 0 or floats.max() > 1:
            raise ValueError(
                "expected an image of floats in [0, 1], got values from "
                f"{floats.min():.3g} to {floats.max():.3g}: undo the model's normalisation"
            )
        array = _bytes(255 * floats)
    height, width = array.shape[:2]
    pixels = np.broadcast_to(array, (height, width, 3))
    return Picture(view="photo", pixels=pixels, caption=f"{width} x {height} pixels")


def draw(
    values: Tensor | ArrayLike,
    image: Tensor | ArrayLike | None = None,
    style: Style | None = None,
    z_scores: Tensor | ArrayLike | None = None,
) -> dict[str, Picture]:
    """All views of a map by name: heat, signed and, over an image, overlay and masked.

    values: `[C, H, W]`, `[H, W]` or `[N]`. image: as in `as_photo`, of the map's size. z_scores: as
    in `overlay`.
    """
    views = [heatmap(values, style=style), heatmap(values, signed=True, style=style)]
    if image is not None:
        over = overlay(values, image, style=style, z_scores=z_scores)
        views += [over, masked(values, image, style=style)]
    return {picture.view: picture for picture in views}


def _scale(reduced: Floats, name: str, how: str, style: Style, *, signed: bool = False) -> Scale:
    ends = limits(reduced, style.percentile, signed=signed)
    low, high = (float(end.item()) for end in ends)
    return Scale(
        palette=name, low=0.0 - high if signed else low, high=high,
        percentile=style.percentile, reduction=how,
    )  # fmt: skip


def _bars(levels: Floats, colours: Bytes, *, signed: bool, height: int = 160) -> Bytes:
    """Levels `[N]` as bars `[height, W, 3]`; where many entries share a bar, it is the largest."""
    if len(levels) > MOST_BARS:
        chunks = np.array_split(np.arange(len(levels)), MOST_BARS)
        strongest = np.array([chunk[np.abs(levels[chunk]).argmax()] for chunk in chunks])
        levels, colours = levels[strongest], colours[strongest]
    width = max(1, BARS_WIDTH // len(levels))
    gap = 0 if width < 4 else max(1, width // 8)
    canvas = np.full((height, len(levels) * width, 3), 236, np.uint8)
    base = height // 2 if signed else height - 1
    for position, (level, colour) in enumerate(zip(levels, colours, strict=True)):
        end = base - round(level * (base - 4))
        rows = slice(min(base, end), max(base, end) + 1)
        canvas[rows, position * width : (position + 1) * width - gap] = colour
    canvas[base] = NEUTRAL
    return canvas


def _over(
    values: Tensor | ArrayLike, image: Tensor | ArrayLike, style: Style
) -> tuple[Floats, Floats, Bytes]:
    """The map, the map reduced over its channels, and the pixels of an image of its size."""
    values, pixels = one_map(values), as_photo(image).pixels
    reduced = reduce(values, style.reduction)
    if reduced.shape != pixels.shape[:2]:
        raise ValueError(
            f"expected an image of the map's size {list(reduced.shape)}, "
            f"got {list(pixels.shape[:2])}: crop and resize it like the model's input"
        )
    return values, reduced, pixels


def _certain_fraction(values: Floats, z_scores: Tensor | ArrayLike, level: float) -> Floats:
    """Of each pixel's magnitude, the fraction that is of certain entries, `[H, W]`."""
    size = torch.from_numpy(np.abs(values))
    z = torch.as_tensor(z_scores).detach().cpu().reshape(1, -1)
    found = certain(z, size.reshape(1, -1) == 0, level).reshape(size.shape).to(size)
    size, found = (part.reshape(-1, *size.shape[-2:]) for part in (size, found))
    total = size.sum(0)
    return ((found * size).sum(0) / torch.where(total > 0, total, 1.0)).numpy()


def _grey(pixels: Bytes) -> Floats:
    """Luma of Rec. 601."""
    return np.asarray(pixels @ np.array([0.299, 0.587, 0.114]))


def _bytes(values: Floats) -> Bytes:
    return np.clip(values, 0, 255).round().astype(np.uint8)
