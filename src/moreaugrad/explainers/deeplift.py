"""DeepLIFT: contributions relative to a baseline, by finite differences instead of derivatives.

Captum's hooks keep one record for each module and replace the gradient of the tensor that enters
it. So Captum refuses a module that is used twice, misses what bypasses a module (a shortcut), and
skips the rule of a module that directly follows another one (pooling after a ReLU); its pooling
rule also drops overlapping windows and uses the first sample's gradient for all samples. Here each
call of a module is one node of the graph with its own record, and every activation has the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moreaugrad.explainers.path import (
    BASELINE_SCORE,
    FromBaseline,
    checked,
    incompleteness,
    reference,
)
from moreaugrad.score import checks
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.hooks import as_module, hooked
from moreaugrad.score.inputs import per_sample
from moreaugrad.score.precision import raised
from moreaugrad.solvers.solution import Solution

EPSILON = 1e-10
"""A smaller change counts as no change, as in Captum."""
RESOLVED = 4
"""So does one of fewer roundings of its two values, in less than single precision."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DeepLift(FromBaseline):
    """A = (x - x') * m, with multipliers m that are chained through the network: Delta y / Delta x
    of each activation (rescale rule) instead of its derivative.

    >>> maps = mg.DeepLift(model).attribute(x)

    Completeness, sum of (x - x') * m = f(x) - f(x'), holds if every nonlinear part is a module with
    a rule: activations and max-pooling. It is checked for each sample: the explanation's error is
    |sum of (x - x') * m - (f(x) - f(x'))| / |f(x) - f(x')|, and above `tolerance` the status is
    "incomplete". Detail: `baseline_score`, f(x'). Explain a logit: probabilities and margins of
    several outputs have no rule.

    Source: Shrikumar et al. (2017). Differs from Captum's: modules may be used more than once, work
    in place, or have a shortcut around them; pooling windows may overlap; more activations have the
    rule; there are no custom rules.
    """

    times_input: bool = True
    """Multiply the multipliers m by x - x'; False gives m itself, as Captum's
    `multiply_by_inputs=False`."""

    method: ClassVar[str] = "deeplift"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_module(self.forward_func, self.method)

    def _draws(self) -> int:
        return 2

    def _maps(self, bound: BoundScore) -> Solution:
        baseline = reference(bound)
        model = as_module(self.forward_func, self.method)

        def multipliers(rows: Tensor) -> Tensor:
            both = torch.cat((rows, rows))
            points = torch.cat((bound.origin[rows], baseline[rows])).requires_grad_()
            with torch.enable_grad(), rescaled(model, len(both)):
                _, (found,) = bound.pulled(bound.outputs(points, both), (points,), both)
            if found is None:
                raise checks.detached()
            return found[: len(rows)]

        multiplier = bound.in_chunks(multipliers, 2)
        contributions = multiplier * (bound.origin - baseline)
        error, start = incompleteness(bound, contributions)
        flat = contributions if self.times_input else multiplier
        maps = Solution.direct(flat, evaluations=2, error=error)
        return checked(replace(maps, details={BASELINE_SCORE: start}), self.tolerance)


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a module, on inputs and then their baselines, all `[2B, ...]`.

    `leaf` has the values of the module's input, and `output` was computed from it.
    """

    module: Any
    leaf: Tensor
    output: Tensor

    def gradient(self, outgoing: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(self.output, self.leaf, outgoing)
        return found


def _twice(change: Tensor) -> Tensor:
    return torch.cat((change, change))


def _change(values: Tensor) -> Tensor:
    """The change from the baseline to the input, for both halves; in single precision at least."""
    at_input, at_baseline = raised(values).chunk(2)
    return _twice(at_input - at_baseline)


def _ratio(contribution: Tensor, values: Tensor, gradient: Tensor) -> Tensor:
    """contribution / the change of the values; the gradient, its limit, where nothing changes."""
    change, least = _change(values), torch.full_like(values, EPSILON, dtype=contribution.dtype)
    if values.dtype.itemsize < 4:
        largest = _twice(torch.maximum(*raised(values).abs().chunk(2)))
        least = least + RESOLVED * torch.finfo(values.dtype).eps * largest
    still = change.abs() < least
    ratio = contribution / torch.where(still, 1.0, change)
    return torch.where(still, raised(gradient), ratio).to(values.dtype)


def _elementwise(call: _Call, outgoing: Tensor) -> Tensor:
    """Delta y / Delta x. Source: Shrikumar et al. (2017), the rescale rule."""
    contribution = raised(outgoing) * _change(call.output.detach())
    return _ratio(contribution, call.leaf.detach(), call.gradient(outgoing))


def _softmax(call: _Call, outgoing: Tensor) -> Tensor:
    """The same, minus each sample's mean. Source: Shrikumar et al. (2017)."""
    multiplier = _elementwise(call, outgoing)
    return multiplier - per_sample(multiplier.flatten(1).mean(1), multiplier)


