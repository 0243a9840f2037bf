"""How much faster than its input an activation can change, by the operator's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

SILU, GELU, MISH, SELU = 1.09984, 1.12905, 1.08850, 1.75810
"""The largest slopes, rounded up: of x sigmoid(x) at 2.3994, of x Phi(x) at sqrt 2 (whose
approximation by tanh has 1.12900), of x tanh(softplus(x)) at 1.4906, of SELU left of 0."""
SMOOTH = 20
"""Softplus turns into the identity where beta x passes its threshold. From here on by less than
rounding; below by a jump, which no constant bounds."""


class Unknown(ValueError):
    """A setting for which no bound is known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Varying:
    """A value that depends on the input: it changes by at most `speed` times the input's change.

    like: a tensor of the value's shape and type, without data, or several of an operator's outputs.
    """

    speed: float
    like: Any


Arguments = Mapping[str, Any]
"""By the names of the operator's schema; what depends on the input is `Varying`."""
Rule = Callable[[Arguments, Any], float]
"""The arguments and what the output is like -> the output's speed."""


def varying(value: object) -> Iterator[Varying]:
    """All that depends on the input, what is given twice twice."""
    if isinstance(value, Varying):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from varying(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from varying(item)


def one(arguments: Arguments, name: str = "") -> Varying:
    """The only argument that depends on the input: the first, or that of this name."""
    found: Varying = arguments[name or next(iter(arguments))]
    if [each is found for each in varying(arguments)] != [True]:
        raise Unknown(
            "expected a single operand that depends on the input, and settings that do not"
        )
    return found


def slope(largest: float) -> Rule:
    return lambda a, like: one(a).speed * largest


def _elu(a: Arguments, like: Any) -> float:
    if not a["input_scale"] > 0:
        raise Unknown(f"expected input_scale > 0, got {a['input_scale']!r}")
    right, left = a["scale"], a["alpha"] * a["scale"] * a["input_scale"]
    return one(a).speed * float(max(abs(right), abs(left)))


def _celu(a: Arguments, like: Any) -> float:
    if not a["alpha"] > 0:
        raise Unknown(f"expected alpha > 0, got {a['alpha']!r}")
    return one(a).speed


def _leaky_relu(a: Arguments, like: Any) -> float:
    return one(a).speed * max(1.0, abs(float(a["negative_slope"])))


def _prelu(a: Arguments, like: Any) -> float:
    return one(a).speed * max(1.0, largest(a["weight"]))


def _softplus(a: Arguments, like: Any) -> float:
    if not (a["beta"] > 0 and a["threshold"] >= SMOOTH):
        raise Unknown(
            f"expected softplus with beta > 0 and a threshold of at least {SMOOTH} (below, it "
            f"jumps), got {a['beta']!r} and {a['threshold']!r}"
        )
    return one(a).speed


def largest(value: Any) -> float:
    """max |entry| of a number or a tensor."""
    return float(torch.as_tensor(value).detach().double().abs().amax())


SLOPES: Mapping[str, Rule] = {
    "elu": _elu,
    "celu": _celu,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    "softplus": _softplus,
    "silu": slope(SILU),
    "gelu": slope(GELU),
    "mish": slope(MISH),
    "selu": slope(SELU),
    "hardswish": slope(1.5),
    "hardsigmoid": slope(1 / 6),
    "sigmoid": slope(0.25),
    **dict.fromkeys(
        ("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "tanh", "log_sigmoid",
         "abs", "neg", "sin", "cos", "atan"),
        slope(1.0),
    ),
}  # fmt: skip
