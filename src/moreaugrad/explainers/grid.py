"""Which axes of a layer's output are positions of the input, and which axis has the channels.

Shapes do not say: a square image may be transposed on the way, channels may come first or last, and
transformers have one axis of tokens. So the network itself is tested. An axis that grows with
exactly one axis of the input follows that axis. If the network takes inputs of one size only, the
gradient by the input shows which region each index of an axis depends on. A layer for which neither
test is clear is refused.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moreaugrad.score import checks
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.forward import call
from moreaugrad.score.hooks import hooked
from moreaugrad.score.inputs import Shape, take

EXTRA_TOKENS = 8
"""Most class, distillation and register tokens, before or after those of the grid."""
CLEAR = 0.4
"""Least distance of the regions that two ends of an axis depend on, over the input's axis."""
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Grid:
    """The meaning of the axes of a layer's output, counted without the batch."""

    channel: int
    """The axis with the channels."""
    follows: Mapping[int, int]
    """For each axis of positions, the axis of the input that it follows."""
    tokens: tuple[int, int, int] | None = None
    """If one axis has the positions of a grid: index of the first token, rows and columns. The keys
    of `follows` are then 0 for rows and 1 for columns."""

    def fold(self, values: Tensor) -> Tensor:
        """`[B, *shape]` as `[B, K, *positions]`, positions in the order of the input's axes."""
        places = sorted(self.follows, key=self.follows.__getitem__)
        if self.tokens is not None:
            first, rows, columns = self.tokens
            grid = values.movedim(self.channel + 1, 1)[:, :, first : first + rows * columns]
            grid = grid.reshape(*grid.shape[:2], rows, columns)
            return grid.permute(0, 1, *(2 + at for at in places))
        axes = [self.channel + 1, *(at + 1 for at in places)]
        alone = [axis for axis in range(1, values.ndim) if axis not in axes]  # one entry each
        return values.permute(0, *axes, *alone).flatten(len(axes))

    def ends(self, place: int, shape: Shape) -> tuple[int, Tensor, Tensor]:
        """For positions along an axis: the output's axis, its first and its last indices."""
        if self.tokens is None:
            every = torch.arange(shape[place], device="cpu")
            return place, every[:1], every[-1:]
        first, rows, columns = self.tokens
        every = torch.arange(first, first + rows * columns, device="cpu")
        index = every.view(rows, columns).movedim(place, 0)
        return 1 - self.channel, index[0], index[-1]

    def enlarged(self, maps: Tensor, shape: Shape) -> Tensor:
        """`[B, *positions]` upsampled to the input's size, equal along its other axes: `[B, n]`."""
        axes = sorted(self.follows.values())
        size = tuple(shape[axis] for axis in axes)
        large = F.interpolate(maps[:, None], size, mode=_MODES[len(axes)])[:, 0]
        wide = [shape[axis] if axis in axes else 1 for axis in range(len(shape))]
        return large.reshape(-1, *wide).expand(-1, *shape).flatten(1)


def grid_of(bound: BoundScore, layer: nn.Module, shape: Shape, first: nn.Module) -> Grid:
    """The grid of a layer's output `[B, *shape]`.

    first: the first module that returned this shape, where positions are least mixed. The layer
    must not contradict what is found there.
    Errors: ValueError for an output without positions, and if neither growth nor gradients are
    clear.
    """
    known = isinstance(layer, _CHANNELS_FIRST)
    if len(shape) < 2 or math.prod(shape[known:]) < 2:
        raise ValueError(
            "cam_layer: expected a layer whose output is [B, channels, positions...] with more "
            f"than one position, got {_named(shape)}"
        )
    found = _completed(_grown(bound, layer, shape), shape, known)
    if found is None:
        found = _Regions(bound, first, shape).grid(known)
        if layer is not first:
            own = _Regions(bound, layer, shape)
            found = found if found is not None and own.agrees(found) else own.grid(known)
    if found is None:
        raise ValueError(
            f"cam_layer: cannot tell which axes of the layer's output {_named(shape)} are channels "
            f"and which are positions of the input {_named(bound.layout.shapes[0])}; name a module "
            "whose output is [B, channels, positions...], [B, positions..., channels] or "
            "[B, tokens, channels]"
        )
    if len(found.follows) not in _MODES:
        raise ValueError(f"cam_layer: expected 1 to 3 axes of positions, got {len(found.follows)}")
    return found


def _named(shape: Sequence[object]) -> str:
    return f"[{', '.join(str(size) for size in ('B', *shape))}]"


_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
)


