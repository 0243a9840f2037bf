"""The last layer of a classifier, for other classes than it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.random import fork_rng

Last = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Head:
    """What became of the last layer. kept: the old rows, or None where it is a new one."""

    name: str
    kept: tuple[int, ...] | None = None


def fit_head(
    module: nn.Module,
    classes: int,
    *,
    rows: Sequence[int] | None = None,
    seed: int = 0,
    name: str = "the model",
) -> Head:
    """Gives a classifier `classes` outputs, in place.

    rows: the outputs that it has for them already, in order, whose weights are kept; without, the
    layer is a fresh one, its weights a function of the seed.
    The last layer is the last linear or pointwise convolution of the module.
    Errors: ValueError where there is none, and for rows that it does not have.
    """
    where = last_layer(module)
    if where is None:
        raise ValueError(
            f"{name}: expected a linear layer or a 1 x 1 convolution at its end, to be replaced by "
            "one for the classes of the data, but it has none"
        )
    old = module.get_submodule(where)
    assert isinstance(old, (nn.Linear, nn.Conv2d))
    outputs = len(old.weight)
    if rows is not None and (len(rows) != classes or any(not 0 <= r < outputs for r in rows)):
        raise ValueError(
            f"{name}: expected {classes} rows of the {outputs} of its last layer, got {list(rows)}"
        )
    made = _fresh(old, classes, seed)
    if rows is not None:
        made.load_state_dict(
            {key: value[list(rows)].clone() for key, value in old.state_dict().items()}
        )
    parent, _, attribute = where.rpartition(".")
    setattr(module.get_submodule(parent), attribute, made)
    return Head(where, None if rows is None else tuple(rows))


def fit_head_to(module: nn.Module, state: Mapping[str, Tensor], classes: int | None) -> None:
    """Gives a module the last layer that weights have for this many classes, where it has one for
    others."""
    where = last_layer(module)
    rows = state.get(f"{where}.weight")
    if where is None or classes is None or rows is None or len(rows) != classes:
        return
    if len(module.get_parameter(f"{where}.weight")) != classes:
        fit_head(module, classes)


def last_layer(module: nn.Module) -> str | None:
    """Its path in the module; None where there is none."""
    found: list[str] = [
        path
        for path, part in module.named_modules()
        if isinstance(part, nn.Linear)
        or (isinstance(part, nn.Conv2d) and part.weight[0, 0].numel() == part.stride[0] == 1)
    ]
    return found[-1] if found and found[-1] else None


def _fresh(old: Last, classes: int, seed: int) -> Last:
    with fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made: Last
        if isinstance(old, nn.Linear):
            made = nn.Linear(old.in_features, classes, bias=old.bias is not None)
        else:
            made = nn.Conv2d(old.in_channels, classes, 1, bias=old.bias is not None)
    like: Tensor = old.weight
    return made.to(device=like.device, dtype=like.dtype)
