"""What an input and a model must be, with one clear error each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from moreaugrad.layout import Layout

DETACHED = (
    "the score does not depend on the input: its gradient is not recorded. Look for .detach(), "
    ".data, torch.no_grad() or numpy in the model's forward"
)


class ModelError(ValueError):
    """The model cannot be explained at these inputs; the message says why."""


def as_parts(inputs: object) -> tuple[Tensor, ...]:
    """One or several input tensors with the same batch size, as a tuple."""
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    if not parts:
        raise ValueError("inputs: expected a tensor or a tuple of tensors, got an empty tuple")
    for part in parts:
        if not isinstance(part, Tensor):
            raise TypeError(
                f"inputs: expected a tensor or a tuple of tensors, got {type(part).__name__}"
            )
        if part.ndim < 2 or part.numel() == 0:
            raise ValueError(
                "inputs: expected a batch [B, ...] with at least one sample and one entry, got "
                f"shape {tuple(part.shape)} (add the batch dimension with x[None])"
            )
        if len(part) != len(parts[0]):
            raise ValueError(
                "inputs: expected the same number of samples in each, got "
                f"{[len(part) for part in parts]}"
            )
    check_recording(parts)
    return parts


def check_floating(parts: Sequence[Tensor]) -> None:
    for part in parts:
        if not part.is_floating_point():
            raise TypeError(
                f"inputs: expected floating-point tensors, got {part.dtype}; convert with "
                ".float(), or explain token ids at their embedding with layer="
            )


def check_finite(name: str, parts: Sequence[Tensor]) -> None:
    for part in parts:
        if part.is_floating_point() and not bool(torch.isfinite(part).all()):
            bad = ~torch.isfinite(part.flatten(1) if part.ndim > 1 else part[:, None]).all(1)
            raise ValueError(
                f"{name}: expected finite numbers, got NaN or Inf in sample(s) "
                f"{bad.nonzero()[:, 0].tolist()[:10]}"
            )


def check_recording(parts: Sequence[Tensor] = ()) -> None:
    if torch.is_inference_mode_enabled() or any(part.is_inference() for part in parts):
        raise ValueError(
            "expected ordinary tensors outside torch.inference_mode(): gradients cannot be "
            "recorded there. Use torch.no_grad() instead, or pass x.clone() made outside of it"
        )


def check_mode(model: object) -> None:
    """Where samples are coupled, or outputs random, a sample has no map of its own."""
    if not isinstance(model, nn.Module):
        return
    for name, module in model.named_modules():
        where = f"{name or 'it'} ({type(module).__name__})"
        normalises = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if normalises and not module.training and module.running_mean is None:
            raise ValueError(
                f"expected a model whose samples do not depend on each other, but {where} keeps no "
                "running statistics and takes those of the batch"
            )
        random = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if module.training and (normalises or random):
            why = "samples of a batch depend on each other" if normalises else "outputs are random"
            raise ValueError(
                f"expected a model in evaluation mode, but {where} is in training mode, where "
                f"{why}: call model.eval()"
            )


@contextmanager
def explained(layout: Layout) -> Iterator[None]:
    """Adds to a model's own error what it was given."""
    try:
        yield
    except ModelError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError) or "memory" in text.lower():
            raise
        if "inplace operation" in text or "in-place operation" in text:
            raise ModelError(
                f"the model changes its input in place, which hides the gradient: {text}"
            ) from error
        if "not have been used in the graph" in text:
            raise ModelError(DETACHED) from error
        shapes = ", ".join(str(("B", *shape)).replace("'", "") for shape in layout.shapes)
        types = ", ".join(str(dtype) for dtype in layout.dtypes)
        raise ModelError(
            f"the model could not process inputs of shape {shapes} and dtype {types} "
            f"({type(error).__name__}: {text.splitlines()[0] if text else 'no message'})"
        ) from error
