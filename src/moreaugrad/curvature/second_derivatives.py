"""Second derivatives through operators that torch differentiates only once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import BackwardCFunction, once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from moreaugrad.score.checks import ModelError

_REFUSED = re.compile(
    "derivative for .* is not implemented|double backward|differentiate twice|no autograd formula",
    re.IGNORECASE,
)
"""What torch and its extensions say of an operator without a second derivative."""


class NoSecondDerivative(ModelError):
    """The network has an operator without a second derivative; the message names it."""

    def __init__(self, operator: str) -> None:
        super().__init__(
            "the method needs second derivatives, and the network has an operator without: "
            f"{operator}. Use a method of first derivatives (simple gradient, CAFO), or write the "
            "operator with others that have them (autograd.Function: a backward of differentiable "
            "operations, without once_differentiable)"
        )


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """While open, in this thread, what the network computes has second derivatives.

    Forward passes, and the backward passes that differentiate them again, go inside:

        with torch.enable_grad(), twice_differentiable():
            outputs = model(x)
            check_twice_differentiable(outputs, x)
            (gradient,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
            (product,) = torch.autograd.grad(gradient, x, v)

    Attention is computed in its plain form. Hard-sigmoid is computed as relu6(x + 3) / 6, the same
    to the bit, and `torch.cdist` as the norm of the differences, the same up to rounding. Inside
    TorchScript a function call is not seen.
    Errors: NoSecondDerivative where torch has no derivative of an operator's derivative.
    """
    try:
        with sdpa_kernel(SDPBackend.MATH), _Rules():
            yield
    except ModelError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        found = _REFUSED.search(str(error))
        if found is None:
            raise
        raise NoSecondDerivative(str(error).splitlines()[0]) from error


def check_twice_differentiable(outputs: Tensor, leaf: Tensor) -> None:
    """Refuses operators marked `once_differentiable` between a leaf and the outputs.

    Torch cuts the graph there, so their second derivative would pass for zero.
    Errors: NoSecondDerivative.
    """
    for node in _nodes(outputs.grad_fn):
        if not isinstance(node, BackwardCFunction) or not _marked(node):
            continue
        if any(getattr(other, "variable", None) is leaf for other in _nodes(node)):
            name = type(node)._forward_cls.__name__  # type: ignore[attr-defined]
            raise NoSecondDerivative(f"{name}, which is marked once_differentiable")


def _nodes(root: Any) -> Iterator[Any]:
    """The recorded operations that lead to `root`, itself included."""
    seen, open_nodes = {root}, [root]
    while open_nodes:
        node = open_nodes.pop()
        if node is None:
            continue
        yield node
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                open_nodes.append(following)


_MARK = once_differentiable(lambda _: None).__code__


def _marked(node: BackwardCFunction) -> bool:
    """Whether the operation's backward was decorated with `once_differentiable`."""
    backward = type(node)._forward_cls.backward  # type: ignore[attr-defined]
    while backward is not None:
        if getattr(backward, "__code__", None) is _MARK:
            return True
        backward = getattr(backward, "__wrapped__", None)
    return False


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    # The operator itself computes in float32 where its input has less.
    wide = input.clone() if input.dtype == torch.float64 else input.float()
    found = (F.relu6(wide + 3) / 6).to(input.dtype)
    return input.copy_(found) if inplace else found


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    apart = x1.unsqueeze(-2) - x2.unsqueeze(-3)
    # At distance 0 the norm has no derivative; torch takes 0.
    same = (apart == 0).all(-1)
    found: Tensor = torch.linalg.vector_norm(apart.masked_fill(same[..., None], 1.0), p, dim=-1)
    return found.masked_fill(same, 0.0)


RULES: Mapping[Callable[..., Tensor], Callable[..., Tensor]] = {
    F.hardsigmoid: _hardsigmoid,
    torch.cdist: _cdist,
}
"""Functions without a second derivative, and their equals that have one."""


class _Rules(TorchFunctionMode):
    """Calls of such functions go to their equals."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return RULES.get(func, func)(*args, **(kwargs or {}))
