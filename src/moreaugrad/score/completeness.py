"""Whether the balanced backward pass is complete: a check of its rules on a network, by input.

With all coefficients that the rules hold constant, the outputs are affine in the input, o = C x +
c, and c is the sum over all biases of bias times gradient (FullGrad), where positions, class tokens
and statistics count as biases. c is computed by itself, without a gradient: a pass at x = 0 with
the coefficients of the pass at x. Then the sum of input times gradient is o - c if every part of
the network is linear or has a rule.

Source: Srinivas and Fleuret, full-gradient representation (2019), proposition 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from moreaugrad.score.balanced import ratio
from moreaugrad.score.behaviour import too_far
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.checks import ModelError
from moreaugrad.score.precision import raised

COMPLETENESS_ERROR = "completeness_error"
"""The detail of a map by the balanced backward pass: see `completeness_error`."""

Compute = Callable[..., Any]
Args = tuple[Any, ...]
Strides = tuple[int, ...]
Frozen = Callable[[Compute, Args, Args], Any]
"""An operation with coefficients held constant: what computes it, the arguments at the input, and
those to compute it with."""


def _constant(compute: Compute, then: Args, now: Args) -> Any:
    return compute(*then)


def _quotient(compute: Compute, then: Args, now: Args) -> Any:
    return compute(now[0], *then[1:])


def _attention(compute: Compute, then: Args, now: Args) -> Any:
    return compute(*then[:2], now[2], *then[3:])


def _activation(compute: Compute, then: Args, now: Args) -> Any:
    return (now[0] * ratio(lambda x: compute(x, *then[1:]), then[0])).to(now[0].dtype)


def _power(compute: Compute, then: Args, now: Args) -> Any:
    return _constant(compute, then, now) if then[1] < 0 else _activation(compute, then, now)


def _product(compute: Compute, then: Args, now: Args) -> Any:
    (a, b), (c, d) = then, now
    if not (isinstance(b, Tensor) and isinstance(a, Tensor)):
        return compute(c, d)
    if torch.equal(a, c) or torch.equal(b, d):
        return compute(c, d)
    return (compute(c, b) + compute(a, d)) / 2


def _layer_norm(compute: Compute, then: Args, now: Args) -> Any:
    _, shape, weight, bias, _ = then
    _, mean, deviation = compute(*then)
    axes = tuple(range(-len(shape), 0))
    found = (now[0] - now[0].mean(axes, keepdim=True)) * deviation
    found = found if weight is None else found * weight
    return (found if bias is None else found + bias).to(now[0].dtype), mean, deviation


def _group_norm(compute: Compute, then: Args, now: Args) -> Any:
    _, weight, bias, batch, channels, _, groups, _ = then
    _, mean, deviation = compute(*then)
    rows = now[0].reshape(batch, groups, -1)
    rows = (rows - rows.mean(2, keepdim=True)) * deviation[:, :, None]
    rows = rows.reshape(batch, channels, -1)
    rows = rows if weight is None else rows * weight[:, None]
    rows = rows if bias is None else rows + bias[:, None]
    return rows.reshape(now[0].shape).to(now[0].dtype), mean, deviation


def _amax(compute: Compute, then: Args, now: Args) -> Any:
    x, axes = then[:2]
    won = (x == x.amax(axes, keepdim=True)).to(x.dtype)
    found = (now[0] * won).sum(axes) / won.sum(axes)
    return found.reshape(compute(*then).shape)


def _largest(compute: Compute, then: Args, now: Args) -> Any:
    (x, axis), (values, index) = then[:2], compute(*then)
    places = index if values.ndim == x.ndim else index.unsqueeze(axis)
    return now[0].gather(axis, places).reshape(values.shape), index


def _pool(axes: int) -> Frozen:
    def pooled(compute: Compute, then: Args, now: Args) -> Any:
        _, index = compute(*then)
        found = now[0].flatten(-axes).gather(-1, index.flatten(-axes))
        return found.view_as(index), index

    return pooled


FROZEN: Mapping[str, Frozen] = {
    **dict.fromkeys(
        ("_softmax", "_safe_softmax", "sigmoid", "erf", "exp", "reciprocal", "rsqrt"), _constant
    ),
    **dict.fromkeys(
        ("gelu", "silu", "mish", "hardswish", "tanh", "relu", "leaky_relu", "_prelu_kernel"),
        _activation,
    ),
    **dict.fromkeys(("mul", "bmm", "mm"), _product),
    "pow": _power,
    "div": _quotient,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "max_pool2d_with_indices": _pool(2),
    "max_pool3d_with_indices": _pool(3),
    "amax": _amax,
    "max.dim": _largest,
}
"""Operations by the name that torch gives them below autograd, where functions are made of them."""
FUSED_ATTENTION = "_scaled_dot_product_"


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the arguments of the operations with a rule; then, once `replaying`, computes each
    with the coefficients of its record. Errors: ModelError where other operations are met."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.records: list[tuple[str, Args, Strides]] = []
        self.replaying, self._at, self._tanh = False, 0, None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and torch would import dynamo, which takes seconds

    def replay(self) -> None:
        self.replaying, self._tanh = True, None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Args = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        inplace, name = name.endswith("_"), name.removesuffix("_")
        if name == "max":
            name = f"max.{func._schema.overload_name}"
        named = dict(kwargs or {})
        rule = self._rule(name, args)
        if rule is None or "out" in named:
            return func(*args, **named)
        if not self.replaying:
            then = tuple(_copy(arg) for arg in args)
            found = func(*args, **named)
            self.records.append((name, then, _first(found).stride()))
        else:
            then, strides = self._next(name, args)

            def compute(first: Any, *others: Any) -> Any:
                return func(_copy(first) if inplace else first, *others, **named)

            found = rule(compute, then, args)
            found = args[0].copy_(found) if inplace else _laid_out(found, strides)
        if name == "tanh":
            self._tanh = found
        return found

    def _rule(self, name: str, args: Args) -> Frozen | None:
        if name.startswith(FUSED_ATTENTION):
            return _attention
        if name == "add" and args[0] is self._tanh and not isinstance(args[1], Tensor):
            return _constant  # the gate of a GELU
        return FROZEN.get(name)

    def _next(self, name: str, args: Args) -> tuple[Args, Strides]:
        known = self._at < len(self.records)
        own, then, strides = self.records[self._at] if known else ("", (), ())
        self._at += 1
        shapes = [[a.shape for a in each if isinstance(a, Tensor)] for each in (args, then)]
        if own != name or shapes[0] != shapes[1]:
            raise ModelError("the network computes other operations at another input")
        return then, strides


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _first(found: Any) -> Tensor:
    result: Tensor = found[0] if isinstance(found, tuple) else found
    return result


def _laid_out(found: Any, strides: Strides) -> Any:
    """With the first result in memory as the operation itself has it: with another layout torch may
    compute what follows by other operations."""
    first = _first(found)
    if first.stride() == strides:
        return found
    laid = first.new_empty_strided(first.shape, strides).copy_(first)
    return (laid, *found[1:]) if isinstance(found, tuple) else laid


def completeness_error(bound: BoundScore) -> Tensor:
    """|sum x * g - s'(o - c)| / |s'(o - c)| of each sample `[B]`, g the gradient at the input.

    o: the outputs there, s the score's gradient by them: of a logit, s'o is the logit. c: what all
    biases add to the outputs, see above. A difference s'(o - c) below sqrt(eps) of its terms, which
    the precision cannot resolve, is replaced by that. NaN where the network computes other
    operations at x = 0. It takes a gradient and two forward passes.
    """

    def work(rows: Tensor) -> Tensor:
        points = bound.origin[rows]
        _, gradient = bound.value_and_grad_at(points, rows)
        found = (gradient.double() * points).sum(1)
        here, constant, coarsest = _weighted(bound, points, rows)
        change = here.sum(1) - constant.sum(1)
        least = coarsest**0.5 * (here.abs().sum(1) + constant.abs().sum(1))
        error = (found - change).abs() / change.abs().clamp_min(least)
        return torch.where(found == change, 0.0, error).to(points.dtype)

    return bound.in_chunks(work)


def incomplete(bound: BoundScore) -> Tensor:
    """Whether the error that was measured is more than rounding, `[B]`."""
    return ~(bound.chosen[COMPLETENESS_ERROR] <= too_far(bound))


def _weighted(bound: BoundScore, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, float]:
    """The outputs, and what biases add to them, times the score's gradient, `[m, K]` each; and the
    rounding of the network's precision."""
    with torch.no_grad():
        with (recorder := _Recorder()):
            outputs = bound.outputs(points, rows)
        recorder.replay()
        try:
            with recorder:
                constant = bound.outputs(torch.zeros_like(points), rows)
        except ModelError:
            constant = torch.full_like(outputs, torch.nan)
    with torch.enable_grad():
        leaf = raised(outputs.detach()).requires_grad_()
        (slope,) = torch.autograd.grad(bound.read(leaf, rows).sum(), leaf)
    slope = slope.double()  # 0 for classes that are switched off, whose output is -inf
    here, rest = (torch.where(slope == 0, 0.0, slope * part) for part in (outputs, constant))
    coarsest = max(torch.finfo(dtype).eps for dtype in (*bound.layout.dtypes, outputs.dtype))
    return here.flatten(1), rest.flatten(1), coarsest
