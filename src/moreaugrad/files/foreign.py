"""Files that other people wrote, and names that they chose.

Files are read within bounds, or refused with a message of one line.

All of them are read through this module. So a named pipe cannot block a command, a file of the
wrong kind cannot fill the memory or start a program, and no error of a parser ends in a traceback.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from moreaugrad.settings import nearest

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_LIMIT = 64 * 2**20
"""Largest text file in bytes; configurations, labels and lists of classes are far smaller."""
IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
"""The formats of Pillow that are read. Others start programs (Ghostscript for PostScript, whatever
the name of the file) or use libraries that are little tested on malicious files."""
FILE_LIMIT = 2**34
"""Largest image file in bytes; a file may be a stack of many images."""
MOST_PIXELS = 2**27
"""Pixels of the largest image that is decoded."""
SURROGATE = re.compile("[\ud800-\udfff]")
"""Python's stand-in for a byte of a file name that is not UTF-8; it cannot be encoded."""
UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that terminals and browsers act on instead of showing them: control characters, which
begin escape sequences, unusual line separators and overrides of the reading direction; and
surrogates."""


def check_named(what: str, path: object) -> None:
    """Refuse an empty name, which would mean the working folder. Errors: ValueError."""
    if isinstance(path, str) and not path.strip():
        raise ValueError(f"{what}: expected the name of a file or folder, got an empty one")


def regular_file(path: str | Path, expected: str, *, limit: int | None = None) -> Path:
    """The path of a regular file.

    expected: what the file should be, such as "an image". Errors: ValueError that says what was
    found instead: nothing, a folder, a named pipe, a device, an empty file or one of more than
    `limit` bytes.
    """
    path = Path(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        what = f"there is no such file{_close(path)}" if missing else _reason(error)
        raise ValueError(f"{path}: expected {expected}, but {what}") from None
    if not stat.S_ISREG(status.st_mode):
        what = _kind(status.st_mode)
        raise ValueError(f"{path}: expected {expected}, but it is {what}, not a file")
    if status.st_size == 0:
        raise ValueError(f"{path}: expected {expected}, but the file is empty")
    if limit is not None and status.st_size > limit:
        raise ValueError(
            f"{path}: expected {expected} of at most {limit >> 20} MiB, but the file has "
            f"{status.st_size >> 20} MiB"
        )
    return path


def lies_within(path: str | Path, folder: str | Path) -> bool:
    """Whether a path leads to a place below a folder, after links in both are followed.

    False for what cannot be a path, as it contains a null character.
    """
    with suppress(ValueError):
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    return False


def read_text(path: str | Path, expected: str, *, limit: int = TEXT_LIMIT) -> str:
    """The text of a file in UTF-8. Errors: ValueError as in `regular_file`, and for a file that is
    not text."""
    path = regular_file(path, expected, limit=limit)
    with parsing(str(path), expected):
        return path.read_text(encoding="utf-8-sig")


def read_toml(path: str | Path) -> dict[str, Any]:
    """The table of a TOML file. Errors: ValueError as in `read_text`, and for other text."""
    expected = "a configuration in TOML"
    text = read_text(path, expected)
    with parsing(str(path), expected):
        return tomllib.loads(text)


def read_json(path: str | Path, expected: str) -> Any:
    """The value in a JSON file. Errors: ValueError as in `read_text`, and for other text."""
    text = read_text(path, expected)
    with parsing(str(path), expected):
        return json.loads(text)


@contextmanager
def open_image(file: Path | IO[bytes]) -> Iterator[Image]:
    """Open an image with Pillow; its pixels are decoded later, by `load`.

    Errors: ValueError for a format that is not in `IMAGE_FORMATS` and more than `MOST_PIXELS`
    pixels; for damaged files any error that Pillow raises, see `parsing`.
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()
    known = [name for name in IMAGE_FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images, which are bounded here, and of formats that it was built
            # without, which the error below lists.
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=known)
    except UnidentifiedImageError:
        raise ValueError(f"its contents are in no supported format: {', '.join(known)}") from None
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(
                f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS} in all"
            )
        yield image


@contextmanager
def parsing(name: str, expected: str) -> Iterator[None]:
    """Turn any error of a parser in this block into a ValueError of one line about `name`.

    Parsers of unknown bytes raise errors of all kinds: KeyError, struct.error, RecursionError,
    OverflowError. A MemoryError stays one.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise  # it names the file already
        raise ValueError(f"{name}: expected {expected} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or refers to itself"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((word for is_kind, word in kinds if is_kind(mode)), "a device")


def _close(path: Path) -> str:
    try:
        return nearest(path.name, [item.name for item in path.parent.iterdir()])
    except OSError:
        return ""


def shown(text: str) -> str:
    """Text of unknown origin made harmless for a terminal or a page."""
    return UNSHOWN.sub("\ufffd", text)


def number_name(value: float) -> str:
    """A number in a name: with the fewest digits that identify it, so that different numbers have
    different names."""
    return repr(float(value)).removesuffix(".0")


def percent_name(fraction: float) -> str:
    """A fraction in percent, as exact as `number_name`, without the percent sign."""
    percent = Decimal(repr(float(fraction))).scaleb(2)
    return f"{percent.normalize():f}"


def readable(text: str) -> str:
    """Text that can be encoded in UTF-8: bytes of a name that are not UTF-8 are escaped, as in
    `caf\\xe9.png`."""
    return SURROGATE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def some(names: Iterable[str], separator: str = ", ", most: int = 5) -> str:
    """The first names of many for a message, and how many more there are."""
    every = list(names)
    shown = separator.join(every[:most])
    if len(every) <= most:
        return shown
    return f"{shown}{separator.strip(', ')} and {len(every) - most} more"
