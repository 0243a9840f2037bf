"""A model with what is needed to show it a picture and to read its answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from moreaugrad.models.preprocess import Preprocess
from moreaugrad.score.checks import ForwardError


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """module: in evaluation mode, its parameters without gradients.

    labels: a name for each output, or None where none are known. A factory that is named as a
    model may return one of these, to bring its own preprocessing and labels.
    """

    module: nn.Module
    preprocess: Preprocess
    labels: tuple[str, ...] | None = None
    name: str = ""
    source_preprocess: Preprocess | None = None
    """Of the model's source, where it is not `preprocess`."""

    @contextmanager
    def sized(self) -> Iterator[None]:
        """Adds to an error of the model's which size of inputs it is made for."""
        try:
            yield
        except ForwardError as error:
            made_for = (self.source_preprocess or self.preprocess).input_shape
            given = self.preprocess.input_shape
            if made_for is None:
                hint = "inputs are as large as the image, unless --crop or --resize is given"
            elif made_for == given:
                raise
            else:
                height, width = made_for[1:]
                crop = f"{height}" if height == width else f"{height},{width}"
                hint = f"{self.name} is made for inputs of {height} x {width} pixels: --crop {crop}"
            raise ForwardError(f"{error}; {hint}") from error
