"""Stacks in TIFF files, as of microscopes and satellites: channels of any number, and slices.

Which axis is which is read from the file, never guessed; values are as they are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moreaugrad.data.deep import MIN_IS_BLACK, MOST_CHANNELS, RGB, pages_of
from moreaugrad.files.foreign import MOST_PIXELS

STACK_SUFFIXES = (".tif", ".tiff")
MOST_VALUES = MOST_PIXELS * MOST_CHANNELS
"""Values of the largest stack that is decoded."""
Y_CB_CR, JPEG = 6, 7
"""A photometric interpretation, and the compression from which it is decoded to RGB."""
CHANNELS = "CS"
"""tifffile's letters of channels and of samples of a pixel, which are channels here."""
AXES = f"{CHANNELS}ZYX"
"""The axes of an input in their order."""
NO_DATA = 42113
"""GDAL's tag: the value of pixels that were not measured."""
BY_PAGES = ("generic", "uniform")
"""tifffile's kinds of series that do not follow from metadata."""
WITH_AXES = "write it with its axes, as tifffile.imwrite(..., metadata={'axes': 'ZYX'}), or as .npy"


def names_stack(file: str) -> bool:
    """Whether a file, or a glob of files, is an image or an array, as a network has it."""
    return file.lower().endswith(STACK_SUFFIXES)


def read_stack(file: Path) -> NDArray[Any]:
    """An image `[C, H, W]` or a volume `[C, D, H, W]`; other axes of length 1 are left out.

    Errors: ValueError for several images or moments, colours other than grey and RGB, and axes
    that have no names; for a damaged file any that tifffile raises.
    """
    import tifffile

    # Other files, which the metadata may name, are left alone.
    with tifffile.TiffFile(file, _multifile=False) as tiff:
        pages_of(tiff)  # refuses those without an end, which `series` would follow
        if len(tiff.series) != 1:
            raise ValueError(f"it holds {len(tiff.series)} series of images: save one of them")
        series = tiff.series[0]
        _check_pixels(series.keyframe)
        if series.kind in BY_PAGES and (tiff.is_ome or tiff.is_imagej or tiff.is_shaped):
            raise ValueError(f"its metadata are of other pages than it has: {WITH_AXES}")
        kept = _kept(series.axes, series.shape)
        if series.size > MOST_VALUES:
            raise ValueError(
                f"it has {series.size} values, more than {MOST_VALUES}: save it as .npy, of which "
                "a part can be read"
            )
        if any(series[number] is None for number in range(len(series))):
            raise ValueError("some of its pages are missing, or in other files")
        values = series.asarray().reshape([n for _, n in kept])
        _check_measured(values, series.keyframe)
    order = sorted(range(len(kept)), key=lambda place: AXES.index(kept[place][0]))
    values = values.transpose(order)
    return values if kept[order[0]][0] in CHANNELS else values[None]


def _kept(axes: str, lengths: Sequence[int]) -> list[tuple[str, int]]:
    """The axes of the file that are of the input, and their lengths. Errors: ValueError."""
    kept = [(axis, n) for axis, n in zip(axes, lengths, strict=True) if n > 1 or axis in "YX"]
    for axis, n in kept:
        if axis == "T":
            raise ValueError(f"it has {n} moments (axes {axes}): save one of them")
        if axis not in AXES:
            raise ValueError(f"it does not say what its {n} pages are (axes {axes}): {WITH_AXES}")
    names = [axis for axis, _ in kept]
    channels = [axis for axis in names if axis in CHANNELS]
    if len(set(names)) < len(names) or len(channels) > 1 or not {"Y", "X"} <= set(names):
        raise ValueError(
            f"its axes are {axes}, expected rows Y and columns X with at most one axis of "
            f"channels, C or S, and one of slices, Z: {WITH_AXES}"
        )
    return kept


def _check_pixels(page: Any) -> None:
    """Errors: ValueError for values that are not the brightness of something, or turned."""
    kind, turned = int(page.photometric), page.tags.get("Orientation")
    decoded = kind == Y_CB_CR and int(page.compression) == JPEG
    if kind not in (MIN_IS_BLACK, RGB) and not decoded:
        raise ValueError(f"its values are of the kind {page.photometric.name}: save grey or RGB")
    if turned is not None and int(turned.value) != 1:
        raise ValueError(f"its orientation is number {int(turned.value)}: save it upright")


def _check_measured(values: NDArray[Any], page: Any) -> None:
    """Errors: ValueError for values that stand for none. NaN is refused where inputs are made."""
    tag = page.tags.get(NO_DATA)
    count = 0 if tag is None else int(np.count_nonzero(values == float(tag.value)))
    if count:
        raise ValueError(
            f"{count} of its {values.size} values are {tag.value.strip()}, which stands for 'no "
            "data': cut them off, or replace them"
        )
