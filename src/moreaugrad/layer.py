"""The input taken at a layer: its clean output, and forward passes with another in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad.forward import call
from moreaugrad.names import nearest


def as_module(model: object, who: str) -> nn.Module:
    """The model, where it has layers to look into."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"{who}: expected the model to be a torch module, got {type(model).__name__}"
        )
    return model


def resolve(model: object, layer: str | nn.Module, what: str = "layer") -> nn.Module:
    """The module of that name, given as the setting `what`.

    Errors: ValueError that suggests the nearest name.
    """
    modules: dict[str, nn.Module] = dict(as_module(model, what).named_modules())
    if isinstance(layer, str):
        if layer not in modules:
            raise ValueError(
                f"{what}: the model has no module {layer!r}{nearest(layer, modules)} "
                "(model.named_modules() lists them)"
            )
        return modules[layer]
    if layer not in modules.values():
        raise ValueError(f"{what}: expected a module of the model, got {type(layer).__name__}")
    return layer


def taken(model: Any, layer: nn.Module, args: tuple[object, ...]) -> Tensor:
    """The layer's output in one clean forward pass."""
    found: list[object] = []
    handle = layer.register_forward_hook(lambda _m, _i, output: found.append(output))
    try:
        with torch.no_grad():
            call(model, *args)
    finally:
        handle.remove()
    if len(found) != 1:
        raise ValueError(
            f"layer: expected a module that runs once in a forward pass, it ran {len(found)} times"
        )
    output = found[0]
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise TypeError(
            "layer: expected a module whose output is one floating-point tensor, got "
            f"{type(output).__name__}"
        )
    return output.detach()


@contextmanager
def substituted(layer: nn.Module, output: Tensor) -> Iterator[None]:
    """While open, the layer's output is `output`."""
    handle = layer.register_forward_hook(lambda _m, _i, _o: output)
    try:
        yield
    finally:
        handle.remove()
