"""The score that is explained: one number for each sample, as a batched function with gradients.

`Score` is a model with a way to read one number for each sample off its output. `bind` fixes at the
clean input what must not change while a map is computed: target, noise level and sample keys. The
result, a `BoundScore`, works on flat displacements `u` `[B, n]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations

import torch
from torch import Tensor, nn

from moreaugrad.score import checks
from moreaugrad.score.behaviour import check_behaviour, untouched
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.checks import as_args
from moreaugrad.score.forward import Chunks
from moreaugrad.score.hooks import resolve, taken
from moreaugrad.score.inputs import Layout, MaskLike, flat_mask, take, working_dtype
from moreaugrad.score.noise import RELATIVE, Noise, noise_level, sample_keys
from moreaugrad.score.targets import REGRESSION, Readout, Target, TargetLike
from moreaugrad.settings import expect

Inputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Score(Readout):
    """x -> one number for each sample, or its Gaussian mean E f(x + z), z ~ N(0, sigma^2 I).

    >>> found = mg.Score(model, sigma=0.1, samples=8).bind(x).value_and_grad()

    Source of the mean: MoreauGrad proposition 1, Algorithm 1.
    """

    model: ForwardFunc = field(kw_only=False)
    """A torch module, or a function of the inputs."""
    layer: str | nn.Module | None = None
    """Explain the output of this module (or its name) instead of the input, e.g. of an embedding,
    because token ids cannot be differentiated."""
    batch_size: int | None = None
    """Samples times noise samples in one network pass; None chooses by the input's size."""
    check: bool = True
    """Test by about two forward passes of one sample whether the model is a function of each sample
    alone, and refuse it if it is not."""
    sigma: float = 0.0
    """Standard deviation of the noise, as a fraction of each input's own range (max - min); with
    sigma_mode "absolute" in the input's units. 0 is the score itself."""
    samples: int = 64
    """Number of noise samples of the mean."""
    sigma_mode: str = RELATIVE
    """Units of `sigma`: "relative" or "absolute"."""
    noise: Noise = field(default=Noise())
    """Source of the noise samples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.model):
            inner = isinstance(getattr(self.model, "module", None), nn.Module)
            raise TypeError(
                "model: expected a torch module or a function of the inputs, got "
                f"{type(self.model).__name__}{'; give its .module' if inner else ''}"
            )
        expect(self.samples >= 1, "samples", "at least 1", self.samples)
        noise_level([], self.sigma, self.sigma_mode)  # checks them

    def bind(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        additional_forward_args: object = None,
        ids: Sequence[int] | Tensor | None = None,
        mask: MaskLike = None,
    ) -> BoundScore:
        """Fix target (None: the prediction), noise level, keys and mask at the clean input.

        A target that is a function of the model's output makes the score its number, a regression
        whatever `task` is.
        Errors: ValueError or TypeError for inputs that are not finite floating-point tensors with
        one batch size, and targets out of range; ModelError for a model that cannot process
        such inputs, changes them, or whose samples depend on each other or on chance.
        """
        parts = checks.as_parts(inputs)
        args = as_args(additional_forward_args)
        checks.check_mode(self.model)
        begun = Target.begun(target, len(parts[0]), parts[0].device)
        fixed = partial(self._bound, parts, args, ids, mask, begun)
        choices = _readings(args, len(parts[0]))
        if not self.check:
            bound = fixed(choices[0])
            return self._smoothed(bound.resolved(bound.clean_outputs(), target))
        with untouched(parts[0].device):
            bound, outputs = _checked(fixed, choices)
        return self._smoothed(bound.resolved(outputs, target))

    def _smoothed(self, bound: BoundScore) -> BoundScore:
        """The score with noise at the level of the clean inputs."""
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

    def _bound(
        self,
        parts: tuple[Tensor, ...],
        args: tuple[object, ...],
        ids: Sequence[int] | Tensor | None,
        mask: MaskLike,
        target: Target,
        follows: tuple[bool, ...],
    ) -> BoundScore:
        """The score before its outputs are known. follows: which arguments have one row for each
        sample."""
        layer = None if self.layer is None else resolve(self.model, self.layer)
        batch = len(parts[0])
        if layer is not None:
            args, follows = (*parts, *args), (*(True for _ in parts), *follows)
            parts = (self._at_layer(layer, args, follows, batch),)
        else:
            checks.check_floating(parts)
        checks.check_finite("inputs", parts)
        layout = Layout.of(parts)
        origin = layout.flatten([part.detach().to(working_dtype(layout.dtypes)) for part in parts])
        return BoundScore(
            model=self.model,
            # A function of the output is a regression: it has one number and no classes.
            readout=self if target.function is None else replace(self, task=REGRESSION),
            layer=layer,
            layout=layout,
            args=args,
            follows=follows,
            origin=origin,
            target=target,
            prediction=target.classes,
            clean=origin[:, 0],
            keys=sample_keys(ids, batch),
            chunks=Chunks.of(self.batch_size, origin),
            mask=flat_mask(mask, layout, origin),
        )

    def _at_layer(
        self, layer: nn.Module, args: tuple[object, ...], follows: tuple[bool, ...], batch: int
    ) -> Tensor:
        """The layer's clean output, `[B, ...]`."""
        first = args[0]
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


def _checked(
    fixed: Callable[[tuple[bool, ...]], BoundScore], choices: Sequence[tuple[bool, ...]]
) -> tuple[BoundScore, Tensor]:
    """A score and its clean outputs, for the right reading of the further arguments.

    An argument as long as the batch has one row for each sample, or has this length by chance: the
    first reading under which samples do not depend on each other is right.
    """
    for follows in choices if len(choices) > 1 else ():
        with suppress(checks.ModelError):
            return _tried(fixed(follows), any_size=True)
    return _tried(fixed(choices[0]), any_size=False)


def _tried(bound: BoundScore, *, any_size: bool) -> tuple[BoundScore, Tensor]:
    outputs = bound.clean_outputs()
    bound.chunks.fit(check_behaviour(bound, outputs, any_size=any_size))
    return bound, outputs


_MOST = 3
"""Largest number of arguments for which all readings are tried."""


def _readings(args: tuple[object, ...], batch: int) -> list[tuple[bool, ...]]:
    """Possible choices of the arguments that have one row for each sample.

    The first choice is all arguments as long as the batch; others leave some of them out, because
    an argument that all samples share may have this length by chance.
    """
    first = [isinstance(arg, Tensor) and arg.ndim > 0 and len(arg) == batch for arg in args]
    own = [index for index, follows in enumerate(first) if follows]
    if len(own) <= _MOST:
        shared = [set(some) for n in range(len(own) + 1) for some in combinations(own, n)]
    else:
        shared = [set(), set(own)]
    return [tuple(f and i not in some for i, f in enumerate(first)) for some in shared]
