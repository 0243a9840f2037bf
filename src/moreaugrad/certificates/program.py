"""A network as the operators that run: what hooks, parametrisations and functions do is in it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.random import fork_rng


def exported(model: nn.Module, shape: Sequence[int]) -> ExportedProgram:
    """The operators of one forward pass for an input `[1, *shape]`, none of them in place.

    `torch.export` follows the values themselves, so it sees hooks, parametrisations, functions
    and operators in place, and fails where the way through the code depends on values. Errors:
    ValueError for a network that it cannot follow.
    """
    try:
        with _undisturbed(model), _quiet():
            point = _points(model, shape)[0]
            program = torch.export.export(model, (point,), strict=False).run_decompositions({})
    except Exception as error:
        raise ValueError(
            f"model: expected a network that torch.export can follow for inputs {list(shape)} "
            f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})"
        ) from error
    found: ExportedProgram = program
    return found


def check_program(program: ExportedProgram, model: nn.Module, shape: Sequence[int]) -> None:
    """Errors: ValueError where the network is not the program: it changes its buffers, counts its
    calls, draws at random, or knows that it is exported."""
    changed = ", ".join(sorted(program.graph_signature.buffers_to_mutate.values()))
    if changed:
        raise ValueError(
            f"model: expected a forward pass that changes no buffers; {changed} change"
        )
    with _undisturbed(model), _quiet():
        expected, again, found = (
            [run(point.clone()) for point in _points(model, shape)]
            for run in (model, model, program.module())
        )
    if not (_equal(expected, again) and _equal(expected, found)):
        raise ValueError(
            "model: expected a function of the input alone; its output changes from call to call, "
            "or with what cannot be seen in its operators"
        )


def _points(model: nn.Module, shape: Sequence[int]) -> list[Tensor]:
    """Zeros and two draws, of the parameters' type, where they are."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(1, *shape, generator=generator) for _ in range(2)]
    return [point.to(like) for point in (torch.zeros(1, *shape), *draws)]


def _equal(one: Sequence[object], other: Sequence[object]) -> bool:
    """Tensors alike up to rounding; an output of another form is refused later."""
    return all(
        not (isinstance(a, Tensor) and isinstance(b, Tensor))
        or (a.shape == b.shape and torch.allclose(a, b, 1e-3, 1e-5, equal_nan=True))
        for a, b in zip(one, other, strict=True)
    )


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Modules keep their attributes, which the trace would replace, and no random state moves."""
    kept: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (now, dict(now))
        for module in model.modules()
        for now in (module.__dict__, module._parameters, module._buffers)
    ]
    with fork_rng(devices=[]):
        try:
            yield
        finally:
            for now, before in kept:
                now.clear()
                now.update(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own warnings and logs; what matters is in its error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
