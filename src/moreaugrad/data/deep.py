"""Images with more than 8 bits a channel: 16-bit PNG and TIFF, and floating-point TIFF.

Pillow reads 16-bit colours with 8 bits, so tifffile and imagecodecs read these files.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from moreaugrad.files.foreign import MOST_PIXELS, open_image

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

LUMA = (0.299, 0.587, 0.114)
"""Weights of ITU-R 601-2, as in Pillow."""
NO_RANGE = "have no known range; save it as unsigned integers, or as floats from 0 to 1"
UNSPECIFIED, PREMULTIPLIED = 0, 1
"""Kinds of extra samples of a TIFF file; 2 is alpha that is not multiplied into the colours."""
MIN_IS_WHITE, MIN_IS_BLACK, RGB = 0, 1, 2
"""Photometric interpretations of a TIFF file."""
MOST_CHANNELS = 4
"""Largest number of channels of a TIFF file with `MOST_PIXELS` pixels."""
DARK = 1 / 8
"""A warning is given if no value of an image reaches this fraction of its range."""


class DeepImage:
    """An image with more than 8 bits, which can be used like an image of Pillow.

    values: `[H, W, C]` float32 from 0 to 255, with 3 channels or 1 (grey).
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.ascontiguousarray(values, dtype=np.float32)
        self.height, self.width = self.values.shape[:2]
        self.size = self.width, self.height

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.values, dtype=dtype)

    def convert(self, mode: str) -> DeepImage:
        """In the mode "RGB", or in grey levels, "L"."""
        if mode == "L":
            return DeepImage((self.values * np.array(LUMA, np.float32)).sum(2, keepdims=True))
        return self

    def resize(self, size: tuple[int, int], resample: Resampling) -> DeepImage:
        """size: (width, height)."""
        from PIL import Image

        bands = [
            np.asarray(Image.fromarray(self.values[..., band]).resize(size, resample))
            for band in range(self.values.shape[2])
        ]
        # Bicubic weights may overshoot; Pillow clips 8-bit images in the same way.
        return DeepImage(np.stack(bands, -1).clip(0, 255))

    def crop(self, box: tuple[int, int, int, int]) -> DeepImage:
        """box: (left, top, right, bottom); black outside of the image, as in Pillow."""
        left, top, right, bottom = box
        above, before = max(-top, 0), max(-left, 0)
        rows = above, max(bottom - self.height, 0)
        columns = before, max(right - self.width, 0)
        wider = np.pad(self.values, (rows, columns, (0, 0)))
        return DeepImage(wider[top + above : bottom + above, left + before : right + before])

    def reduced(self) -> Image:
        """As an image of Pillow, rounded to 8 bits."""
        from PIL import Image

        return Image.fromarray(self.values.round().astype(np.uint8))


def read_png(file: IO[bytes], name: str) -> DeepImage:
    """Read a PNG file with 16 bits a channel, grey or colours, on white where it is transparent."""
    import imagecodecs

    with open_image(file) as image:
        turned = image.getexif().get(0x0112, 1)
    file.seek(0)
    values = imagecodecs.png_decode(file.read())
    return deepened(_turned(values, turned), name, extra=(2,) if values.ndim == 3 else ())


