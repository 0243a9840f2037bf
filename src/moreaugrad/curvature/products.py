"""The loss around an input to second order: its gradient and products with its Hessian.

The loss is minus the score: for a log-probability it is the cross-entropy. With noise, gradient and
products are means over the same noise samples, so they belong to one second-order model.
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

from moreaugrad.curvature.second_derivatives import (
    NoSecondDerivative,
    check_twice_differentiable,
    twice_differentiable,
)
from moreaugrad.score import checks
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.forward import explained
from moreaugrad.score.inputs import per_sample
from moreaugrad.score.precision import magnitude, reduced_precision

PRODUCT = 2
"""Evaluations that a product counts as: two backward passes through a recorded gradient."""


class _Graph(ABC):
    """The recorded loss at some points: `gradient` `[m, n]`, and products with the Hessians there.

    lacking `[m, n]`: the true Hessian times the gradient, minus this matrix times the gradient; NaN
    if unknown.
    """

    gradient: Tensor
    lacking: Tensor

    def __init__(self, bound: BoundScore, points: Tensor, rows: Tensor) -> None:
        self.bound, self.rows, self.leaf = bound, rows, points.detach().requires_grad_()
        with recording(bound):
            outputs = bound.outputs(self.leaf, rows)
            if not outputs.requires_grad:
                raise checks.detached()
            self.reduced = reduced_precision(None, (outputs.dtype,))  # of the outputs alone
            self._record(outputs, _Inner(bound, outputs, rows))

    @abstractmethod
    def _record(self, outputs: Tensor, inner: _Inner) -> None: ...

    @abstractmethod
    def _product(self, v: Tensor) -> Tensor: ...

    def product(self, v: Tensor) -> Tensor:
        """H v for v `[m, n]`, one for each point. Errors: NoSecondDerivative."""
        with recording(self.bound):
            return self._product(v)

    @classmethod
    def once(cls, bound: BoundScore, points: Tensor, rows: Tensor, v: Tensor) -> Tensor:
        """A single product, for which no graph is kept."""
        return cls(bound, points, rows).product(v)


class Exact(_Graph):
    """The Hessian itself, by differentiating the gradient."""

    def _record(self, outputs: Tensor, inner: _Inner) -> None:
        check_twice_differentiable(outputs, self.leaf)
        self._size = inner.size
        loss = -self.bound.read(outputs, self.rows) / self._size[:, 0]
        self._slope = torch.autograd.grad(loss.sum(), self.leaf, create_graph=True)[0]
        self.gradient = self._size * self._slope.detach()
        self.lacking = torch.zeros_like(self.leaf)

    def _product(self, v: Tensor) -> Tensor:
        return self._size * _back(self._slope, self.leaf, v)


class GaussNewton(_Graph):
    """J' S J, with J the outputs' Jacobian and S the loss's Hessian in the outputs (CASO eq. 6).

    It is the Hessian of a piecewise linear network; for others it lacks the outputs' own curvature.
    Each product applies J, S and J'. J v is the derivative of J' w in w, and J' w is recorded
    once: at w = dl/dz it is the gradient, and its derivative in the input is the missing part. J v
    is computed in forward mode if an operator has no second derivative.
    """

    def __init__(self, bound: BoundScore, points: Tensor, rows: Tensor) -> None:
        _check_classes(bound)
        super().__init__(bound, points, rows)

    def _record(self, outputs: Tensor, inner: _Inner) -> None:
        self._outputs, self._inner = outputs, inner
        size, slope = inner.size, inner.unit
        try:
            check_twice_differentiable(outputs, self.leaf)
            self._dual = slope.requires_grad_()
            (pulled,) = torch.autograd.grad(outputs, self.leaf, self._dual, create_graph=True)
            self._pulled: Tensor | None = pulled
            self.gradient = size * pulled.detach()
            with twice_differentiable():
                self.lacking = size**2 * _back(pulled, self.leaf, pulled.detach())
        except NoSecondDerivative as error:
            self._pulled, self._missing = None, error
            self.gradient = size * _back(outputs, self.leaf, slope.detach())
            self.lacking = torch.full_like(self.leaf, torch.nan)

    def _product(self, v: Tensor) -> Tensor:
        if self._pulled is not None:
            pushed = _back(self._pulled, self._dual, v)
        else:
            try:
                pushed = _pushed(self.bound, self.leaf.detach(), self.rows, v)[1]
            except _NoForwardMode:
                raise self._missing from None
        return self._inner.size * _back(self._outputs, self.leaf, self._inner.product(pushed))

    @classmethod
    def once(cls, bound: BoundScore, points: Tensor, rows: Tensor, v: Tensor) -> Tensor:
        """By forward mode, which keeps no graph, if all operators of the network support it."""
        try:
            outputs, pushed = _pushed(bound, points, rows, v)
        except _NoForwardMode as error:
            warnings.warn(
                "gauss-newton: the network has an operator without forward mode, so products take "
                f"two backward passes instead ({error})",
                stacklevel=2,
            )
            return super().once(bound, points, rows, v)
        inner = _Inner(bound, outputs, rows)
        leaf = points.detach().requires_grad_()
        with recording(bound):
            return inner.size * _back(bound.outputs(leaf, rows), leaf, inner.product(pushed))


def _check_classes(bound: BoundScore) -> None:
    if bound.target.function is not None:
        raise ValueError(
            "hessian: expected 'exact', and a network with second derivatives, for a target that "
            "is a function: the Gauss-Newton matrix lacks the function's own curvature"
        )


class _NoForwardMode(checks.ModelError):
    """The network has an operator that cannot be differentiated in forward mode."""


def _pushed(bound: BoundScore, points: Tensor, rows: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs `[m, K]`, and J v, which is zero if they do not depend on the points.

    Errors: _NoForwardMode.
    """
    try:
        with (
            torch.no_grad(),
            twice_differentiable(),
            fwAD.dual_level(),
            warnings.catch_warnings(),
        ):
            # torch warns when it first reads its own derivative tables.
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
            dual = fwAD.make_dual(points, v)  # type: ignore[no-untyped-call]
            found = fwAD.unpack_dual(bound.outputs(dual, rows))  # type: ignore[no-untyped-call]
    except (NotImplementedError, RuntimeError, checks.ModelError) as error:
        if "forward" not in str(error):
            raise
        raise _NoForwardMode(str(error).splitlines()[0]) from error
    outputs, pushed = found.primal, found.tangent
    return outputs, torch.zeros_like(outputs) if pushed is None else pushed


