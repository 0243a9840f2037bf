"""A model's further arguments, which may have a row for each sample."""

from __future__ import annotations

from torch import Tensor


def as_args(args: object) -> tuple[object, ...]:
    """As Captum takes them: nothing, one argument, or a tuple of them."""
    if args is None:
        return ()
    return args if isinstance(args, tuple) else (args,)


def following(args: tuple[object, ...], batch: int) -> tuple[bool, ...]:
    """Which arguments have one row per sample."""
    return tuple(isinstance(arg, Tensor) and arg.ndim > 0 and len(arg) == batch for arg in args)


def take(args: tuple[object, ...], follows: tuple[bool, ...], rows: Tensor) -> tuple[object, ...]:
    """Arguments for these rows: those with one row per sample follow, the rest stays."""
    return tuple(
        arg[rows.to(arg.device)] if isinstance(arg, Tensor) and along else arg
        for arg, along in zip(args, follows, strict=True)
    )
