"""Other roundings of a network's results, which show how far rounding changes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

ROUNDINGS = 6
"""Other roundings of the network's results that estimate the error of reduced precision."""
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
CHANGED = 4
"""One result of this many is moved up by a unit in the last place, and one down."""
EXACT = {
    "abs", "cat", "clone", "constant_pad_nd", "empty", "full", "gather", "index", "index_select",
    "masked_fill", "max", "max_pool2d_with_indices", "neg", "new_zeros", "ones_like", "relu",
    "scatter", "stack", "threshold_backward", "where", "zeros_like",
}  # fmt: skip
"""Operators without rounding."""


class OtherRounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While open, operators round some of their results to the next number instead.

    This holds for forward and backward passes. The difference from the usual result has about the
    size of the rounding error (Monte Carlo arithmetic; Parker, 1997). Which numbers are moved
    depends on their bits, on the operator's place in the sequence and on `seed`, not on the batch.
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
