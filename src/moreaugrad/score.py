"""The scalar whose dependence on the input is explained, as a batched function with gradients.

`Score` is a model with a way to read one number per sample off its output. `bind` fixes, at the
clean input, everything that must not change while a map is computed: target, noise level, sample
keys. The bound score works on flat displacements `u` `[B, n]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from moreaugrad import checks
from moreaugrad.arguments import as_args, following, take
from moreaugrad.batching import Chunks
from moreaugrad.bound import BoundScore, ForwardFunc
from moreaugrad.layer import resolve, taken
from moreaugrad.layout import Layout, working_dtype
from moreaugrad.masking import MaskLike, flat_mask
from moreaugrad.noise import RELATIVE, Noise, noise_level, sample_keys
from moreaugrad.outputs import Readout, Target, TargetLike

Inputs = Tensor | tuple[Tensor, ...]


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
        mask: MaskLike = None,
    ) -> BoundScore:
        """Fix target (None: the prediction), keys and mask at the clean input.

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
            mask=flat_mask(mask, layout, origin),
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
    Source: MoreauGrad proposition 1, Algorithm 1.
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
        mask: MaskLike = None,
    ) -> BoundScore:
        """Like `Score.bind`; the noise level too is fixed at the clean input."""
        bound = self.score.bind(inputs, target, additional_forward_args, ids, mask)
        parts = bound.layout.split(bound.origin)
        real = None if bound.mask is None else bound.layout.split(bound.mask)
        levels = noise_level(parts, self.sigma, self.sigma_mode, real)
        if self.sigma == 0:
            return bound
        wide = [level.expand_as(part) for level, part in zip(levels, parts, strict=True)]
        sigma = levels[0].reshape(-1, 1) if len(parts) == 1 else bound.layout.flatten(wide)
        if bound.mask is not None:
            sigma = sigma * bound.mask
        return replace(bound, sigma=sigma, noise=self.noise, samples=self.samples)
