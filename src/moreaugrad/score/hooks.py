"""Layers of a model: found by name, hooked, read, and replaced in forward passes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from moreaugrad.score.forward import call
from moreaugrad.settings import nearest

Before = Callable[[nn.Module, tuple[Any, ...]], Any]
"""A forward pre-hook: of a module and its arguments."""
After = Callable[[nn.Module, tuple[Any, ...], Any], Any]
"""A forward hook: of a module, its arguments and its output."""

# torch numbers its hooks without a lock, and hooks with the same number replace each other.
_REGISTERING = threading.Lock()


def as_module(model: object, who: str) -> nn.Module:
    """The model, if it is a torch module with hooks. Errors: TypeError."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"{who}: expected the model to be a torch module, got {type(model).__name__}"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"{who}: expected a model of Python modules, whose layers take hooks, got a scripted, "
            f"traced or frozen one ({type(model).__name__}): give the module that it was made from"
        )
    return model


def resolve(model: object, layer: str | nn.Module, what: str = "layer") -> nn.Module:
    """The module of the model with that name. what: the setting that gives it, for messages.

    Names within a compiled model are those of the original, with or without "_orig_mod.".
    Errors: ValueError with the nearest name, TypeError for a module of torch.jit.
    """
    modules = {_original(name): module for name, module in as_module(model, what).named_modules()}
    if isinstance(layer, str):
        if _original(layer) not in modules:
            raise ValueError(
                f"{what}: the model has no module {layer!r}{nearest(layer, modules)} "
                "(model.named_modules() lists them)"
            )
        layer = modules[_original(layer)]
    elif layer not in modules.values():
        raise ValueError(f"{what}: expected a module of the model, got {type(layer).__name__}")
    return as_module(layer, what)


def name_of(model: nn.Module, layer: nn.Module) -> str:
    """The name of a module of the model, as `resolve` takes it."""
    return next(_original(name) for name, module in model.named_modules() if module is layer)


def _original(name: str) -> str:
    """A name without the level that torch.compile adds."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


@contextmanager
def hooked(before: Mapping[nn.Module, Before], after: Mapping[nn.Module, After]) -> Iterator[None]:
    """While open, these hooks act on calls of their modules by this thread.

    Other threads may run, hook and explain the same model at the same time, without these hooks. A
    copy of the model made in between keeps hooks that do nothing.
    """
    thread, active = threading.get_ident(), True

    def own(hook: Callable[..., Any]) -> Callable[..., Any]:
        def act(*given: Any) -> Any:
            return hook(*given) if active and threading.get_ident() == thread else None

        return act

    with _REGISTERING:
        handles = [module.register_forward_pre_hook(own(hook)) for module, hook in before.items()]
        handles += [module.register_forward_hook(own(hook)) for module, hook in after.items()]
    try:
        yield
    finally:
        active = False
        for handle in handles:
            handle.remove()


@contextmanager
def replaced(layer: nn.Module, value: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, for one forward pass, the layer's output is replaced by `value` of it.

    The model gets a copy, so that later in-place operations do not change the value itself. If the
    layer works in place, the value is written in place too, so that other uses of its input see it.
    Errors: TypeError unless the output is one floating-point tensor, ValueError unless the layer
    runs once.
    """
    outputs: list[object] = []
    versions: dict[int, int] = {}

    def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
        versions.update({id(arg): arg._version for arg in args if isinstance(arg, Tensor)})

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Tensor | None:
        outputs.append(output)
        if len(outputs) > 1 or not _floating(output):
            return None
        if output._version > versions.get(id(output), output._version):
            return output.copy_(value(output))
        return value(output).clone()

    with hooked({layer: before}, {layer: after}):
        yield
    if len(outputs) != 1:
        raise ValueError(
            "layer: expected a module that runs once in a forward pass, it ran "
            f"{len(outputs)} times"
        )
    if not _floating(outputs[0]):
        raise TypeError(
            "layer: expected a module whose output is one floating-point tensor, got "
            f"{type(outputs[0]).__name__}"
        )


def _floating(output: object) -> TypeGuard[Tensor]:
    return isinstance(output, Tensor) and output.is_floating_point()


def taken(model: Callable[..., Any], layer: nn.Module, args: tuple[object, ...]) -> Tensor:
    """The layer's output in one clean forward pass, before later operations change it in place."""
    found: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        found.append(output.detach().clone())
        return output

    with torch.no_grad(), replaced(layer, keep):
        call(model, *args)
    return found[0]
