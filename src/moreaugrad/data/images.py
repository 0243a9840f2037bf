"""Pictures on disk, of whatever kind, as RGB."""

from __future__ import annotations

import glob
import math
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from moreaugrad.foreign import regular_file
from moreaugrad.names import nearest

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {
    ".avif", ".bmp", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
"""What a folder is searched for; a file that is named itself may end otherwise."""

DEEP = 65535
Size = int | tuple[int, int]
LONGEST_SIDE, MOST_PIXELS = 2**15, 2**27
"""What an image may be resized or cropped to; images larger than the second are not decoded."""


def check_size(name: str, size: Size) -> None:
    """Errors: ValueError for less than one pixel, or more than memory could hold."""
    sides = (size, size) if isinstance(size, int) else size
    if not all(1 <= side <= LONGEST_SIDE for side in sides) or math.prod(sides) > MOST_PIXELS:
        raise ValueError(
            f"{name}: expected sides of 1 to {LONGEST_SIDE} pixels, and at most {MOST_PIXELS} "
            f"pixels in all; got {size}"
        )


def load_image(path: str | Path) -> Image:
    """The picture as it is meant to be seen, in RGB with 8 bits.

    Turned as its EXIF data say, transparent parts over white, 16-bit greys scaled to 8 bits,
    CMYK and palettes converted, the first frame of several.

    Errors: ValueError for what is missing, empty, truncated or no picture.
    """
    file = regular_file(path, "an image")
    return decode_image(file, str(file))


def decode_image(source: Path | IO[bytes], name: str) -> Image:
    """The same of a file that is open already; errors tell its `name`."""
    with _opened(source, name) as image:
        return _as_rgb(image)


def decode_grey(source: Path | IO[bytes], name: str) -> Image:
    """A map as shades of grey with 8 bits; 16 bits are scaled to 8."""
    with _opened(source, name) as image:
        return (_as_rgb(image) if image.mode != "L" else image).convert("L")


@contextmanager
def _opened(source: Path | IO[bytes], name: str) -> Iterator[Image]:
    """The decoded picture, turned as its EXIF data say; errors in the block are of this file."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Pillow tells of damaged EXIF data and goes on without them, and so do we.
            warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)
            with Image.open(source) as image:
                image.load()
                yield ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise ValueError(
            f"{name}: expected a picture, but its contents are of no format that Pillow reads"
        ) from None
    except (
        OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
        Image.DecompressionBombError,
    ) as error:  # fmt: skip
        raise ValueError(f"{name}: cannot be read as a picture ({error})") from error


def _what_is(path: Path) -> str:
    if path.is_dir():
        return "it is a folder"
    folder = path.parent
    close = nearest(path.name, [item.name for item in folder.iterdir()]) if folder.is_dir() else ""
    return f"there is no such file{close}"


def _as_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point values have no range of their own; save it with 8 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > DEEP:
            raise ValueError("32-bit values have no range of their own; save it with 8 or 16 bits")
        grey = (values.astype(np.float64) * (255 / DEEP)).round().astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image.convert("RGB")


def resized(image: Image, size: Size, interpolation: str = "bilinear") -> Image:
    """size: the shorter side, or (height, width), which may change the aspect."""
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
    return image.resize(wanted, Resampling[interpolation.upper()])


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Files, folders (searched to the bottom) and globs as a list of files, each once, in order.

    Errors: ValueError for a path that does not exist, and where nothing was found.
    """
    given = [Path(path) for path in paths]
    found = list(dict.fromkeys(file for path in given for file in _expand(path)))
    if not found:
        names = ", ".join(map(str, given)) or "an empty list"
        raise ValueError(
            f"expected pictures, but none were found in {names}; folders are searched for files "
            f"that end in {' '.join(sorted(SUFFIXES))}"
        )
    return found


def _expand(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if _is_picture(file, path))
    elif path.exists():
        yield path
    elif glob.has_magic(str(path)):
        # Path.glob takes no absolute pattern.
        for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207
            yield from _expand(Path(match))
    else:
        raise ValueError(f"{path}: expected a picture or a folder, but {_what_is(path)}")


def _is_picture(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.suffix.lower() in SUFFIXES and file.is_file()
