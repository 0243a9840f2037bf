"""How fast a network's logits can change with its input: a proven bound, and what was seen.

The bound multiplies the norms of the operators that run in a forward pass. It holds for every input
and is far above what any input shows, the more the deeper the network.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from moreaugrad.certificates.operators import matrix_norm, row_norms
from moreaugrad.certificates.program import check_program, exported
from moreaugrad.certificates.rules import (
    RULES,
    convolution,
    normalisation_scale,
    operand_of,
    weight_of,
)
from moreaugrad.certificates.slopes import Unknown, Varying, varying
from moreaugrad.score import checks
from moreaugrad.score.bound_score import BoundScore

Shape = tuple[int, ...]
NORMALISATIONS = ("batch_norm", "_native_batch_norm_legit_no_training")
CONVOLUTIONS = ("conv1d", "conv2d", "convolution")


@dataclass(frozen=True, kw_only=True, eq=False)
class LipschitzBound:
    """|f_c(x) - f_c(y)| <= value[c] ||x - y||_2 for all inputs x, y of `input_shape`.

    outputs: the same for all outputs together. operators: by how much each operator raises or
    lowers it, by the operators' names in the order in which they run, where that is not 1.
    Units: output per unit of the network's input.
    """

    value: Tensor
    outputs: float
    operators: Mapping[str, float]
    input_shape: Shape


def lipschitz_bound(model: nn.Module, input_shape: Sequence[int]) -> LipschitzBound:
    """The bound for one input `input_shape`, without the batch dimension, in evaluation mode.

    It is of the operators that run, as `torch.export` records them: what hooks, parametrisations,
    operators in place and functions do is in it. Convolutions: the largest norm over all
    frequencies of a periodic convolution that contains theirs, with the batch normalisation that
    follows; a sum of branches: the sum of theirs; a concatenation: the root of the sum of their
    squares. Errors: ValueError for a network whose way through the code depends on values, that
    is not a function of its input alone, or has an operator of which no bound is known.
    """
    checks.check_mode(model)
    shape = tuple(input_shape)
    program = exported(model, shape)
    found = _Walk(program).bound(shape)
    check_program(program, model, shape)
    return found


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


class _Walk:
    """The operators in order: values where they do not depend on the input, else how fast they
    change."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.of: dict[fx.Node, Any] = {}
        self.calls: dict[fx.Node, dict[str, Any]] = {}
        self.norms: dict[str, float] = {}

    def bound(self, shape: Shape) -> LipschitzBound:
        given = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.of[node] = self._given(node, given[node.name])
            elif node.op == "get_attr":  # a part of the graph, which only its operator reads
                self.of[node] = node.target
            elif node.op == "call_function" and node.users:
                self.of[node] = self._call(node)
        with torch.no_grad():
            return self._result(shape)

    def _result(self, shape: Shape) -> LipschitzBound:
        outputs = self.program.graph_signature.user_outputs
        nodes = {node.name: node for node in self.program.graph.nodes}
        if len(outputs) != 1 or not isinstance(outputs[0], str):
            raise ValueError("model: expected one tensor as output")
        last = nodes[outputs[0]]
        found = self.of[last]
        if not isinstance(found, Varying):
            raise ValueError("model: the output does not depend on the input")
        name, count = _name(last), found.like.numel()
        weight = weight_of(name, self.calls[last]) if last in self.calls else None
        if weight is None:
            value = torch.full((count,), found.speed, dtype=torch.float64)
        else:  # a linear layer keeps its rows apart
            before = operand_of(name, self.calls[last])
            value = (row_norms(weight) * before.speed).repeat(count // len(weight))
        return LipschitzBound(
            value=value, outputs=found.speed, operators=self.norms, input_shape=shape
        )

    def _given(self, node: fx.Node, spec: Any) -> Any:
        if spec.kind is InputKind.USER_INPUT:
            return Varying(speed=1.0, like=node.meta["val"])
        for known in (self.program.state_dict, self.program.constants):
            if spec.target in known:
                return known[spec.target]
        raise ValueError(f"model: no value is known of {spec.target!r}")

    def _call(self, node: fx.Node) -> Any:
        args: Any
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.of.__getitem__)
        if node.target is operator.getitem:
            whole, index = args
            if not isinstance(whole, Varying):
                return whole[index]
            return self._checked(node, whole.speed)
        target: Any = node.target
        arguments = _by_name(target, args, kwargs)
        if torch.Tag.nondeterministic_seeded in target.tags and not _idle(arguments):
            raise ValueError(f"model: {_name(node)} is random: its output is not a function")
        if not any(True for _ in varying(arguments)):
            with torch.no_grad():
                return target(*args, **kwargs)
        self.calls[node] = arguments
        speed = self._speed(node, arguments)
        before = max(each.speed for each in varying(arguments))
        if speed != before:
            self.norms[node.name] = speed / before if before else 0.0
        return self._checked(node, speed)

    def _speed(self, node: fx.Node, arguments: dict[str, Any]) -> float:
        name = _name(node)
        if name not in RULES:
            raise ValueError(
                f"model: no bound is known for {name!r} ({node.name}); known: "
                f"{', '.join(sorted(RULES))}"
            )
        try:
            folded = self._folded(node, name, arguments)
            return RULES[name](arguments, node.meta["val"]) if folded is None else folded
        except Unknown as error:
            raise ValueError(f"model: {name} ({node.name}): {error}") from None

    def _folded(self, node: fx.Node, name: str, arguments: dict[str, Any]) -> float | None:
        """A batch normalisation together with what alone it reads: less than the two norms."""
        before = node.all_input_nodes[0]
        if name not in NORMALISATIONS or len(before.users) > 1 or before not in self.calls:
            return None
        inner = self.calls[before]
        weight = (
            inner["weight"] if _name(before) in CONVOLUTIONS else weight_of(_name(before), inner)
        )
        if weight is None or before.meta["val"].ndim != weight.ndim:
            return None  # with more axes than these, the channels are others
        scale = normalisation_scale(arguments)
        if _name(before) in CONVOLUTIONS:
            return convolution(inner, scale)
        return operand_of(_name(before), inner).speed * matrix_norm(weight, scale)

    def _checked(self, node: fx.Node, speed: float) -> Varying:
        like = node.meta["val"]
        if isinstance(like, Tensor) and not (like.is_floating_point() and like.dtype.itemsize >= 2):
            raise ValueError(
                f"model: {_name(node)} ({node.name}) turns values that depend on the input into "
                f"{like.dtype}: expected floating-point numbers, for others jump"
            )
        return Varying(speed=speed, like=like)


def _name(node: fx.Node) -> str:
    """Of the operator, as torch.ops.aten has it; of others with their namespace."""
    packet = getattr(node.target, "overloadpacket", node.target)
    name, space = str(getattr(packet, "__name__", packet)), getattr(node.target, "namespace", "")
    return name if space == "aten" else f"{space}.{name}"


def _by_name(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments by the names of the operator's schema, with its defaults."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        raise ValueError(f"model: no bound is known for {getattr(target, '__name__', target)!r}")
    given = {item.name: value for item, value in zip(schema.arguments, args, strict=False)}
    known = {item.name: item.default_value for item in schema.arguments}
    return {name: given.get(name, kwargs.get(name, known[name])) for name in known}


def _idle(arguments: Mapping[str, Any]) -> bool:
    """Dropout and its like, where they are called with training off."""
    return arguments.get("train") is False or arguments.get("training") is False