def _completed(follows: Mapping[int, int] | None, shape: Shape, known: bool) -> Grid | None:
    """The grid, if one axis remains for the channels, or if they are `known` to be the first."""
    if not follows or len(set(follows.values())) < len(follows):
        return None
    left = [axis for axis in range(len(shape)) if axis not in follows]
    several = [axis for axis in left if shape[axis] > 1]
    if known:
        return Grid(0, dict(follows)) if set(several) <= {0} <= set(left) else None
    channel = several or left
    return Grid(channel[0], dict(follows)) if len(channel) == 1 else None


def _grown(bound: BoundScore, layer: nn.Module, shape: Shape) -> dict[int, int] | None:
    """Which axes of the layer's output grow with which axis of the input, if the input may grow.

    Further arguments of the input's shape, such as a second image, grow with it. None if one axis
    of the input changes several axes, or an axis that another one changed.
    """
    (sample,) = bound.layout.restore(bound.origin[:1])
    args = take(bound.args, bound.follows, torch.zeros_like(bound.target.classes[:1]))
    follows: dict[int, int] = {}
    for axis in range(sample.ndim - 1):
        grown = tuple(
            torch.cat((part, part), axis + 1)
            if isinstance(part, Tensor) and part.shape == sample.shape
            else part
            for part in (sample, *args)
        )
        with torch.no_grad():
            kept = _output_of(bound, layer, grown)
        if kept is None or kept.ndim != len(shape) + 1:
            continue
        changed = [
            place
            for place, (now, before) in enumerate(zip(kept.shape[1:], shape, strict=True))
            if now != before
        ]
        if len(changed) > 1 or any(place in follows for place in changed):
            return None
        follows.update(dict.fromkeys(changed, axis))
    return follows


class _Reached(Exception):
    """Ends a forward pass at the layer."""


