"""How fast a network's logits can change with its input: a proven bound, and what was seen.

The bound multiplies the norms of the network's operators along its graph. It holds for every input
and is far above what any input shows, the more the deeper the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from moreaugrad import checks
from moreaugrad.bound import BoundScore
from moreaugrad.certificates.operators import MODULES, Unknown, row_norms

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class LipschitzBound:
    """|f_c(x) - f_c(y)| <= value[c] ||x - y||_2 for all inputs x, y of `input_shape`.

    outputs: the same for all outputs together. operators: the norms that were multiplied, by the
    names of the network's nodes. Units: output per unit of the network's input.
    """

    value: Tensor
    outputs: float
    operators: Mapping[str, float]
    input_shape: Shape


def lipschitz_bound(model: nn.Module, input_shape: Sequence[int]) -> LipschitzBound:
    """The bound for inputs `input_shape`, without the batch dimension, in evaluation mode.

    Convolutions: the largest norm over all frequencies of a periodic convolution that contains
    theirs, with the batch normalisation that follows; a sum of branches: the sum of theirs; a
    concatenation: the root of the sum of their squares. Errors: ValueError for a network that
    cannot be traced, or has an operator of which no bound is known.
    """
    checks.check_mode(model)
    graph = _traced(model, tuple(input_shape))
    walk = _Walk(graph)
    return walk.bound(tuple(input_shape))


def sampled_lipschitz(bound: BoundScore, radius: float, samples: int = 64) -> Tensor:
    """The largest ||grad f|| of each input and of keyed Gaussian points at `radius` from it, `[B]`.

    A lower bound of the Lipschitz constant, and an estimate of it: what was not looked at may be
    steeper.
    """
    if not 0 < radius < math.inf or samples < 1:
        raise ValueError(
            f"expected a finite radius > 0 and samples >= 1, got {radius!r} and {samples!r}"
        )
    best: Tensor = bound.value_and_grad()[1].norm(dim=1)
    for index in range(samples):
        u = bound.noise.draw(bound.keys, index, bound.origin, bound.mask)
        u = radius * u / u.norm(dim=1, keepdim=True)
        best = torch.maximum(best, bound.value_and_grad(u)[1].norm(dim=1))
    return best


def _traced(model: nn.Module, shape: Shape) -> fx.GraphModule:
    like = next(model.parameters(), torch.empty(0))
    try:
        # A layer alone would be traced into its own arithmetic.
        graph = fx.symbolic_trace(nn.Sequential(model) if type(model) in MODULES else model)
        with torch.no_grad():
            ShapeProp(graph).propagate(torch.zeros(1, *shape, dtype=like.dtype, device=like.device))
    except Exception as error:
        raise ValueError(
            f"model: expected a network that torch.fx can trace for inputs {list(shape)} "
            f"({type(error).__name__}: {error})"
        ) from error
    return graph


class _Walk:
    """The nodes in order, with the Lipschitz constant of each as a function of the input."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.modules = dict(graph.named_modules())
        self.of: dict[fx.Node, float] = {}
        self.norms: dict[str, float] = {}

    def bound(self, shape: Shape) -> LipschitzBound:
        for node in self.graph.graph.nodes:
            if node.op == "output":
                (last,) = node.all_input_nodes
                rows, before = self._rows(last)
                return LipschitzBound(
                    value=rows * self.of[before],
                    outputs=self.of[last],
                    operators=self.norms,
                    input_shape=shape,
                )
            self.of[node] = self._node(node)
        raise ValueError("model: expected a network with an output")

    def _rows(self, last: fx.Node) -> tuple[Tensor, fx.Node]:
        """A norm for each output, after which node: a linear layer's rows are told apart."""
        module = self._module(last)
        if isinstance(module, nn.Linear):
            return row_norms(module), last.all_input_nodes[0]
        count = math.prod(last.meta["tensor_meta"].shape[1:])
        return torch.ones(count, dtype=torch.float64), last

    def _node(self, node: fx.Node) -> float:
        if node.op == "placeholder":
            return 1.0
        operands = _operands(node)
        before = [self.of[item] for item in operands]
        if node.op == "call_module":
            return before[0] * self._kept(node, self._norm(node))
        name = getattr(node.target, "__name__", str(node.target))
        joined = JOINS.get(name)
        if joined is not None:
            return joined(node, operands, before)
        call = CALLS.get(name)
        if call is None or len(before) != 1:
            raise self._unknown(node, name)
        return before[0] * self._kept(node, call(node))

    def _kept(self, node: fx.Node, norm: float) -> float:
        if norm != 1:
            self.norms[node.name] = norm
        return norm

    def _norm(self, node: fx.Node) -> float:
        module = self._module(node)
        assert module is not None
        before = node.all_input_nodes[0]
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and self._folds(before):
            return 1.0  # it is in the convolution's norm
        rule = MODULES.get(type(module))
        if rule is None:
            raise self._unknown(node, type(module).__name__)
        after = self._following_norm(node)
        try:
            return rule(module, tuple(before.meta["tensor_meta"].shape[1:]), after)
        except Unknown as error:
            raise ValueError(f"model: {node.target}: {error}") from None

    def _following_norm(self, node: fx.Node) -> nn.Module | None:
        """The batch normalisation that alone reads this convolution."""
        if not self._folds(node):
            return None
        return self._module(next(iter(node.users)))

    def _folds(self, node: fx.Node) -> bool:
        if not isinstance(self._module(node), (nn.Conv1d, nn.Conv2d, nn.Linear)):
            return False
        users = list(node.users)
        return len(users) == 1 and isinstance(
            self._module(users[0]), nn.modules.batchnorm._BatchNorm
        )

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.modules.get(str(node.target)) if node.op == "call_module" else None

    def _unknown(self, node: fx.Node, name: str) -> ValueError:
        return ValueError(
            f"model: no bound is known for {name!r} ({node.name}); known: "
            f"{', '.join(sorted(kind.__name__ for kind in MODULES))}, "
            f"{', '.join(sorted({*CALLS, *JOINS}))}"
        )


