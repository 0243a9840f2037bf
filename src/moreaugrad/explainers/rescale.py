"""DeepLIFT's rescale rule, hooked into a network call by call.

Captum's hooks keep one record for a module and replace the gradient of the tensor that enters it.
So they refuse a module that is used twice, lose what flows past a module (a shortcut around it),
and skip the rule of a module that follows another one directly (pooling after a ReLU); their
pooling rule also drops overlapping windows and reads the first sample's gradient for all. Here
each call is one node of the graph with its own record, and activations of any kind have the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from captum import attr
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module, inputs first and their baselines after them, all `[2B, ...]`.

    `leaf` has the values of the module's input, and `output` was computed from it.
    """

    module: Any
    leaf: Tensor
    output: Tensor

    def gradient(self, outgoing: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(self.output, self.leaf, outgoing)
        return found


def _doubled(change: Tensor) -> Tensor:
    return torch.cat((change, change))


def _change(values: Tensor) -> Tensor:
    """From the baseline to the input, for both halves."""
    at_input, at_baseline = values.chunk(2)
    return _doubled(at_input - at_baseline)


def _ratio(contribution: Tensor, change: Tensor, gradient: Tensor, eps: float) -> Tensor:
    """contribution / change; the gradient is its limit where nothing changes."""
    still = change.abs() < eps
    return torch.where(still, gradient, contribution / torch.where(still, 1.0, change))


def elementwise(call: Call, outgoing: Tensor, eps: float) -> Tensor:
    """Delta y / Delta x. Source: Shrikumar et al. (2017), the Rescale rule."""
    change = _change(call.leaf.detach())
    contribution = outgoing * _change(call.output.detach())
    return _ratio(contribution, change, call.gradient(outgoing), eps)


def softmax(call: Call, outgoing: Tensor, eps: float) -> Tensor:
    """The same, with each sample's mean taken off. Source: Shrikumar et al. (2017)."""
    multiplier = elementwise(call, outgoing, eps)
    mean = multiplier.flatten(1).mean(1)
    return multiplier - mean.reshape(-1, *[1] * (multiplier.ndim - 1))


def max_pool(call: Call, outgoing: Tensor, eps: float) -> Tensor:
    """The rise above the baseline's maximum goes to the input's largest entry of each window, the
    fall below it to the baseline's; an entry sums over its windows. Complete for any windows.
    """
    module, values = call.module, call.leaf.detach()
    settings = (module.kernel_size, module.stride, module.padding, module.dilation)
    _, index = _POOL[type(module)](values, *settings, module.ceil_mode, return_indices=True)
    at_input, at_baseline = call.output.detach().chunk(2)
    top = torch.maximum(at_input, at_baseline)
    share = outgoing * torch.cat((top - at_baseline, at_input - top))
    both = torch.zeros_like(values).flatten(2)
    both.scatter_add_(2, index.flatten(2), share.flatten(2))
    contribution = _doubled(torch.stack(both.view_as(values).chunk(2)).sum(0))
    return _ratio(contribution, _change(values), call.gradient(outgoing), eps)


Rule = Callable[[Call, Tensor, float], Tensor]

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
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(_POOL, max_pool),
    nn.Softmax: softmax,
}


class _Rescaled(torch.autograd.Function):
    """A call's output, whose backward pass is the rule instead of the derivative."""

    @staticmethod
    def forward(ctx: Any, _origin: Tensor, call: Call, rule: Rule, eps: float) -> Tensor:
        ctx.call, ctx.rule, ctx.eps = call, rule, eps
        return call.output.detach().clone()

    @staticmethod
    def backward(ctx: Any, outgoing: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.rule(ctx.call, outgoing, ctx.eps), None, None, None


class RescaleDeepLift(attr.DeepLift):
    """Captum's DeepLIFT with the hooks of this module: inputs and baselines run as one batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._seen: set[nn.Module] = set()

    def _register_hooks(self, module: nn.Module, attribute_to_layer_input: bool = True) -> None:
        rule = RULES.get(type(module))
        # A module that sits in two places of a network is visited twice.
        if rule is None or module in self._seen:
            return
        self._seen.add(module)
        origin, leaf = torch.empty(0), torch.empty(0)

        def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            nonlocal origin, leaf
            origin = args[0]
            leaf = origin.detach().clone().requires_grad_()
            return (leaf.clone(), *args[1:])  # a copy: the module may work in place

        def after(called: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
            call = Call(called, leaf, output)
            found: Tensor = _Rescaled.apply(origin, call, rule, self.eps)  # type: ignore[no-untyped-call]
            return found

        self.forward_handles.append(module.register_forward_pre_hook(before))
        self.forward_handles.append(module.register_forward_hook(after))
