"""A recipe of maps that travels to the workers of a data pipeline."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from moreaugrad.data.images import decode_image
from moreaugrad.explainers import METHODS
from moreaugrad.explainers.base import Explainer
from moreaugrad.models.loaded import LoadedModel
from moreaugrad.models.loading import load_model
from moreaugrad.settings import expect


@dataclass(frozen=True, kw_only=True)
class BatchExplainer:
    """Maps a batch `{"image": ...}` of columns to `{"map": ..., "status": ...}`, with the other
    columns as they are: for Ray Data, Spark and `datasets.map`.

    It pickles as its settings. Each process loads the network when its first batch comes. An image
    is one of Pillow, the bytes of an image file, or an array `[H, W, 3]` or `[H, W]` of uint8,
    which are preprocessed; or an array `[C, H, W]` of floats, an input of the network. "map" is an
    array `[B, C, H, W]`, or one of B arrays where inputs have different shapes; "status" an array
    of B words. All maps have the same noise: up to rounding they do not depend on the batches.

    model: a name, as of `load_model`, or a function of a module that every worker can import.
    method, settings: the name of a method, and its settings.
    loading: further arguments of `load_model`, such as `device` or `weights`, for a name.
    target: class to explain; None is the predicted one.
    image: name of the column of images.

    Errors: ValueError for no images, an image that cannot be read, and settings that cannot be.

    >>> explain = mg.BatchExplainer(model="builtin", method="smoothgrad", settings={"samples": 4})
    >>> found = explain({"image": [mg.load_image("docs/images/cell.png")], "name": ["cell"]})
    >>> list(found), found["map"].shape
    (['name', 'map', 'status'], (1, 3, 64, 64))
    """

    model: str | Callable[[], nn.Module | LoadedModel]
    method: str = "sparse-moreaugrad"
    settings: Mapping[str, Any] = field(default_factory=dict)
    loading: Mapping[str, Any] = field(default_factory=dict)
    target: int | None = None
    image: str = "image"

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def _loaded(self) -> LoadedModel:
        found = load_model(self.model, **self.loading) if isinstance(self.model, str) else (
            self.model()
        )  # fmt: skip
        return found if isinstance(found, LoadedModel) else LoadedModel(module=found.eval())

    @cached_property
    def _explainer(self) -> Explainer:
        settings, known = dict(self.settings), METHODS[METHODS.check(self.method)].defaults()
        if "std" in known and "layer" not in settings:
            settings.setdefault("std", list(self._loaded.preprocess.std))
        found: Explainer = METHODS.build(self.method, self._loaded.module, **settings)
        return found

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        expect(self.image in batch, "batch", f"a column {self.image!r}", list(batch))
        expect(len(batch[self.image]) > 0, self.image, "at least one image", 0)
        weight = next(self._loaded.module.parameters(), torch.empty(0))
        inputs = [self._row(row, one).to(weight) for row, one in enumerate(batch[self.image])]
        maps, statuses = self._explained(inputs)
        others = {name: column for name, column in batch.items() if name != self.image}
        return {**others, "map": maps, "status": np.array(statuses)}

    def _explained(self, inputs: Sequence[Tensor]) -> tuple[np.ndarray[Any, Any], list[str]]:
        alike = len({x.shape for x in inputs}) == 1
        groups: Iterable[Tensor] = [torch.stack(list(inputs))] if alike else (
            x[None] for x in inputs
        )  # fmt: skip
        found = [self._explainer.explain(x, self.target) for x in groups]
        statuses = [str(status.value) for one in found for status in one.status]
        arrays = [one.parts[0].float().cpu().numpy() for one in found]
        if alike:
            return arrays[0], statuses
        maps = np.empty(len(inputs), dtype=object)
        maps[:] = [array[0] for array in arrays]
        return maps, statuses

    def _row(self, row: int, image: Any) -> Tensor:
        try:
            return self._input(image)
        except ValueError as error:
            raise ValueError(f"row {row} of the batch: {error}") from error

    def _input(self, image: Any) -> Tensor:
        if isinstance(image, (bytes, bytearray, memoryview)):  # those of Spark are bytearrays
            image = decode_image(io.BytesIO(image), self.image)
        elif not isinstance(image, Image.Image):
            values = np.asarray(image)
            if values.dtype.kind == "f":
                return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
            # Lists of integers, say, are levels of no known range.
            known = values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3)
            expect(
                values.dtype == np.uint8 and known, self.image, "an image of Pillow, bytes of a "
                "file, an array [H, W, 3] or [H, W] of uint8, or one [C, H, W] of floats",
                f"{type(image).__name__} as {values.dtype} of shape {values.shape}",
            )  # fmt: skip
            image = Image.fromarray(values)
        return self._loaded.preprocess(image)
