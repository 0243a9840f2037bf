"""The balanced backward pass, in which the gradient times the input adds up in a transformer too.

Attention weights, deviations that normalise, and gates depend on the input as the values do that
they multiply, and in the gradient both compete. Here the former are constants:

- softmax, sigmoid, erf, exp, 1 / x, 1 / sqrt(x), negative powers, a denominator, and queries and
  keys of fused attention have no derivative; nor has tanh + constant, the gate of a GELU;
- LayerNorm and GroupNorm keep the derivative by their mean, and lose that by their deviation;
- an activation phi with phi(0) = 0 has phi(x) / x: GELU, SiLU, Mish, Hardswish, tanh, powers
  (ReLU, whose derivative that is already, needs no rule);
- a product of two factors that both depend on the input gives half of the gradient to each.

A network of these and of linear parts is then affine in its input, coefficients held constant: its
outputs are the sum of input times gradient, plus what its biases add (see `completeness`).

The rules act on the operations that torch recorded, whatever recorded them: a module, a function, a
tensor's method or scripted code. The forward pass is not touched.

Source: LibraGrad (Mehri et al., CVPR 2025); AttnLRP (Achtibat et al., ICML 2024) has these rules
with other divisions of products.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from moreaugrad.score.checks import ModelError
from moreaugrad.score.graph import operations
from moreaugrad.score.precision import raised

EXACT, BALANCED = "exact", "balanced"
BACKWARDS: Mapping[str, str] = {
    EXACT: "the gradient",
    BALANCED: "with attention weights, the normalisation's deviation and gates as constants",
}

Grads = tuple[Tensor | None, ...]

CONSTANT = tuple(
    f"{name}Backward0"
    for name in ("Softmax", "SafeSoftmax", "Sigmoid", "Erf", "Exp", "Reciprocal", "Rsqrt")
)
"""Recorded operations whose result counts as a constant."""
PRODUCTS = ("MulBackward0", "BmmBackward0", "MmBackward0")
FUSED_ATTENTION = "ScaledDotProduct"
VALUES = 2
"""The place of the values among the inputs of fused attention."""


def ratio(phi: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """phi(x) / x in single precision at least, and its limit from below at x = 0."""
    x = raised(x)
    least = torch.finfo(x.dtype).eps
    x = torch.where(x.abs() < least, -least, x)
    return phi(x) / x


def _gelu(node: Any) -> Tensor:
    return ratio(partial(F.gelu, approximate=node._saved_approximate), node._saved_self)


def _power(node: Any) -> Tensor:
    return ratio(lambda x: x.pow(node._saved_exponent), node._saved_self)


def _tanh(node: Any) -> Tensor:
    y = raised(node._saved_result)
    most = 1 - torch.finfo(y.dtype).eps / 2  # that of inputs so large that tanh rounds to 1
    return ratio(torch.tanh, y.clamp(-most, most).atanh())


GATES: Mapping[str, Callable[[Any], Tensor]] = {
    "GeluBackward0": _gelu,
    "SiluBackward0": lambda node: ratio(F.silu, node._saved_self),
    "MishBackward0": lambda node: ratio(F.mish, node._saved_self),
    "HardswishBackward0": lambda node: ratio(F.hardswish, node._saved_self),
    "TanhBackward0": _tanh,
    "PowBackward0": _power,
}
"""phi(x) / x of recorded activations."""


def _layer_norm(node: Any, gradient: Tensor) -> Tensor:
    axes = tuple(range(-len(node._saved_normalized_shape), 0))
    weight, deviation = node._saved_weight, node._saved_result2
    scaled = gradient if weight is None else gradient * weight
    found: Tensor = (scaled - scaled.mean(axes, keepdim=True)) * deviation
    return found


def _group_norm(node: Any, gradient: Tensor) -> Tensor:
    batch, groups, weight = node._saved_N, node._saved_group, node._saved_weight
    rows = gradient.reshape(batch, node._saved_C, -1)
    rows = rows if weight is None else rows * weight[:, None]
    rows = rows.reshape(batch, groups, -1)
    found: Tensor = (rows - rows.mean(2, keepdim=True)) * node._saved_result2[:, :, None]
    return found.reshape(gradient.shape)


NORMS: Mapping[str, Callable[[Any, Tensor], Tensor]] = {
    "NativeLayerNormBackward0": _layer_norm,
    "NativeGroupNormBackward0": _group_norm,
}


def _constants(node: Any) -> Collection[int]:
    """The places of a recorded operation's inputs that count as constants."""
    name, inputs = type(node).__name__, node.next_functions
    everything = range(len(inputs))
    if name.startswith(FUSED_ATTENTION):
        return [place for place in everything if place != VALUES]
    if name == "DivBackward0":
        return everything[1:]
    gate = name == "AddBackward0" and [type(n).__name__ for n, _ in inputs if n] == [
        "TanhBackward0"
    ]
    negative = name == "PowBackward0" and node._saved_exponent < 0
    return everything if name in CONSTANT or gate or negative else ()


