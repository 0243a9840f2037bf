"""A model's further arguments, which may have a row for each sample."""

from __future__ import annotations

from itertools import combinations

from torch import Tensor

MOST = 3
"""Arguments whose readings are all tried."""


def as_args(args: object) -> tuple[object, ...]:
    """As Captum takes them: nothing, one argument, or a tuple of them. Errors: TypeError for a
    bool alone, which in Captum's Saliency stands in the same place and means something else."""
    if args is None:
        return ()
    if isinstance(args, bool):
        raise TypeError(
            f"additional_forward_args: expected the model's further arguments, got {args}. It is "
            "not Captum's abs (maps are signed, take .abs() of them); a model that takes a bool "
            f"gets it as a tuple, ({args},)"
        )
    return args if isinstance(args, tuple) else (args,)


def readings(args: tuple[object, ...], batch: int) -> list[tuple[bool, ...]]:
    """Which arguments have one row per sample: first all that are as long as the batch, then what
    else may be meant, because one that all samples share may happen to be so long."""
    first = [isinstance(arg, Tensor) and arg.ndim > 0 and len(arg) == batch for arg in args]
    own = [index for index, follows in enumerate(first) if follows]
    if len(own) <= MOST:
        shared = [set(some) for n in range(len(own) + 1) for some in combinations(own, n)]
    else:
        shared = [set(), set(own)]
    return [tuple(f and i not in some for i, f in enumerate(first)) for some in shared]


def take(args: tuple[object, ...], follows: tuple[bool, ...], rows: Tensor) -> tuple[object, ...]:
    """Arguments for these rows: those with one row per sample follow, the rest stays."""
    return tuple(
        arg[rows.to(arg.device)] if isinstance(arg, Tensor) and along else arg
        for arg, along in zip(args, follows, strict=True)
    )
