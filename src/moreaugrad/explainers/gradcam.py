"""Grad-CAM: a layer's channels, weighted by the score's gradient, upsampled to the input's size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.grid import Grid, grid_of
from moreaugrad.score import checks
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.hooks import as_module, hooked, name_of, replaced, resolve
from moreaugrad.score.inputs import Shape
from moreaugrad.score.precision import raised
from moreaugrad.solvers.solution import Solution


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GradCAM(Explainer):
    """A = sum over k of w_k a_k, upsampled to the input's size and equal in all channels; a_k are a
    layer's channels and w_k the mean of the score's gradient over their positions.

    >>> maps = mg.GradCAM(model).attribute(x)

    It explains one input, which is an image, a signal or a volume. The layer is found once in each
    call, by one more pass of the first sample, which `evaluations` do not count.

    Source: Selvaraju et al. (2017), eq. (1) and (2). Differs: signed, unless `relu`.
    """

    cam_layer: str | nn.Module | None = None
    """The layer, or its name: a module whose output has channels and positions, like that of a
    convolution with channels first or last, or a grid of tokens, whose class and register tokens
    are left out. The network itself shows which axis is which; a layer whose axes are not certain
    is refused. None takes the last output before pooling through which the whole score is computed;
    the explanation's settings contain its name."""
    relu: bool = False
    """Keep only the positive part, as the paper does."""

    method: ClassVar[str] = "grad-cam"
    # One group, for which the layer is looked for once; passes are chunks of it.
    full_passes: ClassVar[float] = 2**40

    def __post_init__(self) -> None:
        super().__post_init__()
        model = as_module(self.forward_func, self.method)
        if self.layer is not None:
            raise ValueError(
                "layer: Grad-CAM explains the input itself, got a layer; name the layer whose "
                "channels are weighted with cam_layer="
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
            if bound.meter is not None:
                bound.meter(len(rows))
            weights = grid.fold(gradient).flatten(2).mean(2)
            return torch.einsum("bk,bk...->b...", weights, grid.fold(activations))

        maps = bound.in_chunks(activation).to(bound.origin.dtype)
        if self.relu:
            maps = maps.clamp(min=0)
        found = Solution.direct(grid.enlarged(maps, shape), evaluations=1)
        return replace(found, settings={"cam_layer": name_of(model, layer)})

    def _found(self, bound: BoundScore, model: nn.Module) -> tuple[nn.Module, Grid]:
        """The layer and the grid of its output."""
        returned = _outputs(bound, model)
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
        self, bound: BoundScore, returned: list[_Output], firsts: dict[Shape, nn.Module]
    ) -> tuple[nn.Module, Grid]:
        """The last output before pooling through which the whole score is computed, with a gradient
        at its positions: the score of a transformer may depend on the class token alone."""
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


def _candidates(returned: list[_Output]) -> Iterator[_Output]:
    """Outputs from the last to the first; of modules with the same output, the outermost first."""
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


@dataclass(frozen=True, eq=False)
class _Output:
    """What a module returned for the first sample."""

    module: nn.Module
    shape: Shape
    """Without the batch dimension."""
    gradient: Tensor | None = None
    """Gradient of the score `[1, *shape]`; None if the score depends on the input by another way
    too, or if the module ran more than once."""
    pooled: bool = False
    """Whether it is the result of a pooling."""


def _outputs(bound: BoundScore, model: nn.Module) -> list[_Output]:
    """The outputs of all module calls that returned a tensor, in the order of the calls.

    Takes one forward and one backward pass of the first sample.
    """
    found: list[tuple[nn.Module, Shape, GradientEdge | None]] = []

    def note(module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor):
            edge = get_gradient_edge(output) if output.requires_grad else None
            found.append((module, tuple(output.shape[1:]), edge))

    first = torch.zeros_like(bound.target.classes[:1])
    points = bound.origin[first].requires_grad_()
    with torch.enable_grad(), hooked({}, dict.fromkeys(model.modules(), note)):
        logits = bound.outputs(points, first)
    if not logits.requires_grad:
        raise checks.detached()
    # Edges instead of the tensors, which operations in place may have changed since.
    edges = [edge for *_, edge in found if edge is not None]
    passed = _passed(get_gradient_edge(logits), get_gradient_edge(points).node, edges)
    runs = Counter(module for module, *_ in found)
    held = [
        edge if runs[module] == 1 and edge is not None and _key(edge) in passed else None
        for module, _, edge in found
    ]
    asked = [edge for edge in held if edge is not None]
    gradients = iter(bound.pulled(logits, asked, first)[1] if asked else ())
    return [
        _Output(module, shape)
        if edge is None
        else _Output(module, shape, next(gradients), any(p in edge.node.name() for p in _POOLING))
        for (module, shape, _), edge in zip(found, held, strict=True)
    ]


_POOLING = ("Pool", "Mean")
_Key = tuple[Node, int]


def _key(edge: GradientEdge) -> _Key:
    return edge.node, edge.output_nr


def _passed(score: GradientEdge, leaf: Node, edges: Sequence[GradientEdge]) -> set[_Key]:
    """The edges that lie on every path from the score to the leaf.

    Found by counting paths, with integers of any size: there may be very many.
    """
    graph: dict[Node, list[Node]] = {}  # from each node to the next ones
    stack = [score.node]
    while stack:
        node = stack.pop()
        if node not in graph:
            graph[node] = [following for following, _ in node.next_functions if following]
            stack += graph[node]
    order = list(TopologicalSorter(graph).static_order())  # the leaves first
    below: dict[Node, int] = {}  # number of paths from a node to the leaf
    for node in order:
        below[node] = 1 if node is leaf else sum(below[following] for following in graph[node])
    above: Counter[_Key] = Counter({_key(score): 1})  # from the score to an edge
    arrived: Counter[Node] = Counter({score.node: 1})  # from the score to a node
    for node in reversed(order):
        for following, place in node.next_functions:
            if following is not None and below[following]:
                above[following, place] += arrived[node]
                arrived[following] += arrived[node]
    total = below[score.node]
    return {
        key
        for edge in edges
        if total and below.get((key := _key(edge))[0], 0) * above[key] == total
    }
