"""Records of a batch, from which samples are selected, and which are joined again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Self, cast

import torch
from torch import Tensor


class Batched:
    """A dataclass whose fields have an entry for each sample, or one value for all.

    Fields with an entry for each sample: a tensor `[B, ...]`, a tuple of such tensors or of B other
    objects, a mapping with such tensors, and an object with a method `select`. All other fields
    are the same for all samples.
    """

    def select(self, rows: Tensor) -> Self:
        """The record of some of the samples."""
        record = cast(Any, self)
        changed = {item.name: _picked(getattr(self, item.name), rows) for item in fields(record)}
        return cast(Self, replace(record, **changed))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The record of several groups of samples, in order."""
        if len(parts) == 1:
            return parts[0]
        names = [item.name for item in fields(cast(Any, cls))]
        return cls(**{name: _joined([getattr(part, name) for part in parts]) for name in names})


def _picked(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, tuple):
        if value and isinstance(value[0], Tensor):
            return tuple(part[rows] for part in value)
        return tuple(value[row] for row in rows.tolist())
    if isinstance(value, Mapping):
        return {k: v[rows] if isinstance(v, Tensor) else v for k, v in value.items()}
    select = getattr(value, "select", None)
    return value if select is None else select(rows)


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, tuple):
        if first and isinstance(first[0], Tensor):
            return tuple(map(torch.cat, zip(*values, strict=True)))
        return sum(values, ())
    if isinstance(first, Mapping):
        return {
            name: torch.cat([each[name] for each in values]) if isinstance(found, Tensor) else found
            for name, found in first.items()
        }
    return first
