"""Second derivatives of operators that torch differentiates only once, or that have zero ones.

A ReLU network's logits are piecewise linear: their second derivative is zero wherever it exists,
and an attack that follows it finds nothing. `softplus_surrogate` is a smooth network instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, once_differentiable

from moreaugrad.curvature.fixed_weights import FIXED_WEIGHTS
from moreaugrad.score.checks import ModelError
from moreaugrad.score.forward import plain_attention
from moreaugrad.score.graph import operations
from moreaugrad.score.kinks import ACTIVATIONS, Replaced, Rules
from moreaugrad.settings import expect

_REFUSED = re.compile(
    "derivative for .* is not implemented|double backward|differentiate twice|no autograd formula",
    re.IGNORECASE,
)
"""Messages of torch and its extensions about an operator without a second derivative."""


class NoSecondDerivative(ModelError):
    """The network has an operator without a second derivative; the message names it."""

    def __init__(self, operator: str) -> None:
        super().__init__(
            "the method needs second derivatives, and the network has an operator without: "
            f"{operator}. Use a method of first derivatives (simple gradient, CAFO), or replace "
            "the operator (autograd.Function: a backward of differentiable operations, without "
            "once_differentiable)"
        )


@contextmanager
def twice_differentiable(by_inputs: bool = False) -> Iterator[None]:
    """While open, in this thread, what a network computes has second derivatives.

    by_inputs: whether only the network's inputs are differentiated by, which is faster: layers with
    fixed weights compute nothing for these, and have no derivative by them.

    Forward passes, and the backward passes that differentiate them again, go inside:

        with torch.enable_grad(), twice_differentiable():
            outputs = model(x)
            check_twice_differentiable(outputs, x)
            (gradient,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
            (product,) = torch.autograd.grad(gradient, x, v)

    Attention is computed in its plain form; hard-sigmoid as relu6(x + 3) / 6, the same to the bit;
    `torch.cdist` as the norm of the differences, the same up to rounding. Function calls inside
    TorchScript are not replaced.
    Errors: NoSecondDerivative if torch cannot differentiate an operator's derivative.
    """
    try:
        rules = {**RULES, **FIXED_WEIGHTS} if by_inputs else RULES
        with plain_attention(), Replaced(rules):
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

    Torch cuts the graph there, so their second derivative would look like zero.
    Errors: NoSecondDerivative.
    """
    for node in operations(outputs):
        if not isinstance(node, BackwardCFunction) or not _marked(node):
            continue
        if any(getattr(other, "variable", None) is leaf for other in operations(node)):
            name = type(node)._forward_cls.__name__  # type: ignore[attr-defined]
            raise NoSecondDerivative(f"{name}, which is marked once_differentiable")


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


RULES: Rules = {
    F.hardsigmoid: _hardsigmoid,
    torch.cdist: _cdist,
}
"""Functions without a second derivative, and equal functions that have one."""


def softplus_surrogate(model: nn.Module, beta: float) -> nn.Module:
    """The model with every ReLU replaced by softplus_beta(t) = log(1 + exp(beta t)) / beta.

    It shares the model's parameters and buffers. Modules and functions are replaced: relu, relu6,
    leaky_relu, prelu, and clamps at 0 from below. Max-pooling keeps its kinks.

    >>> smooth = mg.softplus_surrogate(model, beta=20.0)

    beta: > 0; as it grows, the function approaches the model's, and its curvature infinity.
    Errors: ValueError for beta, and, at the first call, for a model without such activations;
    TypeError for a model that is no module.
    Source: Dombrowski et al. (2019).
    """
    return _SoftplusSurrogate(model, beta)


class _SoftplusSurrogate(nn.Module):
    """See `softplus_surrogate`."""

    def __init__(self, model: nn.Module, beta: float) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"model: expected a torch.nn.Module, got {type(model).__name__}: wrap a function "
                "in a module"
            )
        expect(0 < beta < math.inf, "beta", "a finite number > 0", beta)
        self.model, self.beta = model, beta
        self.training = model.training  # and not train(), which would set that of all parts

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with Replaced(_softplus_rules(self.beta)) as replaced:
            output = self.model(*args, **kwargs)
        if replaced.count == 0:
            raise ModelError(
                "model: expected ReLU activations, found none to replace: a smooth network needs "
                "no surrogate, and other kinds of kinks are not supported"
            )
        return output

    def extra_repr(self) -> str:
        return f"beta={self.beta:g}"


def _softplus_rules(beta: float) -> Rules:
    """Smooth replacements of activations whose first kink is at 0.

    Other clamps often guard a number against being too small, which must not change.
    """

    def softened(read: Callable[..., Any], *given: Any, **named: Any) -> Any:
        found = read(*given, **named)
        if found is NotImplemented or found[1].kinks[0] != 0:
            return NotImplemented
        input, activation, inplace = found
        smooth = activation.softened(input.clone() if inplace else input, beta)
        return input.copy_(smooth) if inplace else smooth

    return {function: partial(softened, read) for function, read in ACTIVATIONS.items()}
