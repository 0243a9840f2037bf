"""Files that anybody may have written: read with bounds, or refused in one line.

What reads such a file goes through here, so that a named pipe cannot hang a command, a file of a
wrong kind cannot fill the memory or start a program, and nothing that a parser raises becomes a
traceback.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from moreaugrad.registry import nearest

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_LIMIT = 64 * 2**20
"""Bytes of a text file; configurations, labels and lists of classes are far smaller."""
IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
"""Of those that Pillow knows. It starts Ghostscript for PostScript, whatever a file is called, and
further formats need programs, or libraries that few have tested on hostile files."""
FILE_LIMIT = 2**34
"""Bytes of a file of images, which may be a stack of many."""
MOST_PIXELS = 2**27
"""Of an image; larger ones are not decoded."""


def check_named(what: str, path: object) -> None:
    """Refuses an empty name, which would stand for the working folder. Errors: ValueError."""
    if isinstance(path, str) and not path.strip():
        raise ValueError(f"{what}: expected the name of a file or folder, got an empty one")


def regular_file(path: str | Path, expected: str, *, limit: int | None = None) -> Path:
    """The path, where a file lies there that can be read to its end.

    expected: what should lie there, as "an image". Errors: ValueError that says what it is
    instead: nothing, a folder, a named pipe, a device, an empty file, one of more than `limit`
    bytes.
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
    """Whether a path leads to a place below a folder, with links followed on both sides; not
    where the path cannot be one (it holds a null character)."""
    with suppress(ValueError):
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    return False


def read_text(path: str | Path, expected: str, *, limit: int = TEXT_LIMIT) -> str:
    """The text of a file in UTF-8. Errors: ValueError as of `regular_file`, for a file above
    `limit` bytes, and for one that is no text."""
    path = regular_file(path, expected, limit=limit)
    with parsing(str(path), expected):
        return path.read_text(encoding="utf-8-sig")


def read_toml(path: str | Path, expected: str = "a configuration in TOML") -> dict[str, Any]:
    """The table of a TOML file. Errors: ValueError as of `read_text`, and for other text."""
    text = read_text(path, expected)
    with parsing(str(path), expected):
        return tomllib.loads(text)


def read_json(path: str | Path, expected: str) -> Any:
    """What a JSON file holds. Errors: ValueError as of `read_text`, and for other text."""
    text = read_text(path, expected)
    with parsing(str(path), expected):
        return json.loads(text)


@contextmanager
def open_image(file: Path | IO[bytes]) -> Iterator[Image]:
    """An image as Pillow opens it, without its pixels, which `load` decodes. The only place that
    opens images.

    Errors: ValueError for what is of none of `IMAGE_FORMATS`, or larger than `MOST_PIXELS`; of
    damaged files whatever Pillow raises, see `parsing`.
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()
    known = [name for name in IMAGE_FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            # Of large images, which are bounded here, and of formats that this Pillow was built
            # without, which the error below says.
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=known)
    except UnidentifiedImageError:
        raise ValueError(
            f"its contents are of no format that is read: {', '.join(known)}"
        ) from None
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(
                f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS} in all"
            )
        yield image


@contextmanager
def parsing(name: str, expected: str) -> Iterator[None]:
    """Whatever a parser raises in the block becomes a ValueError of one line about `name`.

    Parsers of foreign bytes raise what they like: KeyError, struct.error, RecursionError,
    OverflowError. Memory that runs out stays a MemoryError.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise  # it says of which file it is already
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
