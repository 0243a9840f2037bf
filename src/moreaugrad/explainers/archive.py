"""A record of samples as tensors and a text, and the record made of these again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from moreaugrad.explainers.batch import ExplainedBatch
from moreaugrad.score.target_functions import function_name
from moreaugrad.solvers.solution import Status

FORMAT = 1
KIND = "explanation"
B = TypeVar("B", bound=ExplainedBatch)


def packed(batch: ExplainedBatch) -> tuple[dict[str, Tensor], str]:
    """The tensors by the names of fields, those of a tuple or a mapping as `maps.0` or
    `details.rho`; and the rest as JSON. Errors: ValueError for a setting that JSON cannot hold."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for item in fields(batch):
        value = getattr(batch, item.name)
        if isinstance(value, Tensor):
            tensors[item.name] = value
        elif item.name == "details":
            tensors |= {f"details.{name}": found for name, found in value.items()}
        elif isinstance(value, tuple) and item.name != "status":
            tensors |= {f"{item.name}.{number}": part for number, part in enumerate(value)}
        elif value is not None:
            plain[item.name] = value
    plain["status"] = [status.name for status in batch.status]
    if batch.function is not None:
        plain["function"] = function_name(batch.function)
    plain["labels"] = list(batch.labels.items())
    plain["details"] = list(batch.details)  # a safetensors file has no order
    try:
        text = json.dumps({"kind": KIND, "format": FORMAT, **plain}, default=_as_plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings: expected values that JSON can hold ({error})") from error
    return tensors, text


def unpacked(cls: type[B], tensors: Mapping[str, Tensor], text: str) -> B:
    """What `packed` was given. Errors: ValueError, KeyError or TypeError for another content."""
    plain = json.loads(text)
    if not isinstance(plain, dict) or plain.pop("kind", None) != KIND:
        raise ValueError("it holds something else")
    if (found := plain.pop("format")) != FORMAT:
        raise ValueError(f"it is of format {found}, this version reads {FORMAT}: use a newer one")
    several: dict[str, dict[str, Tensor]] = {"details": {}}
    whole: dict[str, Any] = {}
    for name, value in tensors.items():
        field, inside, key = name.partition(".")
        if inside:
            several.setdefault(field, {})[key] = value
        else:
            whole[field] = value
    details = several.pop("details")
    plain["details"] = {name: details[name] for name in plain["details"]}
    for field, parts in several.items():
        whole[field] = tuple(parts[str(number)] for number in range(len(parts)))
    plain["status"] = tuple(Status[name] for name in plain["status"])
    plain["labels"] = {int(index): label for index, label in plain["labels"]}
    return cls(**plain, **whole)


def _as_plain(value: object) -> object:
    """Numbers and arrays of numpy, which a user may have given as settings."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not plain")
