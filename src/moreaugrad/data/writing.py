"""Synthetic cells written as a folder of images, with their ground truth maps."""

from __future__ import annotations

import io
import os
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from moreaugrad.data.cells import CLASS_NAMES
from moreaugrad.data.examples import Examples, open_examples
from moreaugrad.data.layouts import MAPS
from moreaugrad.data.loading import Progress, Workers, ranges
from moreaugrad.data.source import CELLS
from moreaugrad.files.atomic import is_temporary, only_writer, remove_partial, write_atomically

FOLDERS = tuple(f"{label}-{name.replace(' ', '-')}" for label, name in enumerate(CLASS_NAMES))
"""Names of the class folders, as `read_folders` expects them: the index and the name."""
RECORD, CHUNK = "cells.toml", 16
PNG_END = b"IEND\xaeB`\x82"


def write_cells(
    out: Path,
    *,
    counts: Mapping[str, int],
    size: int = 64,
    seed: int = 0,
    workers: int = 0,
    progress: Progress | None = None,
) -> int:
    """Write cells to `out/PART/CLASS/NUMBER.png`, their maps to `out/maps/PART/CLASS/NUMBER.png`.

    `open_examples(out)` then reads the same pixels as `open_examples("cells", ...)`. Existing files
    are kept, so that another call resumes an interrupted one, or adds images with larger counts.

    counts: number of images of each part ("train", "val", "test"). size: side in pixels.
    seed: random seed. workers, progress: as in `prepare`.
    Returns the number of images that were written.
    Errors: ValueError for a folder with other files, other settings or more images.
    """
    parts = {part: count for part, count in counts.items() if count}
    wanted = {"size": size, "seed": seed, **parts}
    opened = {
        part: open_examples(CELLS, split=part, size=size, seed=seed, count=count)
        for part, count in parts.items()
    }
    if out.is_file():
        raise ValueError(f"{out}: expected a new folder, or one with these cells, but it is a file")
    out.mkdir(parents=True, exist_ok=True)
    with only_writer(out):
        _refuse_others(out, wanted)
        remove_partial(out)
        lines = [f"{name} = {value}\n" for name, value in wanted.items()]
        write_atomically(out / RECORD, "".join(lines).encode())
        return _write(out, opened, workers, sum(parts.values()), progress)


def _write(
    out: Path, opened: Mapping[str, Examples], workers: int, total: int, progress: Progress | None
) -> int:
    written = done = 0
    for part, examples in opened.items():
        chunks = ranges(len(examples), CHUNK)
        writing = Workers(partial(_write_missing, out, part, examples), workers)
        for places, new in zip(chunks, writing(chunks), strict=True):
            written, done = written + new, done + len(places)
            if progress is not None:
                progress(done, total)
    return written


def _write_missing(out: Path, part: str, examples: Examples, places: range) -> int:
    """Writes the images that are missing; returns how many these were."""
    return sum(_write_one(out, part, examples, place) for place in places)


def _write_one(out: Path, part: str, examples: Examples, place: int) -> bool:
    from PIL import Image

    name = Path(part, FOLDERS[int(examples.labels[place])], f"{place:06d}.png")
    if _whole(out / name) and _whole(out / MAPS / name):
        return False
    image, attention = examples.pixels(place)
    # The map first: if there is an image, its map is there too.
    for target, pixels in ((out / MAPS / name, attention), (out / name, image)):
        if pixels is not None:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, buffer.getvalue())
    return True


def _whole(file: Path) -> bool:
    """Whether a PNG file exists and is complete."""
    try:
        with file.open("rb") as opened:
            opened.seek(-len(PNG_END), os.SEEK_END)
            return opened.read() == PNG_END
    except OSError:  # missing or too short
        return False


def _refuse_others(out: Path, wanted: Mapping[str, int]) -> None:
    if not (out / RECORD).is_file():
        if not all(map(is_temporary, out.iterdir())):
            raise ValueError(
                f"{out}: expected a new folder, or one with these cells, but it has other files"
            )
        return
    there = tomllib.loads((out / RECORD).read_text(encoding="utf-8"))
    for name, value in there.items():
        new = wanted.get(name, 0)
        if value > new if name not in ("size", "seed") else value != new:
            raise ValueError(
                f"{out}: expected cells of the same size and seed and at least as many, but it was "
                f"written with {name} = {value}, not {new}; choose another folder"
            )
