"""What a network's rounding does to what is computed with it, by rounding otherwise once more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
CHANGED = 4
"""One result in so many is moved up by a unit in the last place, and one down."""
EXACT = {
    "abs", "cat", "clone", "constant_pad_nd", "empty", "full", "gather", "index", "index_select",
    "masked_fill", "max", "max_pool2d_with_indices", "neg", "new_zeros", "ones_like", "relu",
    "scatter", "stack", "threshold_backward", "where", "zeros_like",
}  # fmt: skip
"""Operators that do not round."""


def reduced_precision(model: object, dtypes: tuple[torch.dtype, ...]) -> bool:
    """Whether the network has inputs or weights of less than single precision."""
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    kinds = {*dtypes, *(weight.dtype for weight in weights)}
    return any(kind.is_floating_point and kind.itemsize < 4 for kind in kinds)


class OtherRounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While open, operators round some of their results to the next number instead.

    Forward and backward passes alike. What comes of it differs from what comes without by about the
    rounding error of both (Monte Carlo arithmetic; Parker, 1997). Which results are moved depends
    on their own bits, on the operator's place in the sequence and on `seed`, not on the batch.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._place = 1_000_003 * seed

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        self._place += 1
        views = any(result.alias_info is not None for result in func._schema.returns)
        if views or func._schema.name.removeprefix("aten::") in EXACT:
            return found
        return tree_map_only(Tensor, self._moved, found)

    def _moved(self, t: Tensor) -> Tensor:
        if not t.is_floating_point() or t.dtype.itemsize not in INTEGERS:
            return t
        bits = t.detach().contiguous().view(INTEGERS[t.dtype.itemsize])
        mixed = bits.long() * 0x9E3779B1 + (self._place * 0x85EBCA77 & 0x7FFFFFFF)
        mixed = ((mixed ^ (mixed >> 15)) * 0xC2B2AE3D) >> 17 & (CHANGED - 1)
        step = (mixed == 0).to(bits.dtype) - (mixed == 1).to(bits.dtype)
        fixed = (t == 0) | ~torch.isfinite(t)
        return (bits + step.masked_fill(fixed, 0)).view(t.dtype)