def _output_of(
    bound: BoundScore,
    layer: nn.Module,
    args: tuple[object, ...],
    work: Callable[[Tensor], Tensor] = Tensor.detach,
) -> Tensor | None:
    """`work(output)` of the layer in a pass that ends there; None if the pass fails."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Any) -> None:
        kept.append(work(output))
        raise _Reached

    with hooked({}, {layer: keep}), suppress(checks.ModelError, MemoryError, RuntimeError):
        call(bound.model, *args)
    return kept[0] if kept else None


class _Regions:
    """The regions of the input that entries of a layer's output depend on, by their gradients."""

    def __init__(self, bound: BoundScore, layer: nn.Module, shape: Shape) -> None:
        self.bound, self.layer, self.shape = bound, layer, shape
        self.sample = bound.layout.shapes[0]

    def apart(self, pairs: Sequence[tuple[int, Tensor, Tensor]]) -> Tensor:
        """Distance between the regions of an axis's entries `low` and `high`, for each triple,
        along each axis of the input and as a fraction of it: `[pairs, axes]`."""
        masks = torch.zeros(2 * len(pairs), *self.shape, device="cpu")
        for row, (axis, low, high) in enumerate(pairs):
            masks[2 * row].index_fill_(axis, low, 1)
            masks[2 * row + 1].index_fill_(axis, high, 1)
        # Random signs, so that entries with a common part do not cancel.
        generator = torch.Generator("cpu").manual_seed(0)
        signs = 2.0 * torch.randint(2, self.shape, generator=generator, device="cpu") - 1
        weights = (masks * signs).to(self.bound.origin.device)
        rows = torch.arange(len(weights), device=self.bound.origin.device)
        centres = self.bound.chunks.over(rows, lambda part: self._centres(weights[part]))
        return centres[1::2] - centres[0::2]

    def _centres(self, weights: Tensor) -> Tensor:
        first = self.bound.target.classes.new_zeros(len(weights))
        points = self.bound.origin[first].requires_grad_()
        args = take(self.bound.args, self.bound.follows, first)
        with torch.enable_grad():
            total = _output_of(
                self.bound, self.layer, (*self.bound.layout.restore(points), *args),
                lambda output: (output * weights.to(output.dtype)).sum(),
            )  # fmt: skip
        unknown = points.new_full((len(points), len(self.sample)), torch.nan).double()
        if total is None or not total.requires_grad:
            return unknown
        (gradient,) = torch.autograd.grad(total, points, allow_unused=True)
        if gradient is None:
            return unknown
        size = gradient.double().abs().view(-1, *self.sample)
        size = (size / size.amax()).square()
        for axis, length in enumerate(self.sample):
            along = size.movedim(axis + 1, 1).reshape(len(size), length, -1).sum(2)
            place = torch.linspace(0, 1, length, dtype=along.dtype, device=along.device)
            unknown[:, axis] = (along * place).sum(1) / along.sum(1)
        return unknown

    def grid(self, known: bool) -> Grid | None:
        halves = self._halves(known)
        return self._tokens(halves) or _completed(self._axes(halves), self.shape, known)

    def agrees(self, grid: Grid) -> bool:
        """Whether no axis clearly contradicts the grid: mixing weakens the order of positions."""
        pairs = [grid.ends(place, self.shape) for place in grid.follows]
        shifts = zip(self.apart(pairs), grid.follows.values(), strict=True)
        return all(
            bool((shift.abs() < CLEAR / 2).all()) or int(shift.argmax()) == axis
            for shift, axis in shifts
        )

    def _halves(self, known: bool) -> dict[int, int | None]:
        """For each axis of several entries, the input's axis along which its halves lie apart.

        None: along none, or it is the first axis, `known` to have the channels. An axis for which
        this is not clear is left out.
        """
        axes = [axis for axis in _wide(self.shape) if axis >= known]
        pairs = []
        for axis in axes:
            every = torch.arange(self.shape[axis], device="cpu")
            half = len(every) // 2
            pairs.append((axis, every[:half], every[-half:]))
        found: dict[int, int | None] = {0: None} if known else {}
        for axis, shift in zip(axes, self.apart(pairs), strict=True):
            along = _along(shift, CLEAR / 2)
            if along is not None or bool((shift.abs() < CLEAR / 2).all()):
                found[axis] = along
        return found

    def _axes(self, halves: Mapping[int, int | None]) -> dict[int, int] | None:
        """The axes that follow one axis of the input, if all are clear. (The ends of an axis of
        tokens lie apart along two axes of the input.)"""
        follows = {axis: along for axis, along in halves.items() if along is not None}
        known = halves.keys() >= set(_wide(self.shape))
        if not follows or not known or len(self.shape) > len(self.sample) + 1:
            return None
        pairs = [Grid(0, follows).ends(axis, self.shape) for axis in follows]
        apart = [_along(shift, CLEAR) for shift in self.apart(pairs)]
        return follows if apart == list(follows.values()) else None

    def _tokens(self, halves: Mapping[int, int | None]) -> Grid | None:
        """The clearest grid of an axis of tokens, among all that its length allows."""
        wide = _wide(self.shape)
        if len(self.shape) != 2 or len(wide) != 2:
            return None
        pairs: list[tuple[int, Tensor, Tensor]] = []
        grids: list[Grid] = []
        for axis, down in halves.items():
            if down is None:
                continue
            for right, (first, rows, columns) in _guesses(self.shape[axis], self.sample, down):
                grid = Grid(1 - axis, {0: down, 1: right}, (first, rows, columns))
                pairs += [grid.ends(place, self.shape) for place in grid.follows]
                grids.append(grid)
        if not grids:
            return None
        apart = self.apart(pairs)
        best: tuple[float, Grid] | None = None
        for grid, rows_apart, columns_apart in zip(grids, apart[0::2], apart[1::2], strict=True):
            found = {0: _along(rows_apart, CLEAR), 1: _along(columns_apart, CLEAR)}
            clear = float(torch.minimum(rows_apart.amax(), columns_apart.amax()))
            if found == grid.follows and (best is None or clear > best[0]):
                best = clear, grid
        return None if best is None else best[1]


def _along(shift: Tensor, least: float) -> int | None:
    """The axis of the input with a shift of at least `least`, if no other has a third of it."""
    axis = int(shift.argmax())
    others = torch.cat((shift[:axis], shift[axis + 1 :])).abs()
    clear = bool(shift[axis] >= least) and bool((others < shift[axis] / 3).all())
    return axis if clear else None


def _wide(shape: Shape) -> list[int]:
    return [axis for axis, size in enumerate(shape) if size > 1]


def _guesses(length: int, sample: Shape, down: int) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Grids that `length` tokens may form, with rows along the input's axis `down`: the axis that
    columns follow; and the first token, rows and columns. Cells are about square."""
    for extra, right in itertools.product(range(EXTRA_TOKENS + 1), range(len(sample))):
        for rows in range(2, min(sample[down], (length - extra) // 2) + 1):
            columns, odd = divmod(length - extra, rows)
            cell = (sample[down] / rows) / (sample[right] / columns)
            if right != down and not odd and columns <= sample[right] and 0.8 < cell < 1.25:
                yield from ((right, (first, rows, columns)) for first in {extra, 0})
