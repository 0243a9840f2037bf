"""What a job explains: picture files, or synthetic cells whose truth is known."""

from __future__ import annotations

import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moreaugrad.data.cells import CLASS_NAMES, FEATURE, Cells
from moreaugrad.data.dataset import files_digest
from moreaugrad.data.images import find_images, load_image
from moreaugrad.files.atomic import file_digest
from moreaugrad.files.foreign import FILE_LIMIT, regular_file
from moreaugrad.files.names import readable
from moreaugrad.models import Preprocess
from moreaugrad.runs.job import CellsPlan

INPUTS = "inputs"
"""The folder of all results of inputs in that of a run."""
LONGEST, MOST_BYTES = 80, 200
"""Characters, and bytes in UTF-8, of a folder's name: file systems take 255 bytes."""
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names of devices on Windows, which no folder can have there."""
FORBIDDEN = '<>:"/\\|?*'
"""Characters that no name can have on Windows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """x: the model's input `[C, H, W]`. truth: the true map `[H, W]`, and the true class."""

    case: Case
    x: Tensor
    truth: Tensor | None = None
    label: str = ""

    @property
    def feature(self) -> Tensor | None:
        """`[H, W]`, true on what tells the class; None where that is not known, or nowhere."""
        if self.truth is None:
            return None
        mask = torch.eq(self.truth, np.float32(FEATURE).item())
        return mask if bool(mask.any()) else None


@dataclass(frozen=True)
class Case(ABC):
    """One input. folder: of its results, below that of the run, unlike every other case's."""

    title: str
    folder: str

    @abstractmethod
    def load(self, preprocess: Preprocess) -> Sample:
        """Errors: ValueError for what cannot be read."""

    def digest(self) -> str:
        """Of the content of its file; empty where it has none, or one that cannot be read."""
        return ""


@dataclass(frozen=True)
class PictureFile(Case):
    path: Path

    def load(self, preprocess: Preprocess) -> Sample:
        if not writable(self.path):
            raise ValueError(
                f"{readable(str(self.path))}: expected a name in UTF-8, as a configuration can "
                "hold it; rename the file or its folder"
            )
        return Sample(case=self, x=preprocess(load_image(self.path)))

    def digest(self) -> str:
        try:
            return file_digest(regular_file(self.path, "an image", limit=FILE_LIMIT))
        except (ValueError, OSError):
            return ""


@dataclass(frozen=True)
class SyntheticCell(Case):
    cells: Cells
    index: int

    def load(self, preprocess: Preprocess) -> Sample:
        from PIL import Image

        image, label, truth = self.cells[self.index]
        # As a file would hold it, so that an exported cell has the same map.
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        x = preprocess(Image.fromarray(pixels))
        return Sample(case=self, x=x, truth=truth, label=CLASS_NAMES[label])


def picture_files(paths: Iterable[str]) -> list[Path]:
    """Files, folders and globs as files. Errors: ValueError where there are none."""
    return find_images(paths)


def writable(file: Path) -> bool:
    """Whether a configuration can hold its name."""
    return readable(str(file)) == str(file)


def picture_cases(files: Sequence[Path]) -> list[Case]:
    names = unique_names([file.stem for file in files])
    alike = Counter(file.name for file in files)
    titles = [file.name if alike[file.name] == 1 else _below(file, files) for file in files]
    return [
        PictureFile(readable(title), f"{INPUTS}/{name}", file)
        for title, name, file in zip(titles, names, files, strict=True)
    ]


def _below(file: Path, files: Sequence[Path]) -> str:
    """The file's path from the folder that all have in common."""
    common = os.path.commonpath([other.absolute() for other in files])
    return Path(os.path.relpath(file, common)).as_posix()


def cases_digest(cases: Sequence[Case]) -> str:
    """Of the names and contents of all image files."""
    return files_digest((case.title, case.digest()) for case in cases)


def cell_cases(plan: CellsPlan, preprocess: Preprocess) -> list[Case]:
    """Errors: ValueError for a network that does not take square RGB pictures of one size."""
    shape = preprocess.input_shape
    if shape is None or shape[0] != 3 or shape[1] != shape[2]:
        raise ValueError(
            "cells: expected a model of square RGB pictures of a fixed size, got one of "
            f"{'any size' if shape is None else list(shape)}: use the builtin model"
        )
    cells = Cells(
        size=shape[1],
        seed=plan.seed,
        count=max(plan.indices) + 1,
        min_feature_fraction=plan.min_feature_fraction,
    )
    return [
        SyntheticCell(
            title=f"cell {index}: {CLASS_NAMES[cells.label(index)]}",
            folder=f"{INPUTS}/cell-{index}",
            cells=cells,
            index=index,
        )
        for index in plan.indices
    ]


def unique_names(stems: Sequence[str]) -> list[str]:
    """Folder names for these on any system, none like another whatever the letters' case and the
    composition of their accents."""
    used, names = set[str](), list[str]()
    for stem in stems:
        base, number = _portable(stem), 1
        name = base
        while _alike(name) in used:
            number += 1
            name = f"{base}-{number}"
        used.add(_alike(name))
        names.append(name)
    return names


def _portable(stem: str) -> str:
    plain = "".join(c if c.isprintable() and c not in FORBIDDEN else "_" for c in stem)
    short = plain.strip(" .")[:LONGEST].encode()[:MOST_BYTES].decode(errors="ignore").rstrip(" .")
    return f"_{short}" if RESERVED.fullmatch(short) else short or "input"


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
