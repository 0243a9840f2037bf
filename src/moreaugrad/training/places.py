"""How a protocol calls a model: in which mode, and where the perturbation enters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from moreaugrad.score.forward import call, one_function
from moreaugrad.score.hooks import hooked, replaced, resolve
from moreaugrad.settings import expect

Model = Callable[..., Any]
EVAL, TRAIN = "eval", "train"
MODES = (EVAL, TRAIN)
"""Modes of the passes that compute a perturbation: evaluation, or the mode the model is in."""

Inputs = Tensor | Mapping[str, Any]
"""A tensor `[B, ...]`, or the model's keyword arguments."""
PADDING = "attention_mask"
"""The argument that is False, or 0, at padding."""


@contextmanager
def in_mode(model: Model, mode: str) -> Iterator[None]:
    """With "eval", the whole model is in evaluation mode; afterwards each part's is restored.

    A method has the mode of its module; other functions say nothing of what they call.
    """
    model = model.model if isinstance(model, Place) else model
    model = getattr(model, "__self__", model)
    if mode != EVAL or not isinstance(model, nn.Module):
        yield
        return
    before = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training  # and not train(), which would set that of its parts


class Place(nn.Module):
    """A model as a function of one tensor `[B, ...]`: the entry of its inputs with that `key`, or
    what is added to the output of `layer`."""

    def __init__(
        self, model: Model, inputs: Inputs, key: str | None, layer: nn.Module | None
    ) -> None:
        super().__init__()
        self.model, self.key, self.layer = model, key, layer
        self.inputs: Any = inputs

    @classmethod
    def of(cls, model: Model, inputs: Inputs, layer: str | nn.Module | None) -> Place | None:
        """None where the inputs are the tensor. Errors: ValueError or TypeError for inputs without
        one, and for an unknown layer."""
        if layer is not None:
            return cls(model, inputs, None, resolve(bare(model), layer))
        if not isinstance(inputs, Mapping):
            return None
        found = [k for k, v in inputs.items() if isinstance(v, Tensor) and v.is_floating_point()]
        expect(
            len(found) == 1, "x", "one floating-point tensor among the model's arguments (token "
            "ids are perturbed at a layer, layer=)", found or list(inputs),
        )  # fmt: skip
        return cls(model, inputs, found[0], None)

    def start(self) -> Tensor:
        """The tensor without a perturbation: zero at a layer, whose output each pass computes."""
        if self.key is not None:
            found: Tensor = self.inputs[self.key]
            return found
        outputs: list[Any] = []
        assert self.layer is not None

        def stop(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            outputs.append(output)
            raise _Reached

        # In evaluation mode nothing is drawn: the caller's dropout stays the same.
        stopping = hooked({}, {self.layer: stop})
        with in_mode(self.model, EVAL), torch.no_grad(), suppress(_Reached), stopping:
            call(self._started, *_tensors(self.inputs))
        # In the caller's autocast, older torch keeps the weights that this pass has cast, without a
        # graph, for the pass that trains them.
        torch.clear_autocast_cache()
        if not (outputs and isinstance(outputs[0], Tensor) and outputs[0].is_floating_point()):
            got = type(outputs[0]).__name__ if outputs else "one that does not run"
            raise TypeError(
                f"layer: expected a module whose output is one floating-point tensor, got {got}"
            )
        return torch.zeros_like(outputs[0])

    def _started(self, *_: Tensor) -> Any:
        return called(self.model, self.inputs)

    def forward(self, moved: Tensor) -> Any:
        with self.moved(moved) as inputs:
            return called(self.model, inputs)

    @contextmanager
    def moved(self, x: Tensor) -> Iterator[Inputs]:
        """The inputs with this tensor; at a layer, they are perturbed while this is open."""
        if self.key is not None:
            yield {**self.inputs, self.key: x}
            return
        assert self.layer is not None
        # Compiled passes ignore hooks.
        with one_function(), replaced(self.layer, lambda output: output + x.to(output.dtype)):
            yield self.inputs

    @property
    def padding(self) -> Tensor | None:
        """The model's own mask `[B, L]` of a layer's output `[B, L, ...]`."""
        if self.layer is None or not isinstance(self.inputs, Mapping):
            return None
        return self.inputs.get(PADDING)


class _Reached(BaseException):
    """Ends a pass at the layer; not an error, so that nothing reports it as one."""


def moved(model: Model, x: Tensor) -> Any:
    """A context whose value is what the model is called with, for the tensor x of its place."""
    return model.moved(x) if isinstance(model, Place) else nullcontext(x)


def called(model: Model, inputs: Inputs) -> Any:
    """The output for a tensor or for keyword arguments."""
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def bare(model: Model) -> Model:
    """Without any wrapper that sums gradients over processes, which expects a backward pass to the
    weights after each forward pass, and without those around it; what it holds may be compiled."""
    if isinstance(model, Place):
        return Place(bare(model.model), model.inputs, model.key, model.layer)
    inner: Any = model
    while True:
        if isinstance(inner, DistributedDataParallel):
            model = inner = inner.module
        elif hasattr(inner, "_orig_mod"):  # compiled
            inner = inner._orig_mod
        else:
            return model


def _tensors(inputs: Inputs) -> list[Tensor]:
    found = inputs.values() if isinstance(inputs, Mapping) else [inputs]
    return [value for value in found if isinstance(value, Tensor)]
