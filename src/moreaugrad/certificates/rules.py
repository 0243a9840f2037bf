"""How much faster than its inputs the output of an operator can change, by the operator's name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from moreaugrad.certificates.operators import ROUNDING, convolution_norm, matrix_norm
from moreaugrad.certificates.slopes import (
    SLOPES,
    Arguments,
    Rule,
    Unknown,
    Varying,
    largest,
    one,
    slope,
    varying,
)


def _copies(operand: Varying, like: Any) -> float:
    """An operand that is repeated to the output's shape has the root of the number of copies."""
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
    """Of two, entry by entry."""
    return math.hypot(*(each.speed * _copies(each, like) for each in varying(a)))


def _product(a: Arguments, like: Any) -> float:
    name, factor = ("self", a["other"]) if isinstance(a["self"], Varying) else ("other", a["self"])
    operand = one(a, name)
    return operand.speed * _copies(operand, like) * largest(factor)


def _quotient(a: Arguments, like: Any) -> float:
    if a.get("rounding_mode") is not None:
        raise Unknown("expected a division without rounding")
    operand, divisor = one(a), torch.as_tensor(a["other"]).detach().double()
    least = float(divisor.abs().amin())
    if not least > 0:
        raise Unknown("expected a division by numbers other than 0")
    return operand.speed * _copies(operand, like) / least


def _parts_together(a: Arguments, like: Any) -> float:
    return math.hypot(*(each.speed for each in varying(a["tensors"])))


def _repeated(a: Arguments, like: Any) -> float:
    return one(a).speed * _copies(one(a), like)


def _mean(a: Arguments, like: Any) -> float:
    """A mean of k entries has norm 1 / sqrt(k)."""
    return one(a).speed * math.sqrt(like.numel() / one(a).like.numel())


def _total(a: Arguments, like: Any) -> float:
    return one(a).speed * math.sqrt(one(a).like.numel() / like.numel())


def weight_of(name: str, a: Arguments) -> Tensor | None:
    """The matrix W of an operator x -> x W' + b, where it is one."""
    if name == "linear":
        found = a["weight"]
    elif name == "addmm" and a["beta"] == a["alpha"] == 1:
        found = a["mat2"]
    elif name in ("mm", "matmul"):
        found = a["mat2" if name == "mm" else "other"]
    else:
        return None
    if not isinstance(found, Tensor) or found.ndim != 2:
        return None
    return found if name == "linear" else found.mT


def operand_of(name: str, a: Arguments) -> Varying:
    """What a linear operator or a convolution acts on."""
    return one(a, {"linear": "input", "conv1d": "input", "conv2d": "input", "convolution": "input",
                   "addmm": "mat1"}.get(name, "self"))  # fmt: skip


def _matrix(name: str) -> Rule:
    def rule(a: Arguments, like: Any) -> float:
        weight = weight_of(name, a)
        if weight is None:
            raise Unknown("expected a product with a matrix that does not depend on the input")
        return operand_of(name, a).speed * matrix_norm(weight)

    return rule


def convolution(a: Arguments, scale: Tensor | None = None) -> float:
    """Of one or two axes. `scale`: that of the batch normalisation which follows."""
    weight, size = a["weight"], one(a, "input").like.shape
    axes = weight.ndim - 2
    if a.get("transposed") or axes not in (1, 2):
        raise Unknown("expected a convolution of one or two axes, not transposed")
    size = size[-axes:]
    stride, dilation = (_each(a[name], axes) for name in ("stride", "dilation"))
    padding = a["padding"]
    if padding == "same":
        padding = [(k - 1) * by for k, by in zip(weight.shape[2:], dilation, strict=True)]
    padding = _each(0 if padding == "valid" else padding, axes)
    if axes == 1:
        weight, size = weight.unsqueeze(2), (1, *size)
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    return one(a, "input").speed * convolution_norm(
        weight, size, stride=stride, padding=padding, dilation=dilation, groups=a["groups"],
        scale=scale,
    )  # fmt: skip


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """A setting of each axis; one number is for all of them."""
    found = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return found * axes if len(found) == 1 else found


def normalisation_scale(a: Arguments) -> Tensor:
    """What a batch normalisation multiplies each channel with, `[C]`, float64."""
    if a.get("training") or a["running_var"] is None:
        raise Unknown("expected batch normalisation with running statistics")
    scale: Tensor = (a["running_var"].detach().double() + a["eps"]).rsqrt()
    return scale if a["weight"] is None else scale * a["weight"].detach().double()


