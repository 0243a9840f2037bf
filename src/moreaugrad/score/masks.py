"""Which entries of the inputs are real: padding takes no part in a map.

A masked entry keeps its value in every network pass, so the score is a function of the real
entries alone, and its gradient there is exactly zero. What counts entries counts the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from moreaugrad.score.inputs import Layout, Shape

MaskLike = Tensor | Sequence[Tensor | None] | None
"""True at real positions: a tensor, or one for each of several inputs (None: all of it is real)."""


def flat_mask(mask: MaskLike, layout: Layout, like: Tensor) -> Tensor | None:
    """The mask of every entry `[B, n]`, on the device of `like` `[B, n]`; None where none is given.

    Errors: TypeError or ValueError for another type or shape than the inputs have, and for a
    sample of padding alone.
    """
    if mask is None:
        return None
    given = tuple(mask) if isinstance(mask, (tuple, list)) else (mask,)
    if len(given) != len(layout.shapes):
        raise ValueError(
            f"mask: expected one for each of the {len(layout.shapes)} inputs, got {len(given)}"
        )
    batch = len(like)
    parts = [
        _entries(each, batch, shape, like.device)
        for each, shape in zip(given, layout.shapes, strict=True)
    ]
    flat = layout.flatten(parts)
    empty = (~flat.any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(
            "mask: expected at least one real position (True) in each sample, got none in "
            f"sample(s) {empty[:10]}"
        )
    return flat


def _entries(mask: object, batch: int, shape: Shape, device: torch.device) -> Tensor:
    """One input's mask, of its full shape."""
    full = (batch, *shape)
    if mask is None:
        return torch.ones(full, dtype=torch.bool, device=device)
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask: expected a boolean tensor, got {type(mask).__name__}")
    found = mask.to(device)
    if found.dtype is not torch.bool:
        whole = not (found.is_floating_point() or found.is_complex())
        if not whole or bool(((found != 0) & (found != 1)).any()):
            raise TypeError(
                "mask: expected True (or 1) at real positions and False (or 0) at padding, got "
                f"{found.dtype}{' with other values' if whole else ''}"
            )
        found = found.bool()
    got = tuple(found.shape)
    whole = len(got) == len(full) and got[0] == batch
    if whole and all(size in (1, length) for size, length in zip(got, full, strict=True)):
        return found.expand(full)
    if len(got) < 2 or got != full[: len(got)]:
        raise ValueError(
            f"mask: expected the shape of the input {full}, in which axes of length 1 stand for "
            f"all positions, or its leading axes, as {full[:2]}; got {got}"
        )
    return found.reshape(*got, *[1] * (len(full) - len(got))).expand(full)


def spread(flat: Tensor, real: Tensor | None = None) -> Tensor:
    """max - min of each row's real entries, `[B]`; 0 where there are none."""
    if real is None:
        return flat.amax(1) - flat.amin(1)
    top = flat.masked_fill(~real, -torch.inf).amax(1)
    return torch.where(real.any(1), top - flat.masked_fill(~real, torch.inf).amin(1), 0.0)


def rank_from_top(values: Tensor, rank: Tensor) -> Tensor:
    """The `rank`-th largest of each row `[B, G]`, rank `[B]` from 1: `[B]`."""
    places = set(rank.tolist())
    if len(places) == 1:
        place = values.shape[1] + 1 - places.pop()
        return values.kthvalue(place, dim=1).values
    return values.sort(dim=1, descending=True).values.gather(1, rank[:, None] - 1)[:, 0]
