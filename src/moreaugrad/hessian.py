"""The loss around an input to second order: its gradient and products with its Hessian.

The loss is minus the score, so that of a log-probability is the cross-entropy. With noise both
are means over the same draws: one joint second-order model, not a mean of several.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from moreaugrad import checks
from moreaugrad.bound import BoundScore

PRODUCT = 2
"""Evaluations that a product counts for: it is two passes back through a recorded gradient."""


class Graph(ABC):
    """The recorded loss of some points: `gradient` `[m, n]`, and products with their Hessians.

    `lacking` `[m, n]` is what a product with the gradient lacks to be the true Hessian's.
    """

    gradient: Tensor
    lacking: Tensor

    def __init__(self, bound: BoundScore, points: Tensor, rows: Tensor) -> None:
        self.layout, self.leaf = bound.layout, points.detach().requires_grad_()
        with _recording(bound):
            self._record(bound, rows)

    @abstractmethod
    def _record(self, bound: BoundScore, rows: Tensor) -> None: ...

    def product(self, v: Tensor) -> Tensor:
        """H v of each point's own v `[m, n]`."""
        with checks.explained(self.layout):
            return self._product(v)

    @abstractmethod
    def _product(self, v: Tensor) -> Tensor: ...

    @classmethod
    def once(cls, bound: BoundScore, points: Tensor, rows: Tensor, v: Tensor) -> Tensor:
        """The product where no graph is kept."""
        return cls(bound, points, rows).product(v)


class Exact(Graph):
    """The Hessian itself, by going back through the gradient."""

    def _record(self, bound: BoundScore, rows: Tensor) -> None:
        loss = -bound.read(bound.outputs(self.leaf, rows), rows)
        _check_dependence(loss)
        self._slope = torch.autograd.grad(loss.sum(), self.leaf, create_graph=True)[0]
        self.gradient, self.lacking = self._slope.detach(), torch.zeros_like(self.leaf)

    def _product(self, v: Tensor) -> Tensor:
        return _back(self._slope, self.leaf, v)


class GaussNewton(Graph):
    """J' S J, J the outputs' Jacobian and S the loss's Hessian in the outputs (CASO eq. 6).

    The Hessian of a piecewise linear network; elsewhere it lacks the outputs' own curvature. Each
    product goes forward by J and back by J': J v is the derivative of J' w, which is recorded
    once, in the direction w. At w = dl/dz it is the gradient, and its derivative in the input is
    what is lacking.
    """

    def _record(self, bound: BoundScore, rows: Tensor) -> None:
        self._outputs = outputs = bound.outputs(self.leaf, rows)
        _check_dependence(outputs)
        self._inner = _Inner(bound, outputs, rows)
        self._dual = self._inner.slope.to(outputs.dtype).requires_grad_()
        self._pulled = torch.autograd.grad(outputs, self.leaf, self._dual, create_graph=True)[0]
        self.gradient = self._pulled.detach()
        self.lacking = _back(self._pulled, self.leaf, self.gradient)

    def _product(self, v: Tensor) -> Tensor:
        pushed = _back(self._pulled, self._dual, v)
        return _back(self._outputs, self.leaf, self._inner.product(pushed))

    @classmethod
    def once(cls, bound: BoundScore, points: Tensor, rows: Tensor, v: Tensor) -> Tensor:
        """By forward mode, which keeps nothing, where all of the network's operators have it."""
        try:
            with torch.no_grad(), fwAD.dual_level():
                outputs, pushed = _pushed(bound, points, rows, v)
        except (NotImplementedError, RuntimeError, checks.ModelError) as error:
            if "forward" not in str(error):
                raise
            warnings.warn(
                "gauss-newton: the network has an operator without forward mode, so products go "
                f"back twice instead ({str(error).splitlines()[0]})",
                stacklevel=2,
            )
            return super().once(bound, points, rows, v)
        if pushed is None:
            return torch.zeros_like(points)
        inner = _Inner(bound, outputs, rows).product(pushed)
        leaf = points.detach().requires_grad_()
        with _recording(bound):
            again = bound.outputs(leaf, rows)
        return _back(again, leaf, inner)


