"""The operations that torch recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def operations(output: Any) -> Iterator[Any]:
    """The recorded operations that lead to a tensor, or to an operation, its own included."""
    last = output.grad_fn if isinstance(output, Tensor) else output
    seen, open_nodes = {last}, [last]
    while open_nodes:
        node = open_nodes.pop()
        if node is None:
            continue
        yield node
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                open_nodes.append(following)
