"""The scalar whose dependence on the input is explained, as a batched function with gradients.

`Score` is a model with a way to read one number per sample off its output. `bind` fixes, at the
clean input, everything that must not change while a map is computed: target, noise level, sample
keys. The bound score works on flat displacements `u` `[B, n]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad import checks
from moreaugrad.arguments import as_args, following, take
from moreaugrad.batching import Chunks
from moreaugrad.layer import resolve, substituted, taken
from moreaugrad.layout import Layout, working_dtype
from moreaugrad.noise import RELATIVE, Draws, Noise, noise_level, sample_keys
from moreaugrad.outputs import Readout, Target, TargetLike, tensor_output

Inputs = Tensor | tuple[Tensor, ...]
ForwardFunc = Callable[..., Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Score:
    """x -> one number per sample.

    `kind`: logit (default), log-probability, probability, margin or cross-entropy of the target.
    `task`: multiclass, binary (a single logit, `[B]` or `[B, 1]`; targets 0 and 1), multilabel
    (a sigmoid each) or regression (kind "logit" only, the plain output); "auto" takes one column
    for binary and more for multiclass.
    `layer`: explain the output of this module (or its name) instead of the input itself, e.g. an
    embedding, where token ids cannot be differentiated.
    `batch_size`: samples x draws in one network pass; None chooses from the input's size.
    """

    model: ForwardFunc = field(kw_only=False)
    kind: str = "logit"
    task: str = "auto"
    layer: str | nn.Module | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        Readout(self.kind, self.task)

    def bind(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        additional_forward_args: object = None,
        ids: Sequence[int] | Tensor | None = None,
    ) -> BoundScore:
        """Fix target (None: the prediction) and keys at the clean input.

        Errors: ValueError or TypeError for inputs that are not finite floating-point tensors with
        one batch size, targets out of range, a model in training mode whose samples depend on
        each other or on chance, or one that cannot process such inputs.
        """
        parts = checks.as_parts(inputs)
        extra = as_args(additional_forward_args)
        checks.check_mode(self.model)
        layer = None if self.layer is None else resolve(self.model, self.layer)
        batch = len(parts[0])
        if layer is not None:
            extra = (*parts, *extra)
            parts = (self._at_layer(layer, extra, batch),)
        else:
            checks.check_floating(parts)
        checks.check_finite("inputs", parts)
        layout = Layout.of(parts)
        origin = layout.flatten([part.detach().to(working_dtype(layout.dtypes)) for part in parts])
        bound = BoundScore(
            model=self.model,
            readout=Readout(self.kind, self.task),
            layer=layer,
            layout=layout,
            args=extra,
            follows=following(extra, batch),
            origin=origin,
            target=Target(torch.zeros(batch, dtype=torch.long, device=origin.device)),
            prediction=torch.zeros(batch, dtype=torch.long, device=origin.device),
            clean=origin[:, 0],
            keys=sample_keys(ids, batch),
            chunks=Chunks.of(self.batch_size, origin),
        )
        return bound.resolved(target)

    def _at_layer(self, layer: nn.Module, args: tuple[object, ...], batch: int) -> Tensor:
        """The layer's clean output, `[B, ...]`."""
        first, follows = args[0], following(args, batch)
        assert isinstance(first, Tensor)

        def output(rows: Tensor) -> Tensor:
            found = taken(self.model, layer, take(args, follows, rows))
            if found.ndim < 2 or len(found) != len(rows):
                raise checks.ModelError(
                    f"layer: expected a module whose output has {len(rows)} rows, one a sample, "
                    f"got shape {tuple(found.shape)}"
                )
            return found

        rows = torch.arange(batch, device=first.device)
        return Chunks.of(self.batch_size, first.flatten(1)).over(rows, output)


