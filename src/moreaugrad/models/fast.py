"""The same network in a form that is faster on its device: what was changed, and by what error."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad.models.weights import fold_batchnorm as folded
from moreaugrad.score.behaviour import FAR, FAR_REDUCED
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.compiled import compile_passes, failure
from moreaugrad.score.outputs import tensor_output
from moreaugrad.score.precision import reduced_precision
from moreaugrad.score.score import Inputs, Score
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import Documented, expect

AUTO = "auto"
PASSES = 5
"""Timed of a network with and without compiled passes."""


@dataclass(frozen=True, kw_only=True)
class Step(metaclass=Documented):
    """One change of a network, applied or left out.

    >>> step = mg.models.Step(name="channels_last", reason="it has no 2-D convolution")
    """

    name: str
    """The argument of `optimise` that asks for it."""
    reason: str = ""
    """Why it was left out; empty where it was applied."""
    output_error: float | None = None
    """Relative change of the outputs at the example, in the Euclidean norm, the largest over its
    samples; None where it was not measured."""
    gradient_error: float | None = None
    """The same for the input gradient of the score."""
    time: float | None = None
    """Time of a pass at the example with it over that without it; None where it was not measured,
    as for all steps but compiling."""

    @property
    def applied(self) -> bool:
        return not self.reason

    def __str__(self) -> str:
        if not self.applied:
            return f"{self.name}: left out, because {self.reason}"
        if self.output_error is None:
            return f"{self.name}: applied, its error was not measured"
        said = (
            f"{self.name}: applied, changes outputs by {self.output_error:.1e} and input gradients "
            f"by {self.gradient_error:.1e}"
        )
        return said if self.time is None else f"{said}, takes {self.time:.2f} times as long"


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimised(metaclass=Documented):
    """A network as `optimise` has made it faster. `print` shows its steps.

    >>> found = mg.optimise(model, x)
    >>> fast = mg.SmoothGrad(found.model)
    """

    model: nn.Module
    """The faster network; the given one itself where every step was left out."""
    original: nn.Module
    """The network as it was given, unchanged."""
    steps: tuple[Step, ...]
    """What was asked for, in the order in which it was applied."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.steps))


def optimise(
    model: nn.Module,
    example: Inputs | None,
    target: TargetLike = None,
    additional_forward_args: object = None,
    *,
    layer: str | None = None,
    fold_batchnorm: bool = True,
    channels_last: bool = True,
    dtype: torch.dtype | str | None = None,
    compile: bool = False,
) -> Optimised:
    """A copy of a network in evaluation mode that computes the same faster on its device.

    A step that does not fit the network, fails, or changes the outputs at the example by more than
    1 % (10 % in a reduced precision) is left out, with the reason.

    example: a batch of inputs at which the error of each step is measured; with target and
    additional_forward_args as for `explain`. None measures nothing.
    layer: name of the module at whose output gradients are taken, for inputs that have none.
    fold_batchnorm: batch normalisation becomes part of the convolution before it.
    channels_last: 2-D convolutions have their weights, and so their outputs, channels-last.
    dtype: None keeps the precision. torch.bfloat16: the network computes in it, while inputs,
    outputs and their sums keep their own; "auto": only on a device with instructions for it.
    compile: gradients are computed by compiled code (torch.compile), which takes up to a minute in
    the first passes. Passes that are looked into are computed as before: those from a layer, with
    hooks, or that record activations for a centre. Left out where it is slower at the example.
    Errors: ValueError or TypeError for another dtype, and for a model or an example that cannot be
    explained.

    >>> found = mg.optimise(model, x, dtype="auto")
    """
    expect(dtype in (None, AUTO, torch.bfloat16), "dtype", "None, 'auto' or bfloat16", dtype)
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model: expected a torch module, got {type(model).__name__}; of what load_model "
            "returns, give its .module"
        )
    device = next(model.parameters(), torch.empty(0)).device
    asked: dict[str, Change] = {}
    if fold_batchnorm:
        asked["fold_batchnorm"] = _folded
    if channels_last:
        asked["channels_last"] = _channels_last
    if dtype is not None:
        asked["dtype"] = partial(_reduced, device=device if dtype == AUTO else None)
    if compile:
        asked["compile"] = partial(_compiled, layer=layer)
    tried = None
    if example is not None:  # the prediction of the original is the target of all
        bind = partial(_bound, example, additional_forward_args, layer)
        target = bind(target, model).target.given
        tried = partial(_tried, partial(bind, target))
    now, known, steps = model, tried(model) if tried else None, []
    for name, change in asked.items():
        try:
            after = change(now)
            found = tried(after) if tried else None
            step = _step(name, after, found, known)
        except Exception as error:  # whatever a copy raises: the network works without the step
            steps.append(Step(name=name, reason=_reason(error)))
            continue
        now, known = after, found
        steps.append(step)
    return Optimised(model=now, original=model, steps=tuple(steps))


