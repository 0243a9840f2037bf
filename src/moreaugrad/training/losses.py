"""Losses with one value for each sample; they are summed, never averaged, before a gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from moreaugrad.score.likelihood import log_probability, log_sigmoid, log_softmax

PerSampleLoss = Callable[[Tensor, Tensor], Tensor]
"""(output [B, ...], y) -> [B]."""


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    """-log softmax(output)_y, `[B]`; over more dimensions `[B, K, ...]` the mean of each sample.

    A single output, `[B]` or `[B, 1]`, is the log-odds of class 1. y: classes, or probabilities of
    the output's shape. Errors: ValueError for labels outside of the classes.
    """
    if y.is_floating_point():
        if y.shape != output.shape:
            raise ValueError(
                f"labels: expected integers, or probabilities of the output's shape "
                f"{tuple(output.shape)}; got {y.dtype} of shape {tuple(y.shape)}"
            )
        # A class of probability 0 may have an output of -inf.
        values = -torch.where(y == 0, 0.0, y * log_softmax(output)).sum(1)
    elif _single(output):
        check_labels(y, 2)
        evidence = output.reshape(-1)
        values = -log_sigmoid(torch.where(y.reshape(-1) == 1, evidence, -evidence))
    else:
        check_labels(y, output.shape[1])
        values = -log_probability(output, y.long())
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def hinge(output: Tensor, y: Tensor) -> Tensor:
    """max(0, 1 + max_{j != y} output_j - output_y), `[B]`. Source: Crammer and Singer (2001).

    A single output, `[B]` or `[B, 1]`: max(0, 1 - t output) with t = 1 for class 1 and -1 for 0.
    """
    if _single(output):
        check_labels(y, 2)
        evidence = output.reshape(-1)
        return (1 - torch.where(y.reshape(-1) == 1, evidence, -evidence)).clamp_min(0)
    check_labels(y, output.shape[1])
    own = output.gather(1, y[:, None])[:, 0]
    others = output.scatter(1, y[:, None], -torch.inf).amax(1)
    return (1 + others - own).clamp_min(0)


LOSSES: dict[str, PerSampleLoss] = {"cross-entropy": cross_entropy, "hinge": hinge}


def check_labels(y: Tensor, classes: int) -> None:
    """Errors: ValueError for labels that are no integers from 0 to classes - 1."""
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"labels: expected integers, got {y.dtype}")
    outside = (y < 0) | (y >= classes)
    if bool(outside.any()):
        found = sorted(set(y[outside].tolist()))
        raise ValueError(
            f"labels: expected classes from 0 to {classes - 1} (the model has {classes}), got "
            f"{found[:10]} in {int(outside.sum())} of {y.numel()}"
        )


def _single(output: Tensor) -> bool:
    return output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1)
