"""How fast a network's logits can change with its input: a proven bound, and a sampled value.

The bound multiplies the norms of the operators of a forward pass. It holds for every input, and is
far above the gradients at actual inputs, the more so the deeper the network.
"""

from __future__ import annotations

import io
import logging
import math
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.random import fork_rng

from moreaugrad.certificates.operators import (
    Varying,
    convolution,
    matrix_norm,
    normalisation_scale,
    operand_of,
    row_norms,
    varying,
    weight_of,
)
from moreaugrad.certificates.rules import RULES
from moreaugrad.score import checks
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.settings import Documented, expect

Shape = tuple[int, ...]
NORMALISATIONS = ("batch_norm", "_native_batch_norm_legit_no_training")
CONVOLUTIONS = ("conv1d", "conv2d", "convolution")


@dataclass(frozen=True, kw_only=True, eq=False)
class LipschitzBound(metaclass=Documented, heading="Attributes"):
    """|f_c(x) - f_c(y)| <= value[c] ||x - y||_2 for all inputs x, y of `input_shape`.

    >>> bound = mg.certificates.lipschitz_bound(torch.nn.Linear(3, 2).eval(), (3,))
    >>> largest = float(bound.value.max())

    Units: output per unit of the network's input.
    """

    value: Tensor
    """The bound of each output, `[outputs]`."""
    outputs: float
    """The bound of all outputs together, ||f(x) - f(y)||_2 <= outputs ||x - y||_2."""
    operators: Mapping[str, float]
    """The factor of each operator by its name, in the order in which they run, where it is not
    1."""
    input_shape: Shape
    """The shape of an input, without the batch dimension."""


def lipschitz_bound(model: nn.Module, input_shape: Sequence[int]) -> LipschitzBound:
    """The bound for inputs of `input_shape`, without the batch dimension, in evaluation mode.

    >>> bound = mg.certificates.lipschitz_bound(torch.nn.Linear(3, 2).eval(), (3,))
    >>> per_output = bound.value

    It follows the operators that `torch.export` records, and so includes hooks, parametrisations,
    in-place operators and functions. A convolution has the largest norm over all frequencies of a
    periodic convolution that contains it, together with the batch normalisation that follows; a
    sum of branches has the sum of their bounds, a concatenation the root of the sum of squares.
    Errors: ValueError for a network whose control flow depends on values, that is not a function of
    its input alone, or that has an operator without a known bound.
    """
    checks.check_mode(model)
    shape = tuple(input_shape)
    program = _exported(model, shape)
    found = _Walk(program).bound(shape)
    _check_program(program, model, shape)
    return found


def sampled_lipschitz(bound: BoundScore, radius: float, samples: int = 64) -> Tensor:
    """The largest ||grad f|| at each input and at random points at `radius` from it, `[B]`.

    >>> bound = mg.SimpleGradient(model).bind(x)
    >>> steepest = mg.certificates.sampled_lipschitz(bound, radius=1.0, samples=4)

    radius: in the units of the input. samples: the number of random points, which are a function of
    the score's noise seed and the sample's id. The result is a lower bound of the Lipschitz
    constant: f may be steeper elsewhere.
    """
    expect(0 < radius < math.inf, "radius", "a finite number > 0", radius)
    expect(samples >= 1, "samples", "at least 1", samples)
    bound.check_exact()
    best: Tensor = bound.value_and_grad()[1].norm(dim=1)
    for index in range(samples):
        u = bound.noise.draw(bound.keys, index, bound.origin, bound.mask)
        u = radius * u / u.norm(dim=1, keepdim=True)
        best = torch.maximum(best, bound.value_and_grad(u)[1].norm(dim=1))
    return best


class _Walk:
    """The operators in order, each as its value, or as `Varying` where it depends on the input."""

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
            elif node.op == "get_attr":  # a subgraph, which only its operator reads
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
        else:  # each output of a linear layer has the norm of its own row
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
        # Dropout and similar operators are not random where training is off.
        idle = arguments.get("train") is False or arguments.get("training") is False
        if torch.Tag.nondeterministic_seeded in target.tags and not idle:
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
        except ValueError as error:
            raise ValueError(f"model: {name} ({node.name}): {error}") from None

    def _folded(self, node: fx.Node, name: str, arguments: dict[str, Any]) -> float | None:
        """A batch normalisation together with the linear operator before it, which has a smaller
        norm than the two have separately."""
        before = node.all_input_nodes[0]
        if name not in NORMALISATIONS or len(before.users) > 1 or before not in self.calls:
            return None
        inner = self.calls[before]
        weight = (
            inner["weight"] if _name(before) in CONVOLUTIONS else weight_of(_name(before), inner)
        )
        if weight is None or before.meta["val"].ndim != weight.ndim:
            return None  # with more axes, the channels are different ones
        scale = normalisation_scale(arguments)
        if _name(before) in CONVOLUTIONS:
            return convolution(inner, scale)
        return operand_of(_name(before), inner).speed * matrix_norm(weight, scale)

    def _checked(self, node: fx.Node, speed: float) -> Varying:
        like = node.meta["val"]
        if isinstance(like, Tensor) and not (like.is_floating_point() and like.dtype.itemsize >= 2):
            raise ValueError(
                f"model: {_name(node)} ({node.name}) turns values that depend on the input into "
                f"{like.dtype}: expected floating-point numbers, because others are not continuous"
            )
        return Varying(speed=speed, like=like)


def _name(node: fx.Node) -> str:
    """The operator's name in torch.ops.aten; for other operators with their namespace."""
    packet = getattr(node.target, "overloadpacket", node.target)
    name, space = str(getattr(packet, "__name__", packet)), getattr(node.target, "namespace", "")
    return name if space == "aten" else f"{space}.{name}"


def _by_name(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments, defaults included, by the names in the operator's schema."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        raise ValueError(f"model: no bound is known for {getattr(target, '__name__', target)!r}")
    given = {item.name: value for item, value in zip(schema.arguments, args, strict=False)}
    known = {item.name: item.default_value for item in schema.arguments}
    return {name: given.get(name, kwargs.get(name, known[name])) for name in known}


def _exported(model: nn.Module, shape: Sequence[int]) -> ExportedProgram:
    """The operators of a forward pass for an input `[1, *shape]`, in-place ones replaced.

    Errors: ValueError for a network that torch.export cannot follow.
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


def _check_program(program: ExportedProgram, model: nn.Module, shape: Sequence[int]) -> None:
    """Errors: ValueError where network and program differ: the network changes its buffers, counts
    its calls, draws random numbers, or runs other code during the export."""
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
            "or depends on something other than its operators"
        )


def _points(model: nn.Module, shape: Sequence[int]) -> list[Tensor]:
    """Zeros and two random inputs, of the parameters' type and device."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(1, *shape, generator=generator) for _ in range(2)]
    return [point.to(like) for point in (torch.zeros(1, *shape), *draws)]


def _equal(one: Sequence[object], other: Sequence[object]) -> bool:
    """Whether tensors agree up to rounding; other kinds of output are refused later."""
    return all(
        not (isinstance(a, Tensor) and isinstance(b, Tensor))
        or (a.shape == b.shape and torch.allclose(a, b, 1e-3, 1e-5, equal_nan=True))
        for a, b in zip(one, other, strict=True)
    )


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Restores the attributes of modules, which the trace replaces, and the random states."""
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
    """Without the exporter's warnings and logs; its errors say what matters."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
