"""The inner maximisation on one batch: losses, and displacements of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from moreaugrad.score.checks import check_recording, detached
from moreaugrad.score.forward import forward
from moreaugrad.score.inputs import PIXEL, InputSpace, Layout, flat_mask, working_dtype
from moreaugrad.score.precision import (
    log_probability,
    log_sigmoid,
    log_softmax,
    pulled_back,
    raised,
)
from moreaugrad.settings import expect
from moreaugrad.training.places import Model, bare

PerSampleLoss = Callable[[Tensor, Tensor], Tensor]
"""(output [B, ...], y) -> [B]."""


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    """-log softmax(output)_y, `[B]`; for outputs `[B, K, ...]` the mean over each sample.

    >>> losses = mg.training.cross_entropy(model(x), y)

    A single output, `[B]` or `[B, 1]`, is the log-odds of class 1. y: classes, or probabilities of
    the output's shape. Errors: ValueError for labels outside the classes.
    """
    if y.is_floating_point():
        if y.shape != output.shape:
            raise ValueError(
                f"labels: expected integers, or probabilities of the output's shape "
                f"{tuple(output.shape)}; got {y.dtype} of shape {tuple(y.shape)}"
            )
        if _single(output):
            values = -_expected(y, log_sigmoid(output)) - _expected(1 - y, log_sigmoid(-output))
            values = values.reshape(-1)
        else:
            values = -_expected(y, log_softmax(output)).sum(1)
    else:
        check_labels(y, output)
        if _single(output):
            evidence = output.reshape(-1)
            values = -log_sigmoid(torch.where(y.reshape(-1) == 1, evidence, -evidence))
        else:
            values = -log_probability(output, y.long())
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def _expected(probability: Tensor, log_probability: Tensor) -> Tensor:
    # A class of probability 0 may have an output of -inf.
    return torch.where(probability == 0, 0.0, probability * log_probability)


def hinge(output: Tensor, y: Tensor) -> Tensor:
    """max(0, 1 + max_{j != y} output_j - output_y), `[B]`. Source: Crammer and Singer (2001).

    >>> losses = mg.training.hinge(model(x), y)

    For outputs `[B, K, ...]` the mean over each sample. A single output, `[B]` or `[B, 1]`:
    max(0, 1 - t output) with t = 1 for class 1 and -1 for 0.
    """
    check_labels(y, output)
    if _single(output):
        evidence = output.reshape(-1)
        return (1 - torch.where(y.reshape(-1) == 1, evidence, -evidence)).clamp_min(0)
    place = y.long()[:, None]
    own = output.gather(1, place)[:, 0]
    others = output.scatter(1, place, -torch.inf).amax(1)
    return (1 + others - own).clamp_min(0).reshape(len(y), -1).mean(1)


LOSSES: dict[str, PerSampleLoss] = {"cross-entropy": cross_entropy, "hinge": hinge}
"""The losses by name."""


def check_labels(y: Tensor, output: Tensor) -> None:
    """Errors: ValueError for labels that are not integers from 0 to the number of the model's
    classes - 1, one for each row and place of its output."""
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"labels: expected integers, got {y.dtype}")
    single = _single(output)
    classes = 2 if single else output.shape[1]
    shape = output.shape[:1] if single else output.shape[:1] + output.shape[2:]
    if y.shape != shape and not (single and y.shape == (*shape, 1)):
        raise ValueError(
            f"labels: expected shape {tuple(shape)} for a model output of shape "
            f"{tuple(output.shape)}, got {tuple(y.shape)}"
        )
    outside = (y < 0) | (y >= classes)
    if bool(outside.any()):
        found = sorted(set(y[outside].tolist()))
        raise ValueError(
            f"labels: expected classes from 0 to {classes - 1} (the model has {classes}), got "
            f"{found[:10]} in {int(outside.sum())} of {y.numel()}"
        )


def _single(output: Tensor) -> bool:
    return output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1)


def loss_values(output: Tensor, y: Tensor, loss: PerSampleLoss) -> Tensor:
    """The loss of each sample, `[B]`, from the model's output; in single precision or more whatever
    the passes compute in."""
    values = loss(raised(output), y)
    if values.shape != (len(output),):
        raise ValueError(
            f"loss: expected one value for each of the {len(output)} samples, got shape "
            f"{tuple(values.shape)}; use reduction='none'"
        )
    return values


def input_gradient(values: Tensor, x: Tensor) -> Tensor:
    """The gradient of each sample's own loss, with its graph; no parameter's `.grad` changes."""
    if not values.requires_grad:
        raise detached()
    (found,) = torch.autograd.grad(values.sum(), x, create_graph=True, allow_unused=True)
    if found is None:
        raise detached()
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class InnerProblem:
    """max over delta of loss(x + delta / scale) - h(delta), for each sample of a batch.

    x: `[B, ...]`. Displacements delta have its shape, at least single precision, and the units of
    the budget. scale: `[...]`, lengths in these units of a unit of the input; None for 1. low,
    high: the valid inputs `[...]`, or None without a box. attention: `[B, 1, H, W]`, for penalties
    that need it. ids: numbers of the samples in the data set. real: `[B, ...]`, False at padding,
    which is not displaced; None without any.
    """

    model: Model
    x: Tensor
    y: Tensor
    loss: PerSampleLoss
    attention: Tensor | None = None
    ids: Sequence[int] | Tensor | None = None
    real: Tensor | None = None
    scale: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None

    def within(
        self, units: str, space: InputSpace | None, box: bool, mask: Tensor | None
    ) -> InnerProblem:
        """With these units, this box and this padding. Errors: TypeError or ValueError unless x is
        floating-point `[B, ...]`, and for a mask of another shape."""
        x = self.x
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"x: expected a batch of floating-point inputs, got {kind}")
        expect(x.ndim >= 2 and x.numel() > 0, "x", "a batch [B, ...]", tuple(x.shape))
        check_recording((x,))
        scale = low = high = None
        real = flat_mask(mask, Layout.of((x,)), x.flatten(1))
        if space is not None:
            layout, like = Layout.of((x,)), x[:0].to(working_dtype((x.dtype,)))
            if units == PIXEL:
                scale = space.scale(layout, like).reshape(x.shape[1:])
            if box:
                low, high = (end.reshape(x.shape[1:]) for end in space.box(layout, like))
        return replace(
            self, x=x.detach(), real=None if real is None else real.reshape(x.shape), scale=scale,
            low=low, high=high,
        )  # fmt: skip

    def zero(self) -> Tensor:
        """No displacement."""
        return torch.zeros_like(self.x, dtype=working_dtype((self.x.dtype,)))

    def inside(self, delta: Tensor) -> Tensor:
        """delta, zero at padding and clipped where its input would leave the box.

        delta itself is clipped because the rounding of the clipped input would be coarser.
        """
        delta = self._at_real(delta)
        if self.low is None or self.high is None:
            return delta
        # An input that misses the box by the rounding of its normalisation stays where it is.
        x, scale = self.x.to(delta.dtype), 1.0 if self.scale is None else self.scale
        least = ((self.low - x) * scale).clamp_max(0)
        return torch.minimum(torch.maximum(delta, least), ((self.high - x) * scale).clamp_min(0))

    def at(self, delta: Tensor) -> Tensor:
        """The input for this displacement, in the dtype of x."""
        x, delta = self.x.to(delta.dtype), self._at_real(delta)
        moved = x + (delta if self.scale is None else delta / self.scale)
        if self.low is not None and self.high is not None:
            low, high = torch.minimum(self.low, x), torch.maximum(self.high, x)
            moved = torch.minimum(torch.maximum(moved, low), high)
        return moved.to(self.x.dtype)

    def slope(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to delta, of that with respect to the input."""
        gradient = self._at_real(gradient.to(working_dtype((gradient.dtype,))))
        return gradient if self.scale is None else gradient / self.scale

    def _at_real(self, values: Tensor) -> Tensor:
        return values if self.real is None else torch.where(self.real, values, 0.0)

    def gradient(self, delta: Tensor) -> Tensor:
        """The gradient of each sample's loss at the input for delta, with respect to delta."""
        with torch.enable_grad():
            x = self.at(delta).requires_grad_()
            output = forward(bare(self.model), x)
            if not output.requires_grad:
                raise detached()
            _, (found,) = pulled_back(output, (x,), partial(loss_values, y=self.y, loss=self.loss))
            if found is None:
                raise detached()
            return self.slope(found)

    def values(self, x: Tensor) -> Tensor:
        """The loss of each sample at the input x, `[B]`, with its graph."""
        return loss_values(forward(self.model, x), self.y, self.loss)