class _Inner:
    """The loss as a function of the outputs: its gradient and products with its Hessian S.

    Both are divided by `size` `[m, 1]`, a power of two about as large as the gradient, because one
    of 1e-9 would vanish in the backward pass of a network that computes in float16.
    """

    def __init__(self, bound: BoundScore, outputs: Tensor, rows: Tensor) -> None:
        self.like = outputs
        self.leaf = outputs.detach().to(bound.origin.dtype).requires_grad_()
        with torch.enable_grad():
            loss = -bound.read(self.leaf, rows)
            self.recorded = torch.autograd.grad(loss.sum(), self.leaf, create_graph=True)[0]
        slope = self.recorded.detach()
        self.size = magnitude(slope)[:, None]
        self.unit = self._over_size(slope)

    def product(self, v: Tensor) -> Tensor:
        return self._over_size(_back(self.recorded, self.leaf, v.to(self.leaf.dtype)))

    def _over_size(self, values: Tensor) -> Tensor:
        return (values / per_sample(self.size[:, 0], values)).to(self.like.dtype)


def recorded(bound: BoundScore, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Points `[m, n]` as a leaf, and the score's gradient there with its graph, `[m, n]` each.

    Call this, and differentiate its result, inside `recording`.
    """
    leaf = points.detach().requires_grad_()
    score = bound.read(bound.outputs(leaf, rows), rows)
    if not score.requires_grad:
        raise checks.detached()
    check_twice_differentiable(score, leaf)
    return leaf, torch.autograd.grad(score.sum(), leaf, create_graph=True)[0]


EXACT, GAUSS_NEWTON = "exact", "gauss-newton"
HESSIANS: Mapping[str, type[_Graph]] = {EXACT: Exact, GAUSS_NEWTON: GaussNewton}


class LossModel:
    """l(x + d) ~ value + gradient' d + d' H d / 2 for the samples of a bound score.

    scale `[n]`: displacements are those of scale * x, for problems in other units than the input's.
    The graph is kept for further products if all points fit one network pass.
    lacking `[B, n]`: as for the graph, the mean over noise samples. reduced: whether the network
    computes in less than single precision, as far as its types show.
    """

    def __init__(self, bound: BoundScore, kind: type[_Graph], scale: Tensor) -> None:
        self.bound, self.kind, self.scale = bound, kind, scale
        self._graph: _Graph | None = None
        # Inside a wrapper that casts, such as autocast's, the outputs' type shows it.
        self.reduced = bound.reduced
        gradient, lacking = bound.mean(self._begin)
        self.gradient, self.lacking = gradient / scale, lacking / scale

    def _begin(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        graph = self.kind(self.bound, points, rows)
        self.reduced = self.reduced or graph.reduced
        self._graph = graph if len(points) == len(self.bound) * self.bound.passes else None
        return graph.gradient, graph.lacking

    def at(self, draws: range | None, *vectors: Tensor) -> tuple[Tensor, ...]:
        """The gradient and products with `vectors` `[B, n]`, over some of the noise samples."""

        def work(points: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
            graph = self.kind(self.bound, points, rows)
            return graph.gradient, *(graph.product((v / self.scale)[rows]) for v in vectors)

        found = self.bound.mean(work, draws=draws, width=1 + PRODUCT * len(vectors))
        return tuple(part / self.scale for part in found)

    def product(self, v: Tensor, rows: Tensor) -> Tensor:
        """H v `[m, n]` of these samples, for v `[m, n]`."""
        v = v / self.scale
        found = self._kept(v, rows)
        if found is None:
            part = self.bound.select(rows)
            found = part.mean(partial(self._once, part, v), width=PRODUCT)[0]
        return found / self.scale

    def _once(self, part: BoundScore, v: Tensor, points: Tensor, at: Tensor) -> tuple[Tensor]:
        return (self.kind.once(part, points, at, v[at]),)

    def _kept(self, v: Tensor, rows: Tensor) -> Tensor | None:
        """The product by the kept graph; None without one, or if memory ran out."""
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
def recording(bound: BoundScore) -> Iterator[None]:
    """While open, results can be differentiated twice; errors say which inputs the model got."""
    checks.check_recording()
    bound.check_exact()
    with torch.enable_grad(), explained(bound.layout), twice_differentiable(by_inputs=True):
        yield


def _back(outputs: Tensor, leaf: Tensor, v: Tensor) -> Tensor:
    """v' d(outputs)/d(leaf); zero if they do not depend on it."""
    if not outputs.requires_grad:
        return torch.zeros_like(leaf)
    found = torch.autograd.grad(
        outputs, leaf, v.to(outputs.dtype), retain_graph=True, allow_unused=True
    )[0]
    return torch.zeros_like(leaf) if found is None else found
