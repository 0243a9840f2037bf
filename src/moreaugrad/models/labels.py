"""Files that name the outputs of a model."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from moreaugrad.files.foreign import parsing, read_text
from moreaugrad.files.names import readable
from moreaugrad.models.loaded import LoadedModel
from moreaugrad.score.forward import forward

JSON_LABELS = "a JSON list of names, or an object from the indices 0, 1, ... to names"


def read_labels(path: Path) -> tuple[str, ...]:
    """A name on each line, a JSON list of names, or a JSON object `{"0": name, ...}`.

    Of a list in the place of a name (`["n01440764", "tench"]`) the last entry counts.
    Errors: ValueError for a missing or unreadable file, and for an index without a name.
    """
    text = read_text(path, "labels as text in UTF-8, one for each output")
    if text.lstrip().startswith(("[", "{")):
        with parsing(str(path), JSON_LABELS):
            labels = _from_json(json.loads(text))
    else:
        # Names may hold other ends of lines, such as U+2028.
        labels = tuple(line.strip(" \t") for line in text.rstrip(" \t\n").split("\n"))
    if not labels:
        raise ValueError(f"{path}: expected a label for each output, but the file is empty")
    return labels


def _from_json(found: object) -> tuple[str, ...]:
    if isinstance(found, dict):
        by_index = {int(key): value for key, value in found.items()}
        found = [by_index[index] for index in range(len(by_index))]
    if not isinstance(found, list):
        raise TypeError(f"got a {type(found).__name__}")
    return tuple(str(entry[-1] if isinstance(entry, list) else entry) for entry in found)


def check_labels(model: LoadedModel, source: str) -> None:
    """Compares the labels with the outputs for one black picture, where the input size is known.

    A single output may have two labels: below and above zero. Errors: ValueError.
    """
    shape = model.preprocess.input_shape
    if model.labels is None:
        return
    unwritable = [label for label in map(str, model.labels) if readable(label) != label]
    if unwritable:
        raise ValueError(
            f"{source}: expected labels that can be written in UTF-8, got {readable(unwritable[0])}"
        )
    if shape is None:
        return
    first = next(model.module.parameters(), torch.empty(0))
    with torch.no_grad(), model.sized():
        black = torch.zeros(1, *shape, dtype=first.dtype, device=first.device)
        out = forward(model.module, black)
    outputs = out.shape[1] if out.ndim == 2 else 1
    if len(model.labels) not in ({1, 2} if outputs == 1 else {outputs}):
        raise ValueError(
            f"{source}: expected a label for each of the {outputs} outputs of {model.name}, got "
            f"{len(model.labels)}"
        )
