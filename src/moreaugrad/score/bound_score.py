"""A score bound to given samples: a batched function of displacements, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from moreaugrad.score import checks, compiled
from moreaugrad.score.balanced import balanced
from moreaugrad.score.forward import Chunks, autocast_types, call, explained, outside_autocast
from moreaugrad.score.hooks import replaced
from moreaugrad.score.inputs import Layout, take
from moreaugrad.score.noise import Cell, Noise
from moreaugrad.score.outputs import tensor_output
from moreaugrad.score.precision import pulled_back, resolution
from moreaugrad.score.target_functions import numbers_of
from moreaugrad.score.targets import Readout, Target, TargetLike

ForwardFunc = Callable[..., Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundScore:
    """A score at given samples, with target, noise level and sample keys fixed.

    Rows are samples; `origin` `[B, n]` holds the inputs, `u` `[B, n]` a displacement of them.
    """

    model: ForwardFunc
    readout: Readout
    layer: nn.Module | None
    layout: Layout
    args: tuple[object, ...]
    follows: tuple[bool, ...]
    """Which of `args` have one row for each sample; decided once, because batches shrink."""
    origin: Tensor
    target: Target
    prediction: Tensor
    clean: Tensor
    """The score at the inputs, `[B]`."""
    keys: tuple[int, ...]
    chunks: Chunks
    probabilities: Tensor | None = None
    """Of all classes at the inputs, `[B, K]`; None for a regression."""
    sigma: Tensor | None = None
    noise: Noise = field(default=Noise())
    samples: int = 1
    mask: Tensor | None = None
    """Which entries are real, `[B, n]`; the others keep their value and have a zero gradient."""
    baseline: Tensor | None = None
    """What the inputs are compared with `[B, n]`, for methods that follow a change."""
    chosen: Mapping[str, Tensor] = field(default_factory=dict)
    """What was chosen for each sample at the clean input, or measured there, `[B]` each."""
    spent: int = 0
    """Evaluations of each sample that these choices took."""
    references: tuple[float | Tensor, ...] = ()
    """What all samples are compared with, a number or `[M, ...]` for each input, for methods that
    draw from it. With `layer`, tensors are the model's own inputs."""
    meter: Callable[[int], None] | None = None
    """Called with the number of gradient evaluations of every network pass."""
    watch: Callable[[Tensor, Tensor], AbstractContextManager[None]] | None = None
    """Opened around the passes of `block_sums`, with the sample and the block of each row."""
    balanced: bool = False
    """Whether gradients follow the rules of `balanced`: those of values, not second derivatives."""

    def __len__(self) -> int:
        return len(self.origin)

    @property
    def passes(self) -> int:
        """Gradient evaluations for each sample of one default call of `value_and_grad`."""
        return 1 if self.sigma is None else self.samples

    @property
    def rows(self) -> Tensor:
        """The numbers of all samples, `[B]`."""
        return torch.arange(len(self), device=self.origin.device)

    @property
    def resolution(self) -> float:
        """The rounding of the coarsest type of inputs, weights and autocast."""
        types = (*self.layout.dtypes, *autocast_types(self.origin.device))
        return resolution(self.model, types)

    @property
    def reduced(self) -> bool:
        """Whether the network computes in less than single precision, as far as its types show."""
        return self.resolution > torch.finfo(torch.float32).eps

    @property
    def counts(self) -> Tensor:
        """Number of real entries of each sample, `[B]`."""
        if self.mask is None:
            return torch.full_like(self.target.classes, self.layout.size)
        return self.mask.sum(1)

    def check_exact(self) -> None:
        """Errors: ValueError where gradients are not those of the values."""
        if self.balanced:
            raise ValueError(
                "backward: expected 'exact' for curvature, got 'balanced', whose maps are no "
                "gradient of a function"
            )

    def silent(self) -> Tensor:
        """Whether noise was asked for but is zero in a real entry, `[B]`."""
        if self.sigma is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.origin.device)
        quiet = self.sigma == 0
        return (quiet if self.mask is None else quiet & self.mask.bool()).any(1)

    def select(self, rows: Tensor) -> BoundScore:
        """The same score for some of the samples."""
        names = ("origin", "prediction", "clean", "probabilities", "sigma", "mask", "baseline")
        tensors: dict[str, Any] = {name: getattr(self, name) for name in names}
        taken: dict[str, Any] = {
            name: None if found is None else found[rows] for name, found in tensors.items()
        }
        return replace(
            self,
            args=take(self.args, self.follows, rows),
            target=self.target.select(rows),
            keys=tuple(self.keys[row] for row in rows.tolist()),
            chosen={name: found[rows] for name, found in self.chosen.items()},
            **taken,
        )

    def moved(self, origin: Tensor) -> BoundScore:
        """The same score, target, noise level and keys around other inputs `[B, n]`."""
        return replace(self, origin=origin)

    def clean_outputs(self) -> Tensor:
        """The model's outputs at the bound inputs, `[B, K, ...]`."""
        try:
            with torch.no_grad():
                return self.in_chunks(lambda rows: self.outputs(self.origin[rows], rows))
        except RuntimeError as error:
            if "Sizes of tensors must match" not in str(error):
                raise
            raise checks.ModelError(
                "expected outputs of the same shape from every pass, but it depends on the number "
                f"of samples ({error})"
            ) from error

    def resolved(self, outputs: Tensor, target: TargetLike) -> BoundScore:
        """The same with target, prediction and clean score, read off the clean outputs."""
        # -inf is a class that is switched off, as long as it is not the one explained.
        on = outputs.masked_fill(outputs == -torch.inf, 0)
        checks.check_finite("the model's outputs", (on,))
        function = self.target.function
        found, prediction = self.readout.resolve(outputs, target if function is None else function)
        clean = self.readout.read(outputs, found)
        own = Readout(task=self.readout.task).read(outputs, found)
        checks.check_finite("the model's score of the target", (own, clean))
        probabilities = self.readout.probabilities(outputs, found.positions)
        return replace(
            self, target=found, prediction=prediction, clean=clean, probabilities=probabilities
        )

    def value_and_grad(
        self, u: Tensor | None = None, draws: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean over noise samples z of f(x + u + sigma z) `[B]`, and of its gradient `[B, n]`.

        draws: indices of the noise samples; None takes the first `samples`.
        """
        value, grad = self.mean(self.value_and_grad_at, u, draws)
        return value, grad

    def grad(self, u: Tensor | None = None, draws: Sequence[int] | None = None) -> Tensor:
        """The mean gradient of `value_and_grad`, without that of the value."""
        return self.mean(lambda *at: self.value_and_grad_at(*at)[1:], u, draws)[0]

    def mean(
        self,
        work: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
        u: Tensor | None = None,
        draws: Sequence[int] | None = None,
        width: int = 1,
    ) -> tuple[Tensor, ...]:
        """Means over noise samples z of `work` at the inputs x + u + sigma z, `[B, ...]` each.

        work: takes points `[m, n]` and the samples `[m]` that they belong to, and returns tensors
        `[m, ...]`. width: places in a network pass that one point fills, and evaluations that it
        counts as. draws: as for `value_and_grad`; a score without noise has one pass. Sums run over
        noise samples in order, so they do not depend on the size of chunks.
        """
        indices = range(self.passes) if draws is None or self.sigma is None else draws
        sums = self.block_sums(work, u, indices, width, len(indices))
        return tuple(total[0].div_(len(indices)) for total in sums)

    def block_sums(
        self,
        work: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
        u: Tensor | None,
        indices: Sequence[int],
        width: int,
        size: int,
    ) -> tuple[Tensor, ...]:
        """Like `mean`, but sums of each `size` consecutive noise samples: `[blocks, B, ...]`."""
        base = self.origin if u is None else self.origin + u
        count, batch = len(indices), len(self)
        add_noise = None
        if self.sigma is not None:
            add_noise = self.noise.adder(self.keys, base, self.sigma, self.mask)
        totals: list[Tensor] = []
        at = 0
        while at < count * batch:
            end = min(at + max(1, self.chunks.size // width), count * batch)
            places = torch.arange(at, end, device=base.device)
            samples = places % batch
            blocks_of = places // batch // size
            cells = _cells(at, end, batch)
            if add_noise is None:
                points = base[samples]
            else:
                points = base.new_empty(end - at, base.shape[1])
                add_noise(points, [(place, indices[draw], rows) for place, draw, rows in cells])
            found = self.chunks.guarded(partial(self._watched, work, points, samples, blocks_of))
            if found is None:  # out of memory: the chunk size was halved, so start over here
                continue
            blocks = -(-count // size)
            totals = totals or [part.new_zeros(blocks, batch, *part.shape[1:]) for part in found]
            for place, draw, rows in cells:
                for total, part in zip(totals, found, strict=True):
                    total[draw // size, rows].add_(part[place])
            if self.meter is not None:
                self.meter((end - at) * width)
            at = end
        return tuple(totals)

    def _watched(
        self,
        work: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
        points: Tensor,
        samples: Tensor,
        blocks: Tensor,
    ) -> tuple[Tensor, ...]:
        with nullcontext() if self.watch is None else self.watch(samples, blocks):
            return work(points, samples)

    def in_chunks(self, work: Callable[[Tensor], Tensor], width: int = 1) -> Tensor:
        """The joined results of `work` on chunks of rows, `width` places of a pass each."""

        def metered(rows: Tensor) -> Tensor:
            done = work(rows).detach()
            if self.meter is not None:
                self.meter(len(rows) * width)
            return done

        return self.chunks.over(self.rows, metered, width)

    def scores(self, points: Tensor) -> Tensor:
        """f at other inputs `[B, n]` of all samples, without gradients and not metered: `[B]`."""
        unmetered = replace(self, meter=None)
        with torch.no_grad():
            return unmetered.in_chunks(lambda rows: self.value(points[rows], rows))

    def value(self, points: Tensor, rows: Tensor) -> Tensor:
        """f of these samples at other inputs, `points` `[m, n]`: `[m]`, differentiable."""
        scores = self.read(self.outputs(points, rows), rows)
        if torch.is_grad_enabled() and not scores.requires_grad:
            raise checks.detached()
        return scores

    def value_and_grad_at(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """f of these samples at other inputs, and its gradient: `[m]` and `[m, n]`, one pass."""
        checks.check_recording()
        model = self.model
        if self.layer is not None or self.balanced or not compiled.usable(model):
            return self._value_and_grad_at(points, rows)
        size = compiled.padded(len(points), self.chunks.size, points.device)
        places = torch.arange(size, device=points.device).clamp_max(len(points) - 1)
        work = partial(self._value_and_grad_at, points[places], rows[places])
        value, grad = compiled.with_compiled(model, work)
        return value[: len(points)], grad[: len(points)]

    def _value_and_grad_at(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        with outside_autocast(points.device), torch.enable_grad():
            parts = tuple(part.detach().requires_grad_() for part in self.layout.restore(points))
            scores, found = self.pulled(self.outputs_of(parts, rows), parts, rows)
        if all(grad is None for grad in found):
            raise checks.detached()
        grads = [
            torch.zeros_like(points[:, :1]).expand(-1, size) if grad is None else grad
            for grad, size in zip(found, self.layout.sizes, strict=True)
        ]
        # Sums are kept in the working precision, whatever the network computes in.
        return scores.to(points.dtype), self.layout.flatten(grads).to(points.dtype)

    def pulled(
        self, outputs: Tensor, inputs: Sequence[Tensor | GradientEdge], rows: Tensor
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """The scores `[m]` of outputs, and their gradients by the inputs of these outputs."""
        if not outputs.requires_grad:
            raise checks.detached()
        rules = balanced(outputs, inputs) if self.balanced else nullcontext()
        with explained(self.layout), rules:
            return pulled_back(outputs, inputs, partial(self.read, rows=rows))

    def outputs(self, points: Tensor, rows: Tensor) -> Tensor:
        """The model's outputs `[m, K]`, or the numbers `[m, 1]` of the function that is the target,
        with `points` `[m, n]` as inputs of these samples."""
        return self.outputs_of(self.layout.restore(points), rows)

    def read(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """The score `[m]` of these samples' outputs."""
        return self.readout.read(outputs, self.target.select(rows))

    def outputs_of(self, parts: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        """`outputs` for inputs in their own shapes, `[m, *shape]` each."""
        args = take(self.args, self.follows, rows)
        if self.mask is not None:
            held, real = self.layout.restore(self.origin[rows]), self.layout.split(self.mask[rows])
            parts = tuple(map(torch.where, real, parts, held))
        if self.layer is None:
            output = call(self.model, *parts, *args, layout=self.layout)
        else:
            with replaced(self.layer, lambda _: parts[0]):
                output = call(self.model, *args, layout=self.layout)
        whole = self.target.function
        if whole is not None and (function := self.target.select(rows).function) is not None:
            return numbers_of(function, output, len(rows))
        found = tensor_output(output)
        if found.ndim == 0 or len(found) != len(rows):
            raise checks.ModelError(
                f"expected a model output with {len(rows)} rows, one a sample, got shape "
                f"{tuple(found.shape)}: the model must not reduce over the batch"
            )
        return found


def _cells(start: int, stop: int, batch: int) -> list[Cell]:
    """What a chunk of all noise samples, each over the whole batch, has of each noise sample."""
    cells = []
    for sample in range(start // batch, -(-stop // batch)):
        first = sample * batch
        low, high = max(start, first), min(stop, first + batch)
        cells.append((slice(low - start, high - start), sample, slice(low - first, high - first)))
    return cells
