"""What a network's modules return in a pass, and which of it the whole score depends on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from moreaugrad.score import checks
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.hooks import hooked
from moreaugrad.score.inputs import Shape


@dataclass(frozen=True, eq=False)
class Output:
    """What a module returned for the first sample: `shape` without the batch.

    gradient: that of the score, `[1, *shape]`; None where the score depends on the input past this
    output too, or where the module ran more than once. pooled: it is the result of a pooling.
    """

    module: nn.Module
    shape: Shape
    gradient: Tensor | None = None
    pooled: bool = False


def outputs(bound: BoundScore, model: nn.Module) -> list[Output]:
    """Of each module's call that returned a tensor, in the order in which they were done.

    A pass of the first sample, forward and backward.
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
    # Not the tensors themselves: operations in place may have changed them since.
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
        Output(module, shape)
        if edge is None
        else Output(module, shape, next(gradients), any(p in edge.node.name() for p in _POOLING))
        for (module, shape, _), edge in zip(found, held, strict=True)
    ]


_POOLING = ("Pool", "Mean")
_Key = tuple[Node, int]


def _key(edge: GradientEdge) -> _Key:
    return edge.node, edge.output_nr


def _passed(score: GradientEdge, leaf: Node, edges: Sequence[GradientEdge]) -> set[_Key]:
    """Those of the edges that every path from the score to the leaf goes through.

    Counts paths, of which there may be many more than a machine's numbers hold.
    """
    below: dict[Node, int] = {}  # from a node to the leaf
    for node in (order := _leaves_first(score.node)):
        after = [following for following, _ in node.next_functions if following is not None]
        below[node] = 1 if node is leaf else sum(below[following] for following in after)
    above: Counter[_Key] = Counter({_key(score): 1})  # from the score to an edge
    arrived: Counter[Node] = Counter({score.node: 1})
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


def _leaves_first(start: Node) -> list[Node]:
    """The nodes of a graph, each after all that it leads to."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(start, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(following, False) for following, _ in node.next_functions if following]
    return order
