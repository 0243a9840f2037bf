"""Networks in the folders that trainings write."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moreaugrad.files.foreign import check_named, lies_within, parsing, read_json
from moreaugrad.files.units import SUFFIX, damaged, listed
from moreaugrad.models.preprocess import Preprocess

TRAINED, FILE, LABELS = "trained", "model.json", "labels.json"
FINISHED = "results"
"""The unit of a training's folder that is written when all is done."""


def trained_folder(name: str) -> str | None:
    """FOLDER where a network is named `trained:FOLDER`. Errors: ValueError for an empty one."""
    scheme, _, folder = name.partition(":")
    if scheme != TRAINED:
        return None
    check_named(f"model, {TRAINED}:FOLDER", folder)
    return folder


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What `model.json` tells. model: the name that it is built by. weights, labels: files beside
    it."""

    model: str
    weights: str
    labels: str
    preprocess: Preprocess

    def text(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def builder(cls, name: str) -> str:
        """What the network of this name is built by, where it is one that was trained."""
        folder = trained_folder(name)
        return name if folder is None else cls.read(Path(folder)).model

    @classmethod
    def read(cls, folder: Path) -> Trained:
        """Errors: ValueError where the folder has none, or one that tells something else, and where
        a file that the network is made of is not as the training wrote it."""
        _check_whole(folder)
        file = folder / FILE
        expected = f"the {FILE} of a finished training"
        found = read_json(file, expected)
        with parsing(str(file), expected):
            listed: dict[str, Any] = found["preprocess"]
            settings: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in listed.items()
            }
            told = cls(
                model=str(found["model"]),
                weights=_inside(folder, found["weights"]),
                labels=_inside(folder, found["labels"]),
                preprocess=Preprocess(**settings),
            )
            if trained_folder(told.model) is not None:
                raise ValueError(f"a training builds its network by another name, not {told.model}")
        return told


def _check_whole(folder: Path) -> None:
    names = listed(folder / f"{FINISHED}{SUFFIX}")
    # The others are for people, who may write into them.
    used = {n: names[n] for n in names if n in (FILE, LABELS) or n.endswith(".safetensors")}
    for name in damaged(folder, used):
        raise ValueError(
            f"{folder / name}: is damaged (its content is not what the training wrote); the same "
            "train command makes it again. Other labels or weights are given beside the folder "
            "(--labels, --weights)"
        )


def _inside(folder: Path, name: str) -> str:
    """A file of the folder. Errors: ValueError for a path, or a link, to elsewhere."""
    path = folder / name
    if ".." in Path(name).parts or not lies_within(path, folder):
        raise ValueError(f"expected a file of its own folder, got {name!r}, which leads out of it")
    return str(path)
