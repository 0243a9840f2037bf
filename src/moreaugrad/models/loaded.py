"""A model with its preprocessing, and the names of its outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from moreaugrad.files.foreign import parsing, read_text
from moreaugrad.files.names import readable
from moreaugrad.models.preprocess import Preprocess
from moreaugrad.score.checks import ForwardError
from moreaugrad.score.forward import forward

JSON_LABELS = "a JSON list of names, or an object from the indices 0, 1, ... to names"


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A classifier, its preprocessing and its labels, as `load_model` returns it.

    A factory that is named as a model may return one, with its own preprocessing and labels.

    module: in evaluation mode, its parameters without gradients.
    labels: a name for each output, or None if they are not known.
    name: as given to `load_model`.
    source_preprocess: the preprocessing of the model's source; None if that is `preprocess`.

    >>> found = mg.load_model("builtin")
    >>> x = found.preprocess(mg.load_image("docs/images/cell.png"))
    """

    module: nn.Module
    preprocess: Preprocess
    labels: tuple[str, ...] | None = None
    name: str = ""
    source_preprocess: Preprocess | None = None

    @contextmanager
    def sized(self) -> Iterator[None]:
        """Add to an error of the model the size of the inputs that it is made for."""
        try:
            yield
        except ForwardError as error:
            made_for = (self.source_preprocess or self.preprocess).input_shape
            if made_for is not None and made_for == self.preprocess.input_shape:
                raise
            hint = "inputs are as large as the image, unless --crop or --resize is given"
            if made_for is not None:
                height, width = made_for[1:]
                crop = f"{height}" if height == width else f"{height},{width}"
                hint = f"{self.name} is made for inputs of {height} x {width} pixels: --crop {crop}"
            raise ForwardError(f"{error}; {hint}") from error


def read_labels(path: Path) -> tuple[str, ...]:
    """Labels from a file: one on each line, a JSON list, or a JSON object `{"0": name, ...}`.

    A JSON entry may itself be a list (`["n01440764", "tench"]`); its last item is the label.
    Errors: ValueError for a missing or unreadable file, and for an index without a label.
    """
    text = read_text(path, "labels as text in UTF-8, one for each output")
    if text.lstrip().startswith(("[", "{")):
        with parsing(str(path), JSON_LABELS):
            labels = _from_json(json.loads(text))
    else:
        # Names may contain other line separators, such as U+2028.
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
    """Compare the number of labels with that of the outputs, if the input size is known.

    A single output may have two labels, for scores below and above zero. Errors: ValueError.
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
