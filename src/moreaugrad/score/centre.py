"""The gradient through mean activation derivatives: a cheap estimate of a mean gradient.

One backward pass in which each activation with kinks has the mean of its derivative over the noise,
that of a normal distribution with the mean and deviation of its own inputs, and max-pooling passes
to each entry the fraction of its windows that it wins, among those in which it is not zero (after a
ReLU, whose own mean derivative has the rest). This estimate has a bias and hardly any noise; a mean
of gradients has noise and no bias. `moreaugrad.solvers.shrinkage` combines the two.

Source of mean derivatives: SmoothDiff (NeurIPS 2025), which counts them over the noise samples.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.graph import operations
from moreaugrad.score.kinks import ACTIVATIONS, Replaced, computed_again
from moreaugrad.score.sums import Parts, Sums

POOLS: Mapping[Callable[..., Any], tuple[Callable[..., Any], int]] = {
    **dict.fromkeys((F.max_pool1d, torch.max_pool1d), (torch.max_pool1d_with_indices, 1)),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), (F.max_pool2d_with_indices, 2)),
    **dict.fromkeys((F.max_pool3d, torch.max_pool3d), (F.max_pool3d_with_indices, 3)),
}
"""Functions of max-pooling, those that also say where it is, and the number of spatial axes."""

HALVES = 2
"""Centres made of different noise samples, which separate their noise from their bias."""

SELDOM = 1e-9
"""Less than any fraction of noise samples that is not zero."""

DIFFERENT = "its activations differ from pass to pass"

_KINKED = re.compile(
    "(Relu|LeakyRelu|PreluKernel|Rrelu|Threshold|Hardtanh|Hardswish|Hardsigmoid|Hardshrink|"
    "Softshrink|Clamp|Abs|Max|Min|Amax|Amin|Maximum|Minimum|Fmax|Fmin|Median|Nanmedian|Kthvalue|"
    r"Topk|Sort|Mode|MaxPool\w*|AdaptiveMaxPool\w*|FractionalMaxPool\w*)(Min|Max|WithNoise)?"
    r"Backward\d*"
)
"""Recorded operations whose derivative jumps."""


class _Elementwise:
    """A call of an activation, of whose input and its square the sums are taken."""

    output: Any = NotImplemented

    def __init__(self, compute: Callable[..., Any], given: tuple[Any, ...], named: Any) -> None:
        self.compute, self.rest, self.named = compute, given[1:], named
        found = ACTIVATIONS[compute](*given, **named)
        self.known = found is not NotImplemented
        if self.known:
            self.input, self.activation, self.inplace = found

    def terms(self) -> Iterator[tuple[Sequence[Tensor], Parts]]:
        yield (self.input.detach(),), self._powers

    @staticmethod
    def _powers(x: Tensor) -> Iterator[Tensor]:
        yield x
        yield x.square()

    def averaged(self, means: Sequence[Tensor]) -> Tensor:
        """The output, with the mean derivative. means: of the terms, for each row."""
        mean, square = means
        slope = self.activation.mean_slope(mean, (square - mean.square()).clamp_min(0).sqrt())
        x = self.input.detach()
        value = self.compute(x.clone() if self.inplace else x, *self.rest, **self.named)
        found = _with_derivative(self.input, value, slope.to(value.dtype).mul)
        return self.input.copy_(found) if self.inplace else found


class _Pool:
    """A call of max-pooling.

    Summed are where its input is not zero, and for each place in the window where it is largest and
    not zero. `output` is there once they are.
    """

    output: Tensor

    def __init__(self, compute: Callable[..., Any], given: tuple[Any, ...], named: Any) -> None:
        self.compute, self.given, self.named = compute, given, named
        self.input, (self.indexed, self.axes) = given[0], POOLS[compute]
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
        settings = dict(zip(names, given, strict=False)) | named
        self.kernel = self._each(settings["kernel_size"])
        self.stride = self._each(settings.get("stride") or settings["kernel_size"])
        self.padding = self._each(settings.get("padding", 0))
        self.dilation = self._each(settings.get("dilation", 1))
        self.rounding_up = bool(settings.get("ceil_mode", False))
        spans = [(k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True)]
        # A second output would have to be averaged too. Places in windows that are wider than the
        # input cannot be read from the number of an entry.
        self.known = (
            not settings.get("return_indices")
            and self.input.ndim == self.axes + 2
            and all(span < size for span, size in zip(spans, self.input.shape[2:], strict=True))
        )

    def _each(self, value: Any) -> tuple[int, ...]:
        found = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        return found * (self.axes if len(found) == 1 else 1)

    def terms(self) -> Iterator[tuple[Sequence[Tensor], Parts]]:
        self.output, index = self.indexed(
            self.input, self.kernel, self.stride, self.padding, self.dilation, self.rounding_up
        )
        # Comparisons that write numbers are many times faster than those that give booleans.
        yield (self.input.detach(),), lambda x: (torch.ne(x, 0, out=torch.empty_like(x)),)
        steps = [math.prod(self.input.shape[3 + i :]) for i in range(self.axes)]
        starts = index.new_zeros(())
        for i, step in enumerate(steps):
            along = torch.arange(index.shape[2 + i], device=index.device)
            start = (along * self.stride[i] - self.padding[i]) * step
            starts = starts + start.reshape(-1, *[1] * (self.axes - 1 - i))
        places = [
            sum(k * d * step for k, d, step in zip(place, self.dilation, steps, strict=True))
            for place in product(*map(range, self.kernel))
        ]

        def wins(largest: Tensor, index: Tensor, starts: Tensor) -> Iterator[Tensor]:
            won = torch.empty_like(largest)
            at = torch.sub(index, starts, out=torch.empty_like(largest))
            at.sub_(torch.eq(largest, 0, out=won), alpha=places[-1] + 1)  # no place
            for place in places:
                yield torch.eq(at, place, out=won)

        yield (self.output.detach(), index, starts.expand(1, *index.shape[1:])), wins

    def averaged(self, means: Sequence[Tensor]) -> Tensor:
        """The output, with the mean derivative. means: of the terms, for each row."""
        used, *wins = means
        x = self.input.detach()
        value: Tensor = self.compute(x, *self.given[1:], **self.named)

        def back(gradient: Tensor) -> Tensor:
            axes, size = range(self.axes), value.shape[2:]
            spans = [(size[i] - 1) * self.stride[i] + 1 for i in axes]
            ends = [(self.kernel[i] - 1) * self.dilation[i] + spans[i] for i in axes]
            after = [max(0, ends[i] - x.shape[2 + i] - self.padding[i]) for i in axes]
            sides = [side for i in reversed(axes) for side in (self.padding[i], after[i])]
            wide = F.pad(torch.zeros_like(x), sides)
            for win, place in zip(wins, product(*map(range, self.kernel)), strict=True):
                starts = [place[i] * self.dilation[i] for i in axes]
                cut = [slice(starts[i], starts[i] + spans[i], self.stride[i]) for i in axes]
                wide[:, :, *cut].addcmul_(gradient, win.to(gradient.dtype))
            inner = [slice(self.padding[i], self.padding[i] + x.shape[2 + i]) for i in axes]
            # Without a use there is no win, so that any divisor gives 0.
            return (wide[:, :, *inner] / used.clamp_min(SELDOM)).to(gradient.dtype)

        return _with_derivative(self.input, value, back)


class _WithDerivative(torch.autograd.Function):
    """A value as a function of x, with a derivative of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.back = back
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradient), None, None


