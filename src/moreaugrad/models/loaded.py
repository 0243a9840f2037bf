"""A model with its preprocessing, and the names of its outputs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moreaugrad.data.images import Picture, Size, centre_cropped, check_size, resized, sides
from moreaugrad.files.foreign import parsing, read_text, readable
from moreaugrad.models.arrays import ArrayInput
from moreaugrad.registry import choose
from moreaugrad.score.checks import ForwardError
from moreaugrad.score.forward import forward
from moreaugrad.score.labels import put_labels
from moreaugrad.settings import Documented, expect

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
JSON_LABELS = "a JSON list of names, or an object from the indices 0, 1, ... to names"


@dataclass(frozen=True, kw_only=True)
class Preprocess(metaclass=Documented):
    """Resize, centre crop, scale to [0, 1], then (pixel - mean) / std for each channel.

    >>> found = mg.models.Preprocess(resize=256, crop=224)(mg.load_image("docs/images/cell.png"))
    """

    resize: Size | None = None
    """The shorter side in pixels, or (height, width), which may change the aspect; None keeps the
    size."""
    crop: Size | None = None
    """Side or (height, width) in pixels of the centre crop; smaller images get black margins."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Three numbers for RGB, or one for grey."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Three numbers for RGB, or one for grey."""
    interpolation: str = "bilinear"
    """Of the resize: "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos"."""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(
                "mean and std: expected three numbers each (RGB) or one each (grey), got "
                f"{self.mean} and {self.std}"
            )
        expect(all(0 < value < math.inf for value in self.std), "std", "numbers > 0", self.std)
        expect(all(map(math.isfinite, self.mean)), "mean", "finite numbers", self.mean)
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            if size is not None:
                check_size(name, size)
        choose("interpolation", self.interpolation, INTERPOLATIONS)

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """`(C, H, W)` of every input; None if it depends on the size of the image."""
        size = self.crop if self.crop is not None else self.resize
        if size is None or (self.crop is None and isinstance(size, int)):
            return None
        return (len(self.mean), *sides(size))

    def __call__(self, image: Picture) -> Tensor:
        """The input of an image: a normalised float32 tensor `[C, H, W]`."""
        image = image.convert("RGB" if len(self.mean) == 3 else "L")
        if self.resize is not None:
            image = resized(image, self.resize, self.interpolation)
        if self.crop is not None:
            image = centre_cropped(image, self.crop)
        pixels = np.asarray(image, dtype=np.float32) / 255
        tensor = torch.from_numpy(pixels.reshape(image.height, image.width, -1)).permute(2, 0, 1)
        return self.normalised(tensor).contiguous()

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels `[..., C, H, W]` in [0, 1] as inputs: (pixel - mean) / std."""
        return (pixels - self._column(self.mean, pixels)) / self._column(self.std, pixels)

    def pixels(self, x: Tensor) -> Tensor:
        """An input `[C, H, W]` as an image: RGB `[H, W, 3]` in [0, 1], on the CPU."""
        if x.ndim != 3 or len(x) != len(self.mean):
            raise ValueError(
                f"expected an input [{len(self.mean)}, H, W], got shape {tuple(x.shape)}"
            )
        x = x.detach().float().cpu()
        image = x * self._column(self.std, x) + self._column(self.mean, x)
        return image.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).contiguous()

    def _column(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, device=like.device).view(-1, 1, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A classifier, its preprocessing and its labels, as `load_model` returns it.

    A factory that is named as a model may return one, with its own preprocessing and labels.

    module: in evaluation mode, its parameters without gradients.
    labels: a name for each output, or None if they are not known; the module then carries them, so
    that explanations have them.
    name: as given to `load_model`.
    source_preprocess: the preprocessing of the model's source; None if that is `preprocess`.
    tokenizer: of a language model, as for `text.explain`; it takes texts instead of images.
    array: what a network of series or volumes takes in, instead of images.

    >>> found = mg.load_model("builtin")
    >>> x = found.preprocess(mg.load_image("docs/images/cell.png"))
    """

    module: nn.Module
    preprocess: Preprocess = Preprocess()
    labels: tuple[str, ...] | None = None
    name: str = ""
    source_preprocess: Preprocess | None = None
    tokenizer: Any = None
    array: ArrayInput | None = None

    def __post_init__(self) -> None:
        if self.labels is not None:
            put_labels(self.module, self.labels)

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The shape of every input without its batch; None if it depends on the input."""
        return (self.preprocess if self.array is None else self.array).input_shape

    @contextmanager
    def sized(self) -> Iterator[None]:
        """Add to an error of the model the size of the inputs that it is made for."""
        try:
            yield
        except ForwardError as error:
            if self.array is not None:
                known = "--shape says which inputs it takes, --fit cuts or pads others"
                raise ForwardError(f"{error}; {known}") from error
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
    shape = model.input_shape
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
