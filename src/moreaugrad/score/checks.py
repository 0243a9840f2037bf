"""Checks of inputs, further arguments and modules, with one clear error for each fault."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn.utils.rnn import PackedSequence


class NotFiniteError(ValueError):
    """Numbers that are NaN or infinite. samples: those that have some."""

    def __init__(self, message: str, samples: Sequence[int]) -> None:
        super().__init__(message)
        self.samples = tuple(samples)


class ModelError(ValueError):
    """The model cannot be explained at these inputs; the message says why."""


class ForwardError(ModelError):
    """The model raised an error of its own at these inputs, which is the cause."""


class TargetError(ValueError):
    """The function that is the target failed, or returned something else than numbers."""


def as_parts(inputs: object) -> tuple[Tensor, ...]:
    """One or several input tensors with the same batch size, as a tuple. Errors: TypeError,
    ValueError."""
    if isinstance(inputs, PackedSequence):
        raise TypeError(
            "inputs: expected a padded tensor, got a PackedSequence: give the tensor and its "
            "lengths (additional_forward_args), and pack in the model's forward"
        )
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    if not parts:
        raise ValueError("inputs: expected a tensor or a tuple of tensors, got an empty tuple")
    for part in parts:
        if not isinstance(part, Tensor):
            raise TypeError(
                f"inputs: expected a tensor or a tuple of tensors, got {type(part).__name__}"
            )
        check_ordinary("inputs", part)
        if part.ndim < 2 or part.numel() == 0:
            raise ValueError(
                "inputs: expected a batch [B, ...] with at least one sample and one entry, got "
                f"shape {tuple(part.shape)} (add the batch dimension with x[None] for one sample, "
                "the features' with x[:, None] for one feature a sample)"
            )
        if len(part) != len(parts[0]):
            raise ValueError(
                "inputs: expected the same number of samples in each, got "
                f"{[len(part) for part in parts]}"
            )
    check_recording(parts)
    return parts


def as_args(args: object) -> tuple[object, ...]:
    """Further arguments of the model in Captum's form: None, one argument, or a tuple of them.

    Errors: TypeError for a lone bool, which is probably the argument `abs` of Captum's Saliency.
    """
    if args is None:
        return ()
    if isinstance(args, bool):
        raise TypeError(
            f"additional_forward_args: expected the model's further arguments, got {args}. It is "
            "not Captum's abs (maps are signed, take .abs() of them); a model that takes a bool "
            f"gets it as a tuple, ({args},)"
        )
    return args if isinstance(args, tuple) else (args,)


def check_ordinary(name: str, part: Tensor) -> None:
    """Refuses tensors that are not dense and real, for which gradients are not available."""
    if is_functorch_wrapped_tensor(part):
        raise ValueError(
            f"{name}: expected an ordinary tensor, got one inside torch.func or vmap: explainers "
            "run solvers and record gradients themselves. Explain the whole batch at once; the "
            "derivative of a map is explainer.vjp(...)"
        )
    for found, kind, remedy in (
        (part.is_nested, "nested", "pad it: torch.nested.to_padded_tensor(x, 0.0)"),
        (part.is_quantized, "quantised", "convert it with x.dequantize()"),
        (part.layout != torch.strided, f"{part.layout}", "convert it with x.to_dense()"),
        (part.is_meta, "meta", "a tensor on this device has no numbers"),
        (part.dtype.is_complex, f"{part.dtype}", "explain torch.view_as_real(x)"),
        (
            part.is_floating_point() and part.dtype.itemsize < 2,
            f"{part.dtype}",
            "convert it with .float(); the model may do so too",
        ),
    ):
        if found:
            raise TypeError(f"{name}: expected a dense real tensor, got a {kind} one; {remedy}")


def check_floating(parts: Sequence[Tensor]) -> None:
    for part in parts:
        if not part.is_floating_point():
            raise TypeError(
                f"inputs: expected floating-point tensors, got {part.dtype}; convert with "
                ".float(), or explain token ids at their embedding with layer="
            )


def check_finite(name: str, parts: Sequence[Tensor]) -> None:
    """Errors: NotFiniteError."""
    for part in parts:
        if part.is_floating_point() and not bool(torch.isfinite(part).all()):
            finite = torch.isfinite(part.flatten(1) if part.ndim > 1 else part[:, None]).all(1)
            bad = (~finite).nonzero()[:, 0].tolist()
            raise NotFiniteError(
                f"{name}: expected finite numbers, got NaN or Inf in sample(s) {bad[:10]}", bad
            )


def check_recording(parts: Sequence[Tensor] = ()) -> None:
    if torch.is_inference_mode_enabled() or any(part.is_inference() for part in parts):
        raise ValueError(
            "expected ordinary tensors outside torch.inference_mode(): gradients cannot be "
            "recorded there. Use torch.no_grad() instead, or pass x.clone() made outside of it"
        )


def check_mode(model: object) -> None:
    """Refuses modules that couple samples, draw random numbers, or have no gradient."""
    if not isinstance(model, nn.Module):
        return
    for name, module in model.named_modules():
        kind = getattr(module, "original_name", type(module).__name__)  # a scripted module's
        where = f"{name or 'it'} ({kind})"
        if "nn.quantized" in type(module).__module__ and "FloatFunctional" not in kind:
            raise ModelError(
                f"expected a floating-point model, but {where} is quantised: its integer operators "
                "have no gradient. Explain the model that it was made from"
            )
        training = getattr(module, "training", False)  # a frozen module has no mode
        scripted = isinstance(module, torch.jit.ScriptModule)
        normalises = isinstance(module, nn.modules.batchnorm._BatchNorm) or (
            scripted and "BatchNorm" in kind
        )
        if normalises and not training and getattr(module, "running_mean", None) is None:
            raise ValueError(
                f"expected a model whose samples do not depend on each other, but {where} keeps no "
                "running statistics and takes those of the batch"
            )
        random = isinstance(module, nn.modules.dropout._DropoutNd) or (
            scripted and "Dropout" in kind
        )
        tracks = isinstance(module, nn.modules.instancenorm._InstanceNorm) and (
            module.running_mean is not None
        )
        if training and (normalises or tracks or (random and getattr(module, "p", 1) > 0)):
            why = (
                "samples of a batch depend on each other" if normalises
                else "its running statistics change" if tracks
                else "outputs are random"
            )  # fmt: skip
            raise ValueError(
                f"expected a model in evaluation mode, but {where} is in training mode, where "
                f"{why}: call model.eval()"
            )


def detached() -> ModelError:
    """The error for a score without a gradient by the input."""
    return ModelError(
        "the score does not depend on the input, or on the output of the layer that is explained: "
        "its gradient is not recorded. Look for .detach(), .data, torch.no_grad(), numpy or "
        "quantised operators in the model's forward or in the function that is the target, or for "
        "a layer whose output is not used"
    )