def _with_derivative(x: Tensor, value: Tensor, back: Callable[[Tensor], Tensor]) -> Tensor:
    """The value, as a function of x. back: from the gradient by the value to that by x."""
    found: Tensor = _WithDerivative.apply(x, value, back)  # type: ignore[no-untyped-call]
    return found


class Centre:
    """Statistics of a score's activations under noise, and the gradient through mean derivatives.

    The noise samples are divided into two halves, with a gradient each. `lacking` is empty, or says
    why the network has no such gradient.
    """

    def __init__(self, bound: BoundScore) -> None:
        self.lacking = ""
        self._calls: list[Sums] = []
        self._follow(bound)

    def recording(self, bound: BoundScore, first: int = 0) -> BoundScore:
        """The score, whose blocks of noise samples are added to the halves in turn.

        first: the half of the first block.
        """
        batch, numbers = len(bound), torch.arange(HALVES * len(bound), device=bound.origin.device)

        @contextmanager
        def watch(samples: Tensor, blocks: Tensor) -> Iterator[None]:
            own = samples + batch * ((blocks + first) % HALVES)
            weights = (numbers[:, None] == own).to(bound.origin.dtype)

            def record(sums: Sums, call: _Elementwise | _Pool) -> Any:
                sums.add(weights, call.terms())
                return call.output

            with self._met(len(samples), record):
                yield

        return replace(bound, watch=watch)

    def gradients(self, bound: BoundScore, u: Tensor | None = None) -> Tensor:
        """The gradients at x + u through the mean derivatives of each half, `[2, B, n]`.

        They take an evaluation each.
        """
        points, batch = bound.origin if u is None else bound.origin + u, len(bound)

        def work(numbers: Tensor) -> Tensor:
            def average(sums: Sums, call: _Elementwise | _Pool) -> Any:
                return call.averaged(sums.means(numbers))

            rows = numbers % batch
            with self._met(len(rows), average):
                found = bound.value_and_grad_at(points[rows], rows)[1]
            if bound.meter is not None:
                bound.meter(len(rows))
            return found

        numbers = torch.arange(HALVES * batch, device=points.device)
        return bound.chunks.over(numbers, work).reshape(HALVES, batch, -1)

    def select(self, rows: Tensor) -> None:
        """Keep these samples only."""
        for at, sums in enumerate(self._calls):
            batch = len(sums.count) // HALVES
            self._calls[at] = sums.select(
                torch.cat([rows + half * batch for half in range(HALVES)])
            )

    def _follow(self, bound: BoundScore) -> None:
        """Follows one pass of one sample, not counted: are there kinks without a rule?"""
        zeros, rows = bound.origin.new_zeros(HALVES * len(bound)), bound.rows[:1]

        def note(call: _Elementwise | _Pool) -> Any:
            if len(call.input) != 1:
                self.lacking = "an activation's input has another first axis than the batch"
            self._calls.append(Sums(tuple(call.input.shape[1:]), zeros))
            return NotImplemented

        with torch.enable_grad(), _calls(note):
            parts = bound.layout.restore(bound.origin[:1])
            parts = tuple(part.detach().requires_grad_() for part in parts)
            outputs = bound.outputs_of(parts, rows)
            kinks = [type(node).__name__ for node in operations(outputs)]
            kinks = [name for name in kinks if _KINKED.fullmatch(name)]
            if not kinks:
                self.lacking = "the network has no kinks"
            elif len(kinks) > len(self._calls):
                self.lacking = f"some kinks have no rule (among {', '.join(sorted(set(kinks)))})"
            # The reading of the score, and what is computed again in the backward pass, count too.
            bound.pulled(outputs, parts, rows)

    @contextmanager
    def _met(self, rows: int, act: Callable[[Sums, _Elementwise | _Pool], Any]) -> Iterator[None]:
        """While open, for one pass: `act` answers each call, given the sums of the same call."""
        at = 0

        def answer(call: _Elementwise | _Pool) -> Any:
            nonlocal at
            at += 1
            own = self._calls[at - 1] if at <= len(self._calls) else None
            if own is None or tuple(call.input.shape) != (rows, *own.shape):
                self.lacking = DIFFERENT
            return NotImplemented if own is None or self.lacking else act(own, call)

        with _calls(answer):
            yield
        if at != len(self._calls):
            self.lacking = self.lacking or DIFFERENT


@contextmanager
def _calls(answer: Callable[[_Elementwise | _Pool], Any]) -> Iterator[None]:
    """While open, `answer` is asked at each call of a function with a rule, on the graph."""

    def met(kind: type[_Elementwise | _Pool], function: Any, *given: Any, **named: Any) -> Any:
        if "input" in named:
            given = (named.pop("input"), *given)
        call = kind(function, given, named)
        met = call.known and call.input.requires_grad and not computed_again()
        return answer(call) if met else NotImplemented

    rules = {f: partial(met, _Elementwise, f) for f in ACTIVATIONS}
    with Replaced(rules | {f: partial(met, _Pool, f) for f in POOLS}):
        yield
