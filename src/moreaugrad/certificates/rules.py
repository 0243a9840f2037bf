"""How much faster than its inputs the output of an operator can change, by the operator's name.

Operators are those of `torch.ops.aten`. The bounds are of Euclidean norms over all entries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from moreaugrad.certificates.operators import (
    ROUNDING,
    Arguments,
    Rule,
    Varying,
    convolution,
    matrix_norm,
    normalisation_scale,
    one,
    operand_of,
    per_axis,
    slope,
    varying,
    weight_of,
)

SILU, GELU, MISH, SELU = 1.09984, 1.12905, 1.08850, 1.75810
"""The largest slopes, rounded up: of x sigmoid(x) at 2.3994, of x Phi(x) at sqrt 2 (whose
approximation by tanh has 1.12900), of x tanh(softplus(x)) at 1.4906, of SELU left of 0."""
SMOOTH = 20
"""Softplus becomes the identity where beta x exceeds its threshold. From this threshold on it
changes by less than rounding there; below, it jumps, which no constant bounds."""


def _largest(value: Any) -> float:
    """max |entry| of a number or a tensor."""
    return float(torch.as_tensor(value).detach().double().abs().amax())


def _copies(operand: Varying, like: Any) -> float:
    """An operand that is repeated to the output's shape has the root of the number of copies.

    A mean of k entries, with fewer outputs than inputs, likewise has the norm 1 / sqrt(k).
    """
    return math.sqrt(like.numel() / operand.like.numel())


def _sum(a: Arguments, like: Any) -> float:
    factors = {"self": 1.0, "other": abs(float(a.get("alpha", 1)))}
    return sum(
        factor * operand.speed * _copies(operand, like)
        for name, factor in factors.items()
        for operand in varying(a[name])
    )


def _difference_from(a: Arguments, like: Any) -> float:
    """other - alpha self."""
    return _sum({"self": a["other"], "other": a["self"], "alpha": a["alpha"]}, like)


def _larger(a: Arguments, like: Any) -> float:
    """The maximum or minimum of two tensors, entry by entry."""
    return math.hypot(*(item.speed * _copies(item, like) for item in varying(a)))


def _product(a: Arguments, like: Any) -> float:
    name, factor = ("self", a["other"]) if isinstance(a["self"], Varying) else ("other", a["self"])
    operand = one(a, name)
    return operand.speed * _copies(operand, like) * _largest(factor)


def _quotient(a: Arguments, like: Any) -> float:
    if a.get("rounding_mode") is not None:
        raise ValueError("expected a division without rounding")
    operand, divisor = one(a), torch.as_tensor(a["other"]).detach().double()
    least = float(divisor.abs().amin())
    if not least > 0:
        raise ValueError("expected a division by numbers other than 0")
    return operand.speed * _copies(operand, like) / least


def _joined(a: Arguments, like: Any) -> float:
    return math.hypot(*(item.speed for item in varying(a["tensors"])))


def _repeated(a: Arguments, like: Any) -> float:
    return one(a).speed * _copies(one(a), like)


def _total(a: Arguments, like: Any) -> float:
    return one(a).speed / _copies(one(a), like)


def _matrix(name: str) -> Rule:
    def rule(a: Arguments, like: Any) -> float:
        weight = weight_of(name, a)
        if weight is None:
            raise ValueError("expected a product with a matrix that does not depend on the input")
        return operand_of(name, a).speed * matrix_norm(weight)

    return rule


def _windows(a: Arguments, axes: int) -> int:
    """In how many windows of a pooling an entry lies."""
    kernel = per_axis(a["kernel_size"], axes)
    stride = per_axis(a["stride"], axes) if a["stride"] else kernel
    return math.prod(-(-k // by) for k, by in zip(kernel, stride, strict=True))


def _max_pool(axes: int) -> Rule:
    # Each window that an entry lies in may return that entry.
    return slope(
        lambda a: math.sqrt(_windows(a, axes)),
        lambda a: all(by == 1 for by in per_axis(a["dilation"], axes)),
        "max pooling with dilation 1",
    )


def _average_pool(axes: int) -> Rule:
    # A mean of k entries has the norm 1 / sqrt k, times the root of the windows of an entry.
    return slope(
        lambda a: math.sqrt(_windows(a, axes) / math.prod(per_axis(a["kernel_size"], axes))),
        lambda a: (
            a.get("divisor_override") is None and a["count_include_pad"] and not a["ceil_mode"]
        ),
        "means of whole windows, which include the padding",
    )


def _adaptive_pool(axes: int) -> Rule:
    def rule(a: Arguments, like: Any) -> float:
        """Only where the windows have equal sizes and do not overlap."""
        have, wanted = one(a).like.shape[-axes:], like.shape[-axes:]
        if any(n % m for n, m in zip(have, wanted, strict=True)):
            raise ValueError(
                f"expected an output that divides the input {tuple(have)}, got {tuple(wanted)}"
            )
        return _repeated(a, like)

    return rule


RULES: Mapping[str, Rule] = {
    "elu": slope(
        lambda a: float(max(abs(a["scale"]), abs(a["alpha"] * a["scale"] * a["input_scale"]))),
        lambda a: a["input_scale"] > 0, "input_scale > 0",
    ),
    "celu": slope(1.0, lambda a: a["alpha"] > 0, "alpha > 0"),
    "leaky_relu": slope(lambda a: max(1.0, abs(float(a["negative_slope"])))),
    **dict.fromkeys(
        ("prelu", "_prelu_kernel"), slope(lambda a: max(1.0, _largest(a["weight"])))
    ),
    "softplus": slope(
        1.0, lambda a: a["beta"] > 0 and a["threshold"] >= SMOOTH,
        f"softplus with beta > 0 and a threshold of at least {SMOOTH} (below, it jumps)",
    ),
    "silu": slope(SILU), "gelu": slope(GELU), "mish": slope(MISH), "selu": slope(SELU),
    "hardswish": slope(1.5), "hardsigmoid": slope(1 / 6), "sigmoid": slope(0.25),
    **{name: _matrix(name) for name in ("linear", "addmm", "mm", "matmul")},
    **dict.fromkeys(("conv1d", "conv2d", "convolution"), lambda a, like: convolution(a)),
    **dict.fromkeys(
        ("batch_norm", "_native_batch_norm_legit_no_training"),
        slope(lambda a: float(normalisation_scale(a).abs().amax()) * ROUNDING),
    ),
    "add": _sum, "sub": _sum, "rsub": _difference_from, "mul": _product, "div": _quotient,
    "maximum": _larger, "minimum": _larger, "cat": _joined, "stack": _joined,
    "expand": _repeated, "repeat": _repeated, "mean": _repeated, "sum": _total,
    "max_pool1d": _max_pool(1), "max_pool2d": _max_pool(2),
    "max_pool2d_with_indices": _max_pool(2),
    "avg_pool1d": _average_pool(1), "avg_pool2d": _average_pool(2),
    "adaptive_avg_pool1d": _adaptive_pool(1), "adaptive_avg_pool2d": _adaptive_pool(2),
    "_adaptive_avg_pool2d": _adaptive_pool(2),
    **dict.fromkeys(
        ("dropout", "feature_dropout", "native_dropout"),
        slope(1.0, lambda a: not a["train"], "dropout in evaluation mode only"),
    ),
    **dict.fromkeys(
        ("pad", "constant_pad_nd"),
        slope(1.0, lambda a: a.get("mode", "constant") == "constant", "padding by a constant"),
    ),
    "view": slope(
        1.0, lambda a: "dtype" not in a, "a view of another shape, not the bits as another type's"
    ),
    **dict.fromkeys(
        ("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "tanh", "log_sigmoid",
         "abs", "neg", "sin", "cos", "atan", "amax", "amin",
         # The same entries, or some of them, at another place, in another shape or type.
         "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t",
         "squeeze", "unsqueeze", "slice", "select", "narrow", "split", "split_with_sizes", "chunk",
         "unbind", "pixel_shuffle", "flip", "roll", "clone", "contiguous", "alias", "detach",
         "lift_fresh_copy", "_to_copy", "to"),
        slope(1.0),
    ),
}  # fmt: skip
