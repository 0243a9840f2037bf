"""The forward pass: every call of a model goes through here."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.backends import mha

from moreaugrad.score import checks
from moreaugrad.score.inputs import Layout
from moreaugrad.score.readout import tensor_output


def forward(model: Callable[..., Any], *args: object, layout: Layout | None = None) -> Tensor:
    """The model's output as one tensor. Errors as for `call`; TypeError for another output."""
    return tensor_output(call(model, *args, layout=layout))


def call(model: Callable[..., Any], *args: object, layout: Layout | None = None) -> Any:
    """What the model returns. Errors: ModelError for whatever it raises.

    layout: what the error says was given, in place of the tensors among `args`.
    """
    tensors = [arg for arg in args if isinstance(arg, Tensor) and arg.ndim > 0]
    with one_function(), checks.explained(layout or Layout.of(tensors)):
        return model(*args)


_LOCK = threading.Lock()
_OPEN = ExitStack()
_depth = 0


@contextmanager
def one_function() -> Iterator[None]:
    """While open, passes with and without gradients compute the same function, as Python runs it.

    torch's fast path of `nn.TransformerEncoder` runs without gradients only, and leaves out padded
    positions; compiled models ignore hooks. Both are switched off. The switches are torch's, for
    all threads: the first to enter sets them, the last to leave restores what the user had.
    """
    global _depth
    with _LOCK:
        if _depth == 0:
            _OPEN.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
            mha.set_fastpath_enabled(False)
            # Without dynamo nothing is compiled. Older torch has no such switch.
            if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
                _OPEN.enter_context(torch.compiler.set_stance("force_eager"))
        _depth += 1
    try:
        yield
    finally:
        with _LOCK:
            _depth -= 1
            if _depth == 0:
                _OPEN.close()