Change = Callable[[nn.Module], nn.Module]


class _LeftOut(Exception):
    """Why a step does not fit."""


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if isinstance(error, _LeftOut) else f"it fails: {lines[0]}"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trial:
    """A network at the example: outputs, and input gradients of the score, in double precision, a
    row for each sample."""

    bound: BoundScore
    outputs: Tensor
    gradients: Tensor

    def seconds(self) -> float:
        """Of the quickest of a few passes with gradients."""
        seconds = []
        for _ in range(PASSES):
            began = time.perf_counter()
            self.bound.value_and_grad()[1].sum().item()  # waits for an accelerator
            seconds.append(time.perf_counter() - began)
        return min(seconds)


def _tried(bind: Callable[[nn.Module], BoundScore], model: nn.Module) -> _Trial:
    bound = bind(model)
    outputs, (_, gradients) = bound.clean_outputs(), bound.value_and_grad()
    outputs, gradients = outputs.flatten(1).cpu().double(), gradients.cpu().double()
    return _Trial(bound=bound, outputs=outputs, gradients=gradients)


def _bound(
    example: Inputs, args: object, layer: str | None, target: TargetLike, model: nn.Module
) -> BoundScore:
    return Score(model, layer=layer, check=False).bind(example, target, args)


def _step(name: str, after: nn.Module, found: _Trial | None, known: _Trial | None) -> Step:
    """A step that fits, with its errors. Errors: _LeftOut for one that does not."""
    if found is None or known is None:
        return Step(name=name)
    outputs = _difference(found.outputs, known.outputs)
    if not outputs <= (FAR_REDUCED if reduced_precision(after, ()) else FAR):
        raise _LeftOut(f"it changes outputs by {outputs:.1e}, more than rounding explains")
    gradients = _difference(found.gradients, known.gradients)
    ratio = _relative_time(after, found, known) if name == "compile" else None
    return Step(name=name, output_error=outputs, gradient_error=gradients, time=ratio)


def _relative_time(after: nn.Module, found: _Trial, known: _Trial) -> float:
    """Of passes of a compiled network. Errors: _LeftOut where it is not compiled, or not faster."""
    if reason := failure(after):
        raise _LeftOut(f"compiling fails: {reason}")
    ratio = found.seconds() / known.seconds()
    if ratio >= 1:
        raise _LeftOut(f"it is not faster here: a pass takes {ratio:.2f} times as long")
    return ratio


def _difference(after: Tensor, before: Tensor) -> float:
    norms = before.norm(dim=1).clamp_min(torch.finfo(before.dtype).tiny)
    return float(((after - before).norm(dim=1) / norms).max())


def _folded(module: nn.Module) -> nn.Module:
    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        raise _LeftOut("the network has no batch normalisation")
    found = folded(module)
    if found is module:
        raise _LeftOut(
            "none of its batch normalisations directly follows a convolution that nothing else "
            "uses, or its code cannot be traced or copied"
        )
    return found


def _channels_last(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module)
    if not lay_channels_last(module):
        raise _LeftOut("the network has no 2-D convolution")
    return module


def lay_channels_last(module: nn.Module) -> int:
    """Gives 2-D convolutions weights, and so outputs, that are channels-last: how many.

    In place: the parameters stay the same objects with the same numbers.
    """
    weights = [weight for weight in module.parameters() if weight.ndim == 4]
    for weight in weights:
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return len(weights)


def _compiled(module: nn.Module, layer: str | None) -> nn.Module:
    if layer is not None:
        raise _LeftOut("passes from a layer are not compiled")
    module = copy.deepcopy(module)
    compile_passes(module)
    return module


def _reduced(module: nn.Module, device: torch.device | None) -> nn.Module:
    """In bfloat16. device: it has to compute in it; None asks nothing of it."""
    if device is not None and not has_bfloat16(device):
        raise _LeftOut(f"this device ({device}) has no instructions for bfloat16, or none known")
    if reduced_precision(module, ()):
        raise _LeftOut("the network has weights of a reduced precision already")
    module = copy.deepcopy(module).to(torch.bfloat16)

    def lower(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(arg.bfloat16() if _floating(arg) else arg for arg in args)

    module.register_forward_pre_hook(lower)
    module.register_forward_hook(lambda _, __, output: tensor_output(output).float())
    return module


def _floating(arg: object) -> bool:
    return isinstance(arg, Tensor) and arg.is_floating_point()


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device is known to have instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # Older versions of torch do not say.
    flags = getattr(torch.cpu, "get_capabilities", dict[str, Any])()
    return any(bool(value) for name, value in flags.items() if name.endswith("bf16"))
