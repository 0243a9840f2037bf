"""Captum's Grad-CAM on our scores, enlarged to the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from captum import attr
from torch import Tensor, nn

from moreaugrad import checks
from moreaugrad.bound import BoundScore
from moreaugrad.explainers.base import Explainer, Maps
from moreaugrad.layer import hookable, hooked, replaced, resolve
from moreaugrad.layout import Shape


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GradCAM(Explainer):
    """A = sum over k of w_k a_k, enlarged to the input's size, the same in every channel; a_k are
    a convolution's output channels and w_k the mean of the score's gradient over their positions.

    cam_layer: that convolution or any module with such an output, or its name; None takes the last
    convolution that runs and has more than one position. relu: keep the positive part only, as the
    paper does. Grad-CAM explains one input that is an image, a signal or a volume.
    Source: Selvaraju et al. (2017), eq. (1) and (2). Differs: signed, unless `relu`.
    """

    cam_layer: str | nn.Module | None = None
    relu: bool = False

    method: ClassVar[str] = "grad-cam"

    def __post_init__(self) -> None:
        self._score()
        model = hookable(self.forward_func, self.method)
        if self.layer is not None:
            raise ValueError(
                "layer: Grad-CAM explains the input itself, got a layer; name the convolution that "
                "it reads with cam_layer="
            )
        if self.cam_layer is not None:
            resolve(model, self.cam_layer, "cam_layer")

    def _maps(self, bound: BoundScore) -> Maps:
        shape = bound.layout.shapes[0]
        if len(bound.layout.shapes) > 1:
            raise ValueError(
                f"grad-cam: expected one input, got {len(bound.layout.shapes)}; give those that "
                "are not images as additional_forward_args"
            )
        if bound.mask is not None:
            raise ValueError(
                "mask: Grad-CAM averages over the positions of a layer, which are not the input's; "
                "use another method"
            )
        layer = self._chosen(bound)

        def activation(rows: Tensor) -> Tensor:
            activations, gradient = _at(layer, bound, rows)
            weights = gradient.flatten(2).mean(2)
            return torch.einsum("bk,bk...->b...", weights, activations)[:, None]

        maps = bound.in_chunks(activation).to(bound.origin.dtype)
        return Maps.direct(
            _enlarged(maps.clamp(min=0) if self.relu else maps, shape), evaluations=1
        )

    def _chosen(self, bound: BoundScore) -> nn.Module:
        """The module whose output is read, checked by a pass of the first sample."""
        model = hookable(self.forward_func, self.method)
        candidates: list[nn.Module] = (
            [module for module in model.modules() if isinstance(module, nn.modules.conv._ConvNd)]
            if self.cam_layer is None
            else [resolve(model, self.cam_layer, "cam_layer")]
        )
        ran = _shapes(bound, candidates)
        spatial = [module for module, shape in ran if math.prod(shape[2:]) > 1]
        if not spatial:
            raise ValueError(
                "grad-cam: expected "
                + ("a model with a convolution" if self.cam_layer is None else "a cam_layer")
                + " whose output is [B, channels, positions...] with more than one position, "
                + (f"got {[shape for _, shape in ran]}" if ran else "found none that runs")
                + "; use another method, or name a module with cam_layer="
            )
        uses = sum(module is spatial[-1] for module, _ in ran)
        if uses > 1:
            raise ValueError(
                f"grad-cam: expected a layer that runs once in a forward pass, it ran {uses} "
                "times; name another module with cam_layer="
            )
        return spatial[-1]


def _shapes(bound: BoundScore, modules: Sequence[nn.Module]) -> list[tuple[nn.Module, Shape]]:
    """The shapes of these modules' outputs in a pass of the first sample, in the order they ran."""
    found: list[tuple[nn.Module, Shape]] = []

    def note(module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor):
            found.append((module, tuple(output.shape)))

    first = torch.zeros_like(bound.target.classes[:1])
    with torch.no_grad(), hooked({}, dict.fromkeys(modules, note)):
        bound.value(bound.origin[first], first)
    return found


def _at(layer: nn.Module, bound: BoundScore, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output for these samples, and the score's gradient by it."""
    found: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        found.append(output.detach().clone().requires_grad_())
        return found[0]

    with torch.enable_grad(), replaced(layer, keep):
        total = bound.value(bound.origin[rows], rows).sum()
    with checks.explained(bound.layout):
        (gradient,) = torch.autograd.grad(total, found)
    return found[0].detach(), gradient


_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def _enlarged(maps: Tensor, shape: Shape) -> Tensor:
    """`[B, 1, *positions]` to the input's positions, in every channel: `[B, n]`."""
    axes = maps.ndim - 2
    spatial = shape[len(shape) - axes :]
    if axes not in _MODES or not axes <= len(shape) <= axes + 1:
        raise ValueError(
            f"grad-cam: expected inputs with the {axes} spatial axes of the layer's output, got "
            f"samples of shape {shape}"
        )
    large: Tensor = attr.LayerAttribution.interpolate(maps, spatial, _MODES[axes])
    return large.expand(-1, math.prod(shape[:-axes]), *spatial).flatten(1)