def _operands(node: fx.Node) -> list[fx.Node]:
    """All inputs of a node, one that is given twice twice."""
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), found.append)
    return found


def _sum(node: fx.Node, operands: Sequence[fx.Node], before: Sequence[float]) -> float:
    """An operand that is repeated to the sum's shape has the root of the number of copies."""
    if node.kwargs.get("alpha", 1) != 1:
        raise ValueError(f"model: {node.name}: expected a plain sum, got one with alpha")
    made, *have = (math.prod(each.meta["tensor_meta"].shape) for each in (node, *operands))
    return sum(
        constant * math.sqrt(made / size) for constant, size in zip(before, have, strict=True)
    )


def _concatenation(node: fx.Node, operands: Sequence[fx.Node], before: Sequence[float]) -> float:
    return math.sqrt(sum(constant**2 for constant in before))


def _module_call(make: Callable[..., nn.Module]) -> Callable[[fx.Node], float]:
    """A function's norm, as the module of the same operation has it."""

    def norm(node: fx.Node) -> float:
        arguments: Sequence[Any] = node.args[1:]
        kept = {k: v for k, v in node.kwargs.items() if k not in ("inplace", "training", "input")}
        module = make(*arguments, **kept)
        shape = tuple(node.all_input_nodes[0].meta["tensor_meta"].shape[1:])
        return MODULES[type(module)](module, shape, None)

    return norm


def _spatial_mean(node: fx.Node) -> float:
    """Of `count` entries each: the mean has norm 1 / sqrt(count)."""
    before = node.all_input_nodes[0].meta["tensor_meta"].shape
    after = node.meta["tensor_meta"].shape
    return math.sqrt(math.prod(after) / math.prod(before))


def _activation(make: Callable[[], nn.Module]) -> Callable[[fx.Node], float]:
    def norm(node: fx.Node) -> float:
        module = make()
        return MODULES[type(module)](module, (), None)

    return norm


def _one(node: fx.Node) -> float:
    return 1.0


def _idle(node: fx.Node) -> float:
    """Dropout, in evaluation mode."""
    if node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True):
        raise ValueError(f"model: {node.name}: expected dropout in evaluation mode only")
    return 1.0


def _slices(node: fx.Node) -> float:
    """Entries that are left out, none of them taken twice."""
    index = node.args[1]
    parts = index if isinstance(index, tuple) else (index,)
    if not all(part is None or isinstance(part, (int, slice)) for part in parts):
        raise ValueError(f"model: {node.name}: expected plain slices, got {index!r}")
    return 1.0


def _constant_pad(node: fx.Node) -> float:
    mode = node.kwargs.get("mode", node.args[2] if len(node.args) > 2 else "constant")
    if mode != "constant":
        raise ValueError(f"model: {node.name}: expected padding by a constant, got {mode!r}")
    return 1.0


CALLS: Mapping[str, Callable[[fx.Node], float]] = {
    "relu": _activation(nn.ReLU),
    "relu_": _activation(nn.ReLU),
    "softplus": _activation(nn.Softplus),
    "silu": _activation(nn.SiLU),
    "gelu": _activation(nn.GELU),
    "tanh": _activation(nn.Tanh),
    "sigmoid": _activation(nn.Sigmoid),
    "max_pool2d": _module_call(nn.MaxPool2d),
    "avg_pool2d": _module_call(nn.AvgPool2d),
    "adaptive_avg_pool2d": _module_call(nn.AdaptiveAvgPool2d),
    "mean": _spatial_mean,
    "getitem": _slices,
    "pad": _constant_pad,
    "flatten": _one,
    "view": _one,
    "reshape": _one,
    "squeeze": _one,
    "dropout": _idle,
    "contiguous": _one,
}
"""One input, by the name of the function or of the tensor's method."""
JOINS: Mapping[str, Callable[[fx.Node, Sequence[fx.Node], Sequence[float]], float]] = {
    "add": _sum,
    "iadd": _sum,
    "add_": _sum,
    "cat": _concatenation,
}
"""Several inputs."""
