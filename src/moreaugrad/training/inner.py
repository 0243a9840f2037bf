"""The inner maximisation of one batch: inputs near x, lengths in the budget's units, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from moreaugrad.score.checks import check_recording, detached
from moreaugrad.score.forward import forward
from moreaugrad.score.inputs import Layout, working_dtype
from moreaugrad.score.likelihood import pulled_back, raised
from moreaugrad.score.pixels import PIXEL, InputSpace
from moreaugrad.training.losses import PerSampleLoss

Model = Callable[[Tensor], object]

EVAL, TRAIN = "eval", "train"
MODES = (EVAL, TRAIN)
"""Of the passes that find a perturbation: evaluation mode, or the mode that the model is in."""


@contextmanager
def in_mode(model: Model, mode: str) -> Iterator[None]:
    """With "eval", the whole model in evaluation mode; after it each part is as it was."""
    if mode != EVAL or not isinstance(model, nn.Module):
        yield
        return
    before = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training  # and not train(), which would set that of its parts


def loss_values(model: Model, x: Tensor, y: Tensor, loss: PerSampleLoss) -> Tensor:
    """The loss of each sample, `[B]`, in single precision or more whatever passes compute in."""
    return read_loss(forward(model, x), y, loss)


def read_loss(output: Tensor, y: Tensor, loss: PerSampleLoss) -> Tensor:
    """The loss of each sample, `[B]`, from the model's output."""
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
class Neighbourhood:
    """x + delta / scale, for displacements `delta` `[B, ...]` in the budget's units.

    `scale` `[...]`: lengths of the budget's unit for one of the input. `low`, `high`: the valid
    inputs, or None without a box. Displacements have at least single precision.
    """

    x: Tensor
    scale: Tensor | None
    low: Tensor | None
    high: Tensor | None

    @classmethod
    def of(cls, x: Tensor, units: str, space: InputSpace | None, box: bool) -> Neighbourhood:
        """Errors: TypeError or ValueError for what is no batch of floating-point inputs."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"x: expected a batch of floating-point inputs, got {kind}")
        if x.ndim < 2 or x.numel() == 0:
            raise ValueError(f"x: expected a batch [B, ...], got shape {tuple(x.shape)}")
        check_recording((x,))
        x = x.detach()
        scale = low = high = None
        if space is not None:
            layout, like = Layout.of((x,)), x[:0].to(working_dtype((x.dtype,)))
            if units == PIXEL:
                scale = space.scale(layout, like).reshape(x.shape[1:])
            if box:
                low, high = (end.reshape(x.shape[1:]) for end in space.box(layout, like))
        return cls(x=x, scale=scale, low=low, high=high)

    def zero(self) -> Tensor:
        return torch.zeros_like(self.x, dtype=working_dtype((self.x.dtype,)))

    def inside(self, delta: Tensor) -> Tensor:
        """delta, cut where its input would leave the box.

        Cut, and not taken from the input again, whose rounding is coarser than that of delta.
        """
        if self.low is None or self.high is None:
            return delta
        # An input that misses the box by the rounding of its normalisation stays where it is.
        x, scale = self.x.to(delta.dtype), 1.0 if self.scale is None else self.scale
        least = ((self.low - x) * scale).clamp_max(0)
        return torch.minimum(torch.maximum(delta, least), ((self.high - x) * scale).clamp_min(0))

    def at(self, delta: Tensor) -> Tensor:
        """The input for this displacement, in the dtype of x."""
        x = self.x.to(delta.dtype)
        moved = x + (delta if self.scale is None else delta / self.scale)
        if self.low is not None and self.high is not None:
            low, high = torch.minimum(self.low, x), torch.maximum(self.high, x)
            moved = torch.minimum(torch.maximum(moved, low), high)
        return moved.to(self.x.dtype)

    def slope(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to delta, of that with respect to the input."""
        gradient = gradient.to(working_dtype((gradient.dtype,)))
        return gradient if self.scale is None else gradient / self.scale


@dataclass(frozen=True, kw_only=True, eq=False)
class InnerProblem:
    """max over delta of loss(x + delta) - h(delta), sample by sample."""

    model: Model
    y: Tensor
    loss: PerSampleLoss
    near: Neighbourhood

    def gradient(self, delta: Tensor) -> Tensor:
        """Of each sample's loss at x + delta, with respect to delta."""
        with torch.enable_grad():
            x = self.near.at(delta).requires_grad_()
            output = forward(self.model, x)
            if not output.requires_grad:
                raise detached()
            _, (found,) = pulled_back(output, (x,), partial(read_loss, y=self.y, loss=self.loss))
            if found is None:
                raise detached()
            return self.near.slope(found)

    def value(self, delta: Tensor) -> Tensor:
        """The loss of each sample at x + delta, without a graph."""
        with torch.no_grad():
            return loss_values(self.model, self.near.at(delta), self.y, self.loss)