def _dependent(output: Tensor, inputs: Sequence[Tensor | GradientEdge]) -> set[Any]:
    """The recorded operations whose result depends on the inputs, constants left out."""
    users = defaultdict(list)
    for node in operations(output):
        constants = _constants(node)
        for place, (following, _) in enumerate(node.next_functions):
            if following is not None and place not in constants:
                users[following].append(node)
    edges = [get_gradient_edge(i) if isinstance(i, Tensor) else i for i in inputs]
    found = {edge.node for edge in edges}
    open_nodes = list(found)
    while open_nodes:
        for user in users[open_nodes.pop()]:
            if user not in found:
                found.add(user)
                open_nodes.append(user)
    return found


def _hook(node: Any, dependent: set[Any]) -> Callable[[Grads, Grads], Grads | None] | None:
    """What replaces the gradients by an operation's inputs; None where it has no rule."""
    name, known = type(node).__name__, [n in dependent for n, _ in node.next_functions]
    if not any(known):
        return None
    if constants := _constants(node):
        return lambda into, _: tuple(None if i in constants else g for i, g in enumerate(into))
    if name in PRODUCTS:
        return _halved if all(known) else None
    if name in GATES:
        return partial(_first, lambda gradient: gradient * GATES[name](node))
    if name in NORMS:
        return partial(_first, partial(NORMS[name], node))
    return None


def _halved(into: Grads, _: Grads) -> Grads:
    return tuple(None if gradient is None else gradient / 2 for gradient in into)


def _first(back: Callable[[Tensor], Tensor], into: Grads, out: Grads) -> Grads:
    """With another gradient by the first input; those by weights and biases stay."""
    gradient = out[0]
    found = None if gradient is None else back(raised(gradient)).to(gradient.dtype)
    return (found, *into[1:])


@contextmanager
def balanced(output: Tensor, inputs: Sequence[Tensor | GradientEdge]) -> Iterator[None]:
    """While open, a gradient of the output by the inputs follows the rules.

    Errors: ModelError if the output depends on the inputs by constants alone, as that of a network
    that ends in a softmax does.
    """
    dependent = _dependent(output, inputs)
    if output.grad_fn not in dependent:
        raise ModelError(
            f"backward: expected a network whose output is not itself a constant of {BALANCED!r} "
            f"(a softmax, a sigmoid, a quotient's denominator), so that the gradient is zero; give "
            "the network that returns logits, with score='probability' if probabilities are meant, "
            f"or backward={EXACT!r}"
        )
    with ExitStack() as held:
        for node in operations(output):
            if (hook := _hook(node, dependent)) is not None:
                held.callback(node.register_hook(hook).remove)
        try:
            yield
        except RuntimeError as error:
            if "already unpacked" not in str(error):
                raise
            raise ModelError(
                f"backward: expected a network that keeps its activations, for {BALANCED!r}, got "
                "one that computes them again (torch.utils.checkpoint); switch that off, or give "
                f"backward={EXACT!r}"
            ) from error
