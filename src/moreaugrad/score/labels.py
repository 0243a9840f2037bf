"""Names of a network's outputs, which it carries itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

ATTRIBUTE = "labels"


def put_labels(model: nn.Module, labels: Sequence[str]) -> None:
    """Let a network carry the names of its outputs, unless it uses the attribute otherwise."""
    if isinstance(getattr(model, ATTRIBUTE, ()), tuple):
        setattr(model, ATTRIBUTE, tuple(labels))


def listed(labels: object) -> tuple[str, ...]:
    """Names that a user gave, in the order of the outputs.

    Errors: TypeError for anything but several texts: the letters of a text and the keys of a
    mapping would be taken for names.
    """
    if isinstance(labels, Iterable) and not isinstance(labels, (str, Mapping)):
        found = tuple(labels)
        if all(isinstance(label, str) for label in found):
            return found
    raise TypeError(
        "labels: expected a list of names in the order of the outputs, such as "
        f"list(model.config.id2label.values()), got {type(labels).__name__} {str(labels)[:40]}"
    )


def labels_of(model: object) -> dict[int, str]:
    """The names of the outputs that a model carries: its `labels`, a tuple or list of text, or what
    Hugging Face calls `config.id2label`; empty where it carries none."""
    found = getattr(model, ATTRIBUTE, None)
    if isinstance(found, (tuple, list)) and all(isinstance(label, str) for label in found):
        return dict(enumerate(found))
    table = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(table, Mapping):
        return {}
    return {k: label for k, label in table.items() if isinstance(k, int) and isinstance(label, str)}
