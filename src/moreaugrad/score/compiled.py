"""Networks whose passes are compiled, and which of their passes may be."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack

from moreaugrad.score.forward import one_function, out_of_memory

T = TypeVar("T")

LONGEST = 200
"""Characters of a compiler's message that are kept."""


@dataclass
class _Compiled:
    """hooks: how many the network has of its own; compiled code ignores those that come later.
    failure: why it cannot be compiled, once that is known."""

    hooks: int
    failure: str = ""


_COMPILED = WeakKeyDictionary[nn.Module, _Compiled]()


def compile_passes(module: nn.Module) -> None:
    """From now on gradients of this network, which stays as it is, are computed by compiled code.

    Compiling takes place in the first passes. Copies of the network are not compiled.
    """

    def passed(*args: Any, **named: Any) -> Any:
        return module._call_impl(*args, **named)  # type: ignore[no-untyped-call]

    # As module.compile() does, which leaves out networks that are torch's own, as nn.Sequential.
    # torch gives it to no copy.
    module._compiled_call_impl = torch.compile(passed)
    _COMPILED[module] = _Compiled(_hooks(module))


def failure(module: nn.Module) -> str:
    """Why a network of `compile_passes` could not be compiled; empty where that is not known."""
    return _COMPILED[module].failure


def usable(model: object) -> TypeGuard[nn.Module]:
    """Whether a network is compiled and nothing looks into its passes now."""
    if not isinstance(model, nn.Module) or model not in _COMPILED:
        return False
    own = _COMPILED[model]
    modes = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    looked_into = modes or _hooks(model) != own.hooks
    return not own.failure and not looked_into


def padded(rows: int, most: int, device: torch.device) -> int:
    """Rows of a pass for `rows` samples, at most `most`: a GPU gets few different sizes, for each
    of which it may keep code and memory; on a CPU, rows that are not needed cost their time."""
    return rows if device.type == "cpu" else min(1 << (rows - 1).bit_length(), max(rows, most))


def with_compiled(model: nn.Module, work: Callable[[], T]) -> T:
    """The result of `work`, in which the network's passes are compiled; if they cannot be, a
    warning says why, and it is not tried again."""
    try:
        with one_function(), torch.compiler.set_stance("default"):
            return work()
    except Exception as error:  # whatever a compiler raises: the network works without it
        if out_of_memory(error):
            raise
        # Advice for developers of torch follows.
        said = str(error.__cause__ or error).strip().split("\n\n")[0]
        reason = " ".join(said.split())[:LONGEST] or type(error).__name__
    found = work()  # an error of the network itself is raised here
    _COMPILED[model].failure = reason
    warnings.warn(f"the network is not compiled, because that fails: {reason}", stacklevel=2)
    return found


def _hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())