def _max_pool(call: _Call, outgoing: Tensor) -> Tensor:
    """In each window, a rise above the baseline's maximum is attributed to the input's largest
    entry, a fall below it to the baseline's; an entry sums over its windows. Complete for windows
    of any kind."""
    module, values = call.module, call.leaf.detach()
    settings = (module.kernel_size, module.stride, module.padding, module.dilation)
    _, index = _POOL[type(module)](values, *settings, module.ceil_mode, return_indices=True)
    at_input, at_baseline = raised(call.output.detach()).chunk(2)
    top = torch.maximum(at_input, at_baseline)
    parts = raised(outgoing) * torch.cat((top - at_baseline, at_input - top))
    both = torch.zeros_like(raised(values)).flatten(2)
    both.scatter_add_(2, index.flatten(2), parts.flatten(2))
    contribution = _twice(torch.stack(both.view_as(values).chunk(2)).sum(0))
    return _ratio(contribution, values, call.gradient(outgoing))


Rule = Callable[[_Call, Tensor], Tensor]

_POOL: Mapping[type[nn.Module], Callable[..., tuple[Tensor, Tensor]]] = {
    nn.MaxPool1d: F.max_pool1d,
    nn.MaxPool2d: F.max_pool2d,
    nn.MaxPool3d: F.max_pool3d,
}
_ELEMENTWISE: tuple[type[nn.Module], ...] = (
    *(nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU),
    *(nn.LogSigmoid, nn.Mish, nn.PReLU, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid),
    *(nn.Softplus, nn.Softsign, nn.Tanh, nn.Tanhshrink),
)
RULES: Mapping[type[nn.Module], Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_POOL, _max_pool),
    nn.Softmax: _softmax,
}


class _Rescaled(torch.autograd.Function):
    """A call's output, with the rule as its backward pass instead of the derivative."""

    @staticmethod
    def forward(ctx: Any, _origin: Tensor, call: _Call, rule: Rule) -> Tensor:
        ctx.call, ctx.rule = call, rule
        return call.output.detach().clone()

    @staticmethod
    def backward(ctx: Any, outgoing: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.rule(ctx.call, outgoing), None, None


@contextmanager
def rescaled(model: nn.Module, rows: int) -> Iterator[None]:
    """While open, backward passes through the model follow the rules of the modules that have one.

    rows: size of the batch, inputs and then their baselines. Forward passes compute the same as
    before: an activation in place also changes what refers to its input.
    """
    rules = {
        module: RULES[type(module)]
        for module in model.modules()
        if type(module) in RULES and not getattr(module, "return_indices", False)
    }
    entered: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        origin = args[0] if args else None
        if not isinstance(origin, Tensor) or not origin.requires_grad or len(origin) % rows:
            return None  # not computed from the inputs: no rule
        leaf = origin.detach().clone().requires_grad_()
        entered[module] = origin, leaf
        return (leaf.clone(), *args[1:])  # a copy: the module may work in place

    def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if module not in entered:
            return None
        origin, leaf = entered.pop(module)
        call = _Call(module, leaf, output)
        found: Tensor = _Rescaled.apply(origin, call, rules[module])  # type: ignore[no-untyped-call]
        return origin.copy_(found) if output is args[0] else found

    with hooked(dict.fromkeys(rules, before), dict.fromkeys(rules, after)):
        yield