def _normalisation(a: Arguments, like: Any) -> float:
    return one(a).speed * float(normalisation_scale(a).abs().amax()) * ROUNDING


def _max_pool(axes: int) -> Rule:
    def rule(a: Arguments, like: Any) -> float:
        """The root of the number of windows that an entry lies in: each may hand on the same."""
        if any(by != 1 for by in _each(a["dilation"], axes)):
            raise Unknown(f"expected max pooling with dilation 1, got {a['dilation']}")
        return one(a).speed * math.sqrt(_windows(a, axes))

    return rule


def _average_pool(axes: int) -> Rule:
    def rule(a: Arguments, like: Any) -> float:
        """A mean of k entries has norm 1 / sqrt k, times the root of the windows of an entry."""
        if a.get("divisor_override") is not None or not a["count_include_pad"] or a["ceil_mode"]:
            raise Unknown("expected means of whole windows, over the padding too")
        count = math.prod(_each(a["kernel_size"], axes))
        return one(a).speed * math.sqrt(_windows(a, axes) / count)

    return rule


def _windows(a: Arguments, axes: int) -> int:
    kernel = _each(a["kernel_size"], axes)
    stride = _each(a["stride"], axes) if a["stride"] else kernel
    return math.prod(-(-k // by) for k, by in zip(kernel, stride, strict=True))


def _adaptive_pool(axes: int) -> Rule:
    def rule(a: Arguments, like: Any) -> float:
        """Only where its windows are equal and do not overlap."""
        have, wanted = one(a).like.shape[-axes:], like.shape[-axes:]
        if any(n % m for n, m in zip(have, wanted, strict=True)):
            raise Unknown(
                f"expected an output that divides the input {tuple(have)}, got {tuple(wanted)}"
            )
        return _mean(a, like)

    return rule


def _view(a: Arguments, like: Any) -> float:
    if "dtype" in a:
        raise Unknown("expected a view of another shape, got the bits as another type's")
    return one(a).speed


def _dropout(a: Arguments, like: Any) -> float:
    if a["train"]:
        raise Unknown("expected dropout in evaluation mode only")
    return one(a).speed


def _pad(a: Arguments, like: Any) -> float:
    if a.get("mode", "constant") != "constant":
        raise Unknown(f"expected padding by a constant, got {a['mode']!r}")
    return one(a).speed


RULES: Mapping[str, Rule] = {
    **SLOPES,
    "linear": _matrix("linear"),
    "addmm": _matrix("addmm"),
    "mm": _matrix("mm"),
    "matmul": _matrix("matmul"),
    "conv1d": lambda a, like: convolution(a),
    "conv2d": lambda a, like: convolution(a),
    "convolution": lambda a, like: convolution(a),
    "batch_norm": _normalisation,
    "_native_batch_norm_legit_no_training": _normalisation,
    "add": _sum,
    "sub": _sum,
    "rsub": _difference_from,
    "mul": _product,
    "div": _quotient,
    "maximum": _larger,
    "minimum": _larger,
    "cat": _parts_together,
    "stack": _parts_together,
    "expand": _repeated,
    "repeat": _repeated,
    "mean": _mean,
    "sum": _total,
    "max_pool1d": _max_pool(1),
    "max_pool2d": _max_pool(2),
    "max_pool2d_with_indices": _max_pool(2),
    "avg_pool1d": _average_pool(1),
    "avg_pool2d": _average_pool(2),
    "adaptive_avg_pool1d": _adaptive_pool(1),
    "adaptive_avg_pool2d": _adaptive_pool(2),
    "_adaptive_avg_pool2d": _adaptive_pool(2),
    "dropout": _dropout,
    "feature_dropout": _dropout,
    "native_dropout": _dropout,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "view": _view,
    **dict.fromkeys(
        ("amax", "amin",
         # The same entries, or some of them, in another place, shape or floating-point type.
         "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t",
         "squeeze", "unsqueeze", "slice", "select", "narrow", "split", "split_with_sizes", "chunk",
         "unbind", "pixel_shuffle", "flip", "roll", "clone", "contiguous", "alias", "detach",
         "lift_fresh_copy", "_to_copy", "to"),
        slope(1.0),
    ),
}  # fmt: skip
