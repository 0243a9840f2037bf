"""Grad-CAM: a layer's channels, weighted by the score's gradient, enlarged to the input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.bottleneck import Output, outputs
from moreaugrad.explainers.grid import Grid, grid_of
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.hooks import as_module, name_of, replaced, resolve
from moreaugrad.score.inputs import Shape
from moreaugrad.score.numerics import raised
from moreaugrad.solvers.solution import Solution


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GradCAM(Explainer):
    """A = sum over k of w_k a_k, enlarged to the input's size, the same in every channel; a_k are a
    layer's channels and w_k the mean of the score's gradient over their positions.

    >>> maps = mg.GradCAM(model).attribute(x)

    Grad-CAM explains one input that is an image, a signal or a volume.

    Source: Selvaraju et al. (2017), eq. (1) and (2). Differs: signed, unless `relu`.
    """

    cam_layer: str | nn.Module | None = None
    """The layer that is read, or its name: a module whose output has channels and positions, those
    of a convolution, with the channels first or last, or tokens of a grid, of which class and
    register tokens are left out. Which axis is what is found out by asking the network, and refused
    where it is not certain. None takes the last output before pooling that the whole score depends
    on, and not a branch of it; the explanation's settings have its name."""
    relu: bool = False
    """Keep the positive part only, as the paper does."""

    method: ClassVar[str] = "grad-cam"

    def __post_init__(self) -> None:
        super().__post_init__()
        model = as_module(self.forward_func, self.method)
        if self.layer is not None:
            raise ValueError(
                "layer: Grad-CAM explains the input itself, got a layer; name the layer that it "
                "reads with cam_layer="
            )
        if self.cam_layer is not None:
            resolve(model, self.cam_layer, "cam_layer")

    def _maps(self, bound: BoundScore) -> Solution:
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
        model = as_module(self.forward_func, self.method)
        layer, grid = self._found(bound, model)

        def activation(rows: Tensor) -> Tensor:
            activations, gradient = _at(layer, bound, rows)
            weights = grid.fold(gradient).flatten(2).mean(2)
            return torch.einsum("bk,bk...->b...", weights, grid.fold(activations))

        maps = bound.in_chunks(activation).to(bound.origin.dtype)
        if self.relu:
            maps = maps.clamp(min=0)
        found = Solution.direct(grid.enlarged(maps, shape), evaluations=1)
        return replace(found, settings={"cam_layer": name_of(model, layer)})

    def _found(self, bound: BoundScore, model: nn.Module) -> tuple[nn.Module, Grid]:
        """The layer that is read and the grid of its output."""
        returned = outputs(bound, model)
        firsts = {output.shape: output.module for output in reversed(returned)}
        if self.cam_layer is None:
            return self._automatic(bound, returned, firsts)
        layer = resolve(model, self.cam_layer, "cam_layer")
        own = [output.shape for output in returned if output.module is layer]
        if len(own) != 1:
            raise ValueError(
                "cam_layer: expected a layer that runs once in a forward pass and returns one "
                f"tensor, it did so {len(own)} times; name another module"
            )
        return layer, grid_of(bound, layer, own[0], firsts[own[0]])

    def _automatic(
        self, bound: BoundScore, returned: list[Output], firsts: dict[Shape, nn.Module]
    ) -> tuple[nn.Module, Grid]:
        """The last output before pooling that the whole score depends on, at its positions too:
        of a transformer's last block it reads the class token alone."""
        grids: dict[Shape, Grid | ValueError] = {}
        blank: tuple[nn.Module, Grid] | None = None
        for output in _candidates(returned):
            if output.shape not in grids:
                try:
                    first = firsts[output.shape]
                    grids[output.shape] = grid_of(bound, output.module, output.shape, first)
                except ValueError as error:
                    grids[output.shape] = error
            grid = grids[output.shape]
            if isinstance(grid, ValueError):
                continue
            assert output.gradient is not None
            if bool(grid.fold(output.gradient).any()):
                return output.module, grid
            blank = blank or (output.module, grid)
        if blank is not None:
            return blank  # the score has no gradient at all
        why = next(map(str, grids.values()), "none returns such an output")
        raise ValueError(
            "grad-cam: expected a model with a layer, such as a convolution, that the whole score "
            f"depends on, whose output has channels and more than one position; {why}. Name a "
            "layer with cam_layer=, or use another method"
        )


def _candidates(returned: list[Output]) -> Iterator[Output]:
    """From the last to the first, of modules that return the same the outermost first."""
    for output in reversed(returned[:-1]):  # the last one is the model itself
        positions = sum(size > 1 for size in output.shape) - (output.shape[:1] != (1,))
        if output.gradient is not None and not output.pooled and positions > 0:
            yield output


def _at(layer: nn.Module, bound: BoundScore, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output for these samples, and the score's gradient by it."""
    found: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        found.append(output.detach().clone().requires_grad_())
        return found[0]

    with torch.enable_grad(), replaced(layer, keep):
        outputs = bound.outputs(bound.origin[rows], rows)
    _, (gradient,) = bound.pulled(outputs, found, rows)
    if gradient is None:
        raise ValueError(
            f"cam_layer: expected a layer that the score depends on, got {type(layer).__name__}, "
            "whose output goes nowhere; name another module"
        )
    return raised(found[0].detach()), gradient