def _pushed(
    bound: BoundScore, points: Tensor, rows: Tensor, v: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The outputs `[m, K]`, and J v; None where they do not depend on the points."""
    with warnings.catch_warnings():
        # Of torch's own derivative tables, when they are first read.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
        dual = fwAD.make_dual(points, v)  # type: ignore[no-untyped-call]
        found = fwAD.unpack_dual(bound.outputs(dual, rows))  # type: ignore[no-untyped-call]
    return found.primal, found.tangent


class _Inner:
    """The loss as a function of the outputs: its gradient and products with its Hessian S."""

    def __init__(self, bound: BoundScore, outputs: Tensor, rows: Tensor) -> None:
        self.like = outputs
        self.leaf = outputs.detach().to(bound.origin.dtype).requires_grad_()
        with torch.enable_grad():
            loss = -bound.read(self.leaf, rows)
            self.recorded = torch.autograd.grad(loss.sum(), self.leaf, create_graph=True)[0]
        self.slope = self.recorded.detach()

    def product(self, v: Tensor) -> Tensor:
        return _back(self.recorded, self.leaf, v.to(self.leaf.dtype)).to(self.like.dtype)


def recorded(bound: BoundScore, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Points `[m, n]` as a leaf, and the score's gradient there with its graph, `[m, n]` each."""
    leaf = points.detach().requires_grad_()
    with _recording(bound):
        score = bound.read(bound.outputs(leaf, rows), rows)
        _check_dependence(score)
        slope = torch.autograd.grad(score.sum(), leaf, create_graph=True)[0]
    return leaf, slope


HESSIANS: Mapping[str, type[Graph]] = {"exact": Exact, "gauss-newton": GaussNewton}


class LossModel:
    """l(x + d) ~ value + gradient' d + d' H d / 2 for the samples of a bound score.

    `scale` `[n]`: displacements are those of scale * x, for problems in other units than the
    input's. The graph is kept for further products where all points fit one network pass.
    `lacking` `[B, n]`: see `Graph`; for several draws the mean of theirs.
    """

    def __init__(self, bound: BoundScore, kind: type[Graph], scale: Tensor) -> None:
        self.bound, self.kind, self.scale = bound, kind, scale
        self._graph: Graph | None = None
        gradient, lacking = bound.mean(self._begin)
        self.gradient, self.lacking = gradient / scale, lacking / scale

    def _begin(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        graph = self.kind(self.bound, points, rows)
        self._graph = graph if len(points) == len(self.bound) * self.bound.passes else None
        return graph.gradient, graph.lacking

    def product(self, v: Tensor, rows: Tensor) -> Tensor:
        """H v `[m, n]` of these samples, v `[m, n]`."""
        v = v / self.scale
        found = self._kept(v, rows)
        if found is None:
            part = self.bound.select(rows)
            found = part.mean(partial(self._once, part, v), width=PRODUCT)[0]
        return found / self.scale

    def _once(self, part: BoundScore, v: Tensor, points: Tensor, at: Tensor) -> tuple[Tensor]:
        return (self.kind.once(part, points, at, v[at]),)

    def _kept(self, v: Tensor, rows: Tensor) -> Tensor | None:
        """By the kept graph; None where there is none, or where memory ran out."""
        graph, bound = self._graph, self.bound
        if graph is None:
            return None
        every = torch.zeros_like(bound.origin).index_copy(0, rows, v)
        repeated = every.repeat(bound.passes, 1)
        found = bound.chunks.guarded(lambda: graph.product(repeated))
        if found is None:
            self._graph = None
            return None
        if bound.meter is not None:
            bound.meter(PRODUCT * len(rows) * bound.passes)
        copies = found.reshape(bound.passes, *every.shape)[:, rows]
        return copies.sum(0) / bound.passes


@contextmanager
def _recording(bound: BoundScore) -> Iterator[None]:
    """Attention has second derivatives only in its plain form."""
    checks.check_recording()
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), checks.explained(bound.layout):
        yield


def _check_dependence(outputs: Tensor) -> None:
    if not outputs.requires_grad:
        raise checks.detached()


def _back(outputs: Tensor, leaf: Tensor, v: Tensor) -> Tensor:
    """v' d(outputs)/d(leaf); zero where they do not depend on it."""
    if not outputs.requires_grad:
        return torch.zeros_like(leaf)
    found = torch.autograd.grad(
        outputs, leaf, v.to(outputs.dtype), retain_graph=True, allow_unused=True
    )[0]
    return torch.zeros_like(leaf) if found is None else found
