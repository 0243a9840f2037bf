"""What a model returns: its scores as one tensor, and its form in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from torch import Tensor

LOGITS, OUT = "logits", "out"
"""Names of the scores in outputs of Hugging Face's models and of torchvision's segmentation."""
MOST = 12
"""Fields of an output that a message names."""


def tensor_output(output: object) -> Tensor:
    """The model's output, its `.logits` (Hugging Face), or the "logits" or "out" of a dictionary
    (torchvision's segmentation). Errors: TypeError that lists the fields of another output."""
    found = output if isinstance(output, Tensor) else _scores(output)
    if not isinstance(found, Tensor):
        raise TypeError(
            "expected a model that returns a tensor, an object with a tensor .logits, or a "
            f"dictionary with 'logits' or 'out'; got {described(output)}: as target= give a "
            f"function that reads one number for each sample, such as {_example(output)}, or one "
            "of moreaugrad.targets; or wrap the model so that it returns its scores"
        )
    if not found.is_floating_point():
        raise TypeError(f"expected a model with floating-point outputs, got {found.dtype}")
    return found


def _scores(output: object) -> object:
    if isinstance(output, Mapping):
        return output.get(LOGITS, output.get(OUT))
    return getattr(output, LOGITS, None)


def named_parts(output: object) -> dict[str, object]:
    """The fields of an output by name, without those that are None; empty where it has none."""
    if isinstance(output, Mapping):
        found = {str(name): part for name, part in output.items()}
    elif hasattr(output, "_asdict"):  # a named tuple
        found = dict(output._asdict())
    elif is_dataclass(output):
        found = {item.name: getattr(output, item.name) for item in fields(output)}
    else:
        found = dict(getattr(output, "__dict__", {}))
    return {name: part for name, part in found.items() if part is not None}


def described(output: object) -> str:
    """An output in words: its type, its fields or its length, and shapes."""
    name = type(output).__name__
    if isinstance(output, Tensor):
        return f"{name} {list(output.shape)}"
    if parts := named_parts(output):
        shown = [
            f"{key} {list(part.shape)}" if isinstance(part, Tensor) else key
            for key, part in list(parts.items())[:MOST]
        ]
        return f"{name} with {', '.join(shown)}{', ...' if len(parts) > MOST else ''}"
    if isinstance(output, (list, tuple)):
        return f"{name} of {len(output)}" + (f", first {described(output[0])}" if output else "")
    return name


def _example(output: object) -> str:
    """A function of such an output, as one would write it."""
    if isinstance(output, (list, tuple)) and output and isinstance(output[0], Mapping):
        key = next(iter(output[0]), "scores")
        key = "scores" if "scores" in output[0] else key
        return f"lambda output: torch.stack([each[{key!r}].max() for each in output])"
    tensors = [name for name, part in named_parts(output).items() if isinstance(part, Tensor)]
    if not tensors:
        place = "[0]" if isinstance(output, (list, tuple)) else ".scores"
    else:
        name = tensors[0]
        place = f".{name}" if hasattr(output, name) else f"[{name!r}]"
    return f"lambda output: output{place}[:, 0]"
