"""Images in files of any supported format, as RGB."""

from __future__ import annotations

import glob
import io
import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar, Union

import numpy as np

from moreaugrad.data.deep import DeepImage, deepened, read_png, read_tiff
from moreaugrad.data.tree import SUFFIXES, open_tree
from moreaugrad.files.foreign import (
    FILE_LIMIT,
    MOST_PIXELS,
    check_named,
    open_image,
    parsing,
    regular_file,
)
from moreaugrad.settings import expect

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = Union["Image", DeepImage]
P = TypeVar("P", bound=Union["Image", DeepImage])

SIXTEEN_BITS = 65535
PNG, TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of these files."""
Size = int | tuple[int, int]
LONGEST_SIDE = 2**15
"""Largest side that an image may be resized or cropped to."""


def sides(size: Size) -> tuple[int, int]:
    """(height, width) of a crop."""
    return (size, size) if isinstance(size, int) else size


def check_size(name: str, size: Size) -> None:
    """Errors: ValueError for less than one pixel, and for sizes that memory could not hold."""
    both = sides(size)
    expect(min(both) >= 1, name, "at least one pixel", size)
    fits = max(both) <= LONGEST_SIDE and math.prod(both) <= MOST_PIXELS
    known = f"sides of at most {LONGEST_SIDE} pixels, and {MOST_PIXELS} pixels in all"
    expect(fits, name, known, size)


def load_image(path: str | Path) -> Picture:
    """Read an image file as RGB: an image of Pillow with 8 bits, or a `DeepImage` with more.

    It is rotated according to its EXIF data and put on white where it is transparent; CMYK and
    palettes are converted. 16 bits a channel and floats from 0 to 1 keep their depth. Of several
    frames or pages the first is read, with a warning.

    Errors: ValueError for a file that is missing, empty, truncated or not an image.

    >>> mg.load_image("docs/images/cell.png").size
    (64, 64)
    """
    file = regular_file(path, "an image", limit=FILE_LIMIT)
    return decode_image(file, str(file))


def decode_image(source: Path | IO[bytes], name: str) -> Picture:
    """`load_image` for an open file. name: of the file, for errors and warnings."""
    try:
        with parsing(name, "an image that can be read"):
            if isinstance(source, Path):
                with source.open("rb") as file:
                    return _decoded(file, name)
            return _decoded(source, name)
    except MemoryError:  # others may still fit
        raise ValueError(f"{name}: expected an image that fits into memory") from None


def decode_upload(data: bytes, name: str, pixels: int) -> Picture:
    """`load_image` for the bytes of a file that was sent. pixels: most that are decoded."""
    with parsing(name, "an image that can be read"), open_image(io.BytesIO(data)) as image:
        size = image.width * image.height
        expect(size <= pixels, "its size", f"at most {pixels} pixels", size)
    return decode_image(io.BytesIO(data), name)


def decode_grey(source: Path | IO[bytes], name: str) -> Image:
    """An image as grey levels with 8 bits."""
    return eight_bits(decode_image(source, name)).convert("L")


def eight_bits(image: Picture) -> Image:
    """An image of Pillow with 8 bits; deeper values are rounded."""
    return image.reduced() if isinstance(image, DeepImage) else image


def _decoded(file: IO[bytes], name: str) -> Picture:
    start = file.read(25)
    file.seek(0)
    if start[:8] == PNG and start[24:] == b"\x10":
        return read_png(file, name)
    if start[:4] in TIFF:
        deep = read_tiff(file, name)
        if deep is not None:
            return deep
        file.seek(0)
    return _by_pillow(file, name)


def _by_pillow(file: IO[bytes], name: str) -> Picture:
    from PIL import ImageOps

    with warnings.catch_warnings(), open_image(file) as image:
        # Pillow ignores damaged EXIF data with a warning; they do not matter here.
        warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)
        image.load()
        frames, kind = getattr(image, "n_frames", 1), image.format
        turned = _as_rgb(ImageOps.exif_transpose(image), name)
    # `read_tiff` warns of the pages of a TIFF file; further frames of MPO are previews.
    if frames > 1 and kind not in ("TIFF", "MPO"):
        warnings.warn(
            f"{name}: the first of its {frames} frames is read, the others are left out",
            stacklevel=2,
        )
    return turned


def _as_rgb(image: Image, name: str) -> Picture:
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        # Pillow's mode "I" has 32 bits and contains 16.
        most = None if image.mode == "F" else SIXTEEN_BITS
        return deepened(np.asarray(image), name, most)
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image.convert("RGB")


def resized(image: P, size: Size, interpolation: str = "bilinear") -> P:
    """An image resized. size: the shorter side, or (height, width), which may change the aspect."""
    from PIL.Image import Resampling

    if isinstance(size, int):
        short, long = sorted(image.size)
        other = size * long // short
        wanted = (size, other) if image.height > image.width else (other, size)
    else:
        wanted = size[::-1]
    check_size("resize", wanted)
    if wanted == image.size:
        return image
    return image.resize(wanted, Resampling[interpolation.upper()])  # type: ignore[return-value]


def centred(length: int, kept: int) -> int:
    """Where `kept` of `length` pixels begin, if they are in the centre."""
    return round((length - kept) / 2)


def centre_cropped(image: P, size: Size) -> P:
    """The centre of an image: side or (height, width); a smaller image is padded with black."""
    height, width = sides(size)
    left, top = centred(image.width, width), centred(image.height, height)
    return image.crop((left, top, left + width, top + height))  # type: ignore[return-value]


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The image files that files, folders (with their subfolders) and globs name, each once.

    Errors: ValueError for an empty path, one that does not exist, and if there are no images.

    >>> files = mg.data.find_images(["docs/images", "docs/images/c*.png"])
    """
    paths = list(paths)
    for path in paths:
        check_named("images", path)
    given = [Path(path) for path in paths]
    found = list(dict.fromkeys(file for path in given for file in _expand(path)))
    if not found:
        names = ", ".join(map(str, given)) or "an empty list"
        raise ValueError(
            f"expected images, but none were found in {names}; folders are searched for files "
            f"that end in {' '.join(sorted(SUFFIXES))}"
        )
    return found


def _expand(path: Path) -> Iterator[Path]:
    if path.is_dir():
        # Pipes and broken links are included, and refused when they are read.
        folder = open_tree(path)
        yield from sorted(map(folder.path, folder.images()))
    elif path.exists():
        yield path
    elif glob.has_magic(str(path)):
        # Path.glob takes no absolute pattern.
        for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207
            yield from _expand(Path(match))
    else:
        yield regular_file(path, "an image or a folder")  # refuses it, as it does not exist
