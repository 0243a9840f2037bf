"""A model with what is needed to show it a picture and to read its answer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from moreaugrad.models.preprocess import Preprocess


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