def read_tiff(file: IO[bytes], name: str) -> DeepImage | None:
    """Read the first page of a TIFF file; None for 8 bits without a sign, which Pillow reads.

    Warns of further pages and of channels that are left out.
    """
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        pages = pages_of(tiff)
        whole, page = sum(not page.subfiletype & 1 for page in pages), pages[0]
        if whole > 1:
            warnings.warn(
                f"{name}: the first of its {whole} pages is read, the others are left out",
                stacklevel=2,
            )
        if page.dtype is None or (page.dtype.itemsize == 1 and page.dtype.kind != "i"):
            if left := page.extrasamples.count(UNSPECIFIED):
                _warn_of_channels(name, page.samplesperpixel - left, page.samplesperpixel)
            return None
        pixels = page.imagewidth * page.imagelength
        if max(pixels, page.size // MOST_CHANNELS) > MOST_PIXELS:
            raise ValueError(
                f"its first page has {pixels} pixels and {page.size} values, more than "
                f"{MOST_PIXELS} pixels of {MOST_CHANNELS} channels"
            )
        photometric = int(page.photometric)
        if photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB) or page.axes[-3:] not in (
            "YX", "YXS", "SYX",
        ):  # fmt: skip
            raise ValueError(
                f"{page.bitspersample} bits of the kind {page.photometric.name}, {page.axes}, are "
                "not supported; save it as grey or RGB"
            )
        values = page.asarray()
        bits, extra = int(page.bitspersample), tuple(map(int, page.extrasamples))
        orientation = page.tags.get("Orientation")
    if values.ndim == 3 and page.axes[-3:] == "SYX":
        values = values.transpose(1, 2, 0)
    turned = _turned(values, 1 if orientation is None else int(orientation.value))
    most = 2**bits - 1 if values.dtype.kind == "u" else None
    return deepened(turned, name, most, extra=extra, inverted=photometric == MIN_IS_WHITE)


def pages_of(tiff: Any) -> list[Any]:
    """The pages of a file. Errors: ValueError if they refer to each other, which tifffile would
    follow for hours."""
    pages, places = list[Any](), set[int]()
    with suppress(IndexError):
        while True:
            page = tiff.pages[len(pages)]
            if page.offset in places:
                raise ValueError(f"its page {len(pages)} is followed by an earlier one")
            pages.append(page)
            places.add(page.offset)
    return pages


def deepened(
    values: np.ndarray,
    name: str,
    most: int | None = None,
    *,
    extra: Sequence[int] = (),
    inverted: bool = False,
) -> DeepImage:
    """An image of pixels `[H, W]` or `[H, W, C]`.

    most: the value of white; by default the largest of the type, or 1 for floats. extra: kinds of
    the channels beyond one or three. inverted: whether 0 is white.
    Errors: ValueError for values outside of the range. Warns of channels that are left out, and of
    values that use only a small part of the range.
    """
    if most is None:
        most = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
        if values.dtype.kind == "i":
            raise ValueError(f"signed integers {NO_RANGE}")
    pixels = values.reshape(*values.shape[:2], -1).astype(np.float64)
    low, high = pixels.min(), pixels.max()
    if not 0 <= low <= high <= most:  # NaN included
        raise ValueError(f"values from {low:g} to {high:g} {NO_RANGE}")
    pixels = pixels * (255 / most)
    channels = 3 if pixels.shape[2] >= 3 else 1
    colours, others = pixels[..., :channels], pixels[..., channels:]
    if inverted:
        colours = 255 - colours
    if others.shape[2] and extra and extra[0] != UNSPECIFIED:
        opaque = others[..., :1] / 255
        colours = colours if extra[0] == PREMULTIPLIED else colours * opaque
        colours = (colours + 255 * (1 - opaque)).clip(0, 255)
        others = others[..., 1:]
    if others.shape[2]:
        _warn_of_channels(name, channels, pixels.shape[2])
    # Of the colours alone, without alpha; but black on a transparent background is not dark.
    reached = min(high / most, colours.max() / 255)
    if reached < DARK and not inverted:
        warnings.warn(
            f"{name}: its values reach {reached:.1%} of their range, so it is nearly black "
            "to a network; scale them unless that is intended",
            stacklevel=3,
        )
    return DeepImage(np.repeat(colours, 3, axis=2) if channels == 1 else colours)


def _warn_of_channels(name: str, read: int, count: int) -> None:
    warnings.warn(
        f"{name}: {read} of its {count} channels are read, the others are left out", stacklevel=4
    )


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels rotated according to an EXIF orientation from 1 to 8."""
    if orientation in (5, 7):
        values = values.swapaxes(0, 1)
    if orientation in (2, 4):
        return np.flip(values, 2 - orientation // 2)
    quarter = {3: 2, 6: -1, 7: 2, 8: 1}.get(orientation, 0)
    return np.rot90(values, quarter)