@dataclass(frozen=True, kw_only=True, eq=False)
class Smoothed:
    """The Gaussian mean of a score: E f(x + z), z ~ N(0, sigma^2 I), by `samples` draws.

    `sigma` is a share of each sample's own range (max - min of each input) or, with sigma_mode
    "absolute", in the input's units. A score again: `bind` gives the same kind of bound score.
    Source: MoreauGrad section 4.2.
    """

    score: Score = field(kw_only=False)
    sigma: float
    samples: int = 64
    sigma_mode: str = RELATIVE
    noise: Noise = field(default_factory=Noise)

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples: expected at least 1, got {self.samples}")

    def bind(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        additional_forward_args: object = None,
        ids: Sequence[int] | Tensor | None = None,
    ) -> BoundScore:
        """Like `Score.bind`; the noise level too is fixed at the clean input."""
        bound = self.score.bind(inputs, target, additional_forward_args, ids)
        parts = bound.layout.split(bound.origin)
        levels = noise_level(parts, self.sigma, self.sigma_mode)
        if self.sigma == 0:
            return bound
        wide = [level.expand_as(part) for level, part in zip(levels, parts, strict=True)]
        sigma = levels[0].reshape(-1, 1) if len(parts) == 1 else bound.layout.flatten(wide)
        return replace(bound, sigma=sigma, noise=self.noise, samples=self.samples)


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundScore:
    """A score at given samples. Rows are samples; `u` is a displacement `[B, n]` of `origin`."""

    model: ForwardFunc
    readout: Readout
    layer: nn.Module | None
    layout: Layout
    args: tuple[object, ...]
    follows: tuple[bool, ...]
    """Which arguments have one row per sample: told once, for batches shrink."""
    origin: Tensor
    target: Target
    prediction: Tensor
    clean: Tensor
    keys: tuple[int, ...]
    chunks: Chunks
    sigma: Tensor | None = None
    noise: Noise = field(default_factory=Noise)
    samples: int = 1
    baseline: Tensor | None = None
    """What the inputs are compared with `[B, n]`, for methods that follow a change."""
    meter: Callable[[int], None] | None = None
    """Told of the gradient evaluations of every network pass."""

    def __len__(self) -> int:
        return len(self.origin)

    @property
    def passes(self) -> int:
        """Gradient evaluations that one default call of `value_and_grad` costs a sample."""
        return 1 if self.sigma is None else self.samples

    def select(self, rows: Tensor) -> BoundScore:
        """The same score for some of the samples."""
        return replace(
            self,
            args=take(self.args, self.follows, rows),
            origin=self.origin[rows],
            target=self.target.select(rows),
            prediction=self.prediction[rows],
            clean=self.clean[rows],
            keys=tuple(self.keys[row] for row in rows.tolist()),
            sigma=None if self.sigma is None else self.sigma[rows],
            baseline=None if self.baseline is None else self.baseline[rows],
        )

    def resolved(self, target: TargetLike) -> BoundScore:
        """With the target, the prediction and the clean score read off one forward pass."""
        with torch.no_grad():
            outputs = self.in_chunks(
                lambda rows: self._forward(self.layout.restore(self.origin[rows]), rows)
            )
        found, prediction = self.readout.resolve(outputs, target)
        checks.check_finite("the model's outputs", (outputs,))
        return replace(
            self, target=found, prediction=prediction, clean=self.readout.read(outputs, found)
        )

    def value_and_grad(
        self, u: Tensor | None = None, draws: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean over draws of f(x + u + sigma z) `[B]` and of its gradient `[B, n]`."""
        value, grad = self.mean(self.value_and_grad_at, u, draws)
        return value, grad

    def mean(
        self,
        work: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
        u: Tensor | None = None,
        draws: Sequence[int] | None = None,
        width: int = 1,
    ) -> tuple[Tensor, ...]:
        """Means over draws of what `work` makes of inputs x + u + sigma z, `[B, ...]` each.

        `work` takes points `[m, n]` and the samples they belong to `[m]`, and gives tensors
        `[m, ...]`; a point fills `width` places of a network pass, and counts as so many
        evaluations. `draws` are indices; None takes the first `samples` (a plain score has no
        noise and one pass). Sums run over draws in order, so they do not depend on how passes are
        chunked.
        """
        base = self.origin if u is None else self.origin + u
        indices = range(self.passes) if draws is None or self.sigma is None else draws
        count, batch = len(indices), len(self)
        noise = Draws(self.noise, self.keys, base)
        totals: list[Tensor] = []
        at = 0
        while at < count * batch:
            end = min(at + max(1, self.chunks.size // width), count * batch)
            points, spans = base.new_empty(end - at, base.shape[1]), []
            for cell in range(at - at % batch, end, batch):
                low, high = max(at, cell), min(end, cell + batch)
                chunk, rows = slice(low - at, high - at), slice(low - cell, high - cell)
                spans.append((chunk, rows))
                if self.sigma is None:
                    points[chunk] = base[rows]
                else:
                    noise.add(points[chunk], base, self.sigma, indices[cell // batch], rows)
            samples = torch.arange(at, end, device=base.device) % batch
            found = self.chunks.guarded(partial(work, points, samples))
            if found is None:  # out of memory: the chunk size was halved, so start over here
                continue
            totals = totals or [part.new_zeros(batch, *part.shape[1:]) for part in found]
            for chunk, rows in spans:
                for total, part in zip(totals, found, strict=True):
                    total[rows] += part[chunk]
            if self.meter is not None:
                self.meter((end - at) * width)
            at = end
        return tuple(total.div_(count) for total in totals)

    def in_chunks(self, work: Callable[[Tensor], Tensor], width: int = 1) -> Tensor:
        """`work` on rows that fill a network pass, `width` places each; its results, joined."""

        def metered(rows: Tensor) -> Tensor:
            done = work(rows).detach()
            if self.meter is not None:
                self.meter(len(rows) * width)
            return done

        return self.chunks.over(torch.arange(len(self), device=self.origin.device), metered, width)

    def value(self, points: Tensor, rows: Tensor) -> Tensor:
        """f of these samples at other inputs, `points` `[m, n]`: `[m]`, differentiable."""
        return self._value(self.layout.restore(points), rows)

    def value_and_grad_at(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """f of these samples at other inputs, and its gradient: `[m]` and `[m, n]`, one pass."""
        checks.check_recording()
        with torch.enable_grad():
            parts = tuple(part.detach().requires_grad_() for part in self.layout.restore(points))
            scores = self._value(parts, rows)
            with checks.explained(self.layout):
                found = torch.autograd.grad(scores.sum(), parts, allow_unused=True)
        if all(grad is None for grad in found):
            raise checks.ModelError(checks.DETACHED)
        grads = [
            torch.zeros_like(points[:, :1]).expand(-1, size) if grad is None else grad
            for grad, size in zip(found, self.layout.sizes, strict=True)
        ]
        # Sums are kept in the working precision, whatever the network computes in.
        return scores.detach().to(points.dtype), self.layout.flatten(grads).to(points.dtype)

    def outputs(self, points: Tensor, rows: Tensor) -> Tensor:
        """What the model makes of `points` `[m, n]` in these samples' place: `[m, K]`."""
        return self._forward(self.layout.restore(points), rows)

    def read(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """The score `[m]` of such outputs."""
        return self.readout.read(outputs, self.target.select(rows))

    def _value(self, parts: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        scores = self.read(self._forward(parts, rows), rows)
        if torch.is_grad_enabled() and not scores.requires_grad:
            raise checks.ModelError(checks.DETACHED)
        return scores

    def _forward(self, parts: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        args = take(self.args, self.follows, rows)
        with checks.explained(self.layout):
            if self.layer is None:
                output = self.model(*parts, *args)
            else:
                with substituted(self.layer, parts[0]):
                    output = self.model(*args)
        found = tensor_output(output)
        if found.ndim == 0 or len(found) != len(rows):
            raise checks.ModelError(
                f"expected a model output with {len(rows)} rows, one a sample, got shape "
                f"{tuple(found.shape)}: the model must not reduce over the batch"
            )
        return found
