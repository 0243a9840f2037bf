"""Expected gradients: contributions relative to baselines that are drawn from data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from moreaugrad.explainers.comparing import Comparing
from moreaugrad.explainers.derivatives import IMPLICIT, gradient_and_product
from moreaugrad.score import checks
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.hooks import taken
from moreaugrad.score.inputs import take
from moreaugrad.score.noise import Stream, generator
from moreaugrad.score.score import Inputs
from moreaugrad.settings import expect
from moreaugrad.solvers.block_means import BlockMeans
from moreaugrad.solvers.blocks import FEWEST, MOST, relative
from moreaugrad.solvers.solution import Solution, Status
from moreaugrad.solvers.z_scores import Measured

GAP = "gap"
"""The detail that says what the contributions' sum exceeds the score's change by."""
BEYOND_CHANCE = 5.0
"""Standard errors that the sum of the contributions may miss the score's change by."""


@dataclass(frozen=True, eq=False)
class _Part:
    """Points on the lines, of some of the draws: all samples at each draw in turn, `[m B, ...]`.

    bound: the score at them. baseline, change: x' and x - x', `[m B, n]`. alpha: `[m B, 1]`.
    """

    draws: range
    bound: BoundScore
    baseline: Tensor
    change: Tensor
    alpha: Tensor


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ExpectedGradients(Comparing):
    """A = the mean of (x - x') * grad f(x' + alpha (x - x')) over baselines x' and alpha in [0, 1].

    >>> maps = mg.ExpectedGradients(model, baselines=x.flip(-1), samples=8).attribute(x)

    x' is drawn from `baselines`, alpha uniformly: integrated gradients, averaged over what an input
    could have been instead of one baseline. The explanation's error is the standard error of this
    mean. Details: `gap`, sum A - (f(x) - mean f(x')) over the baselines drawn, zero but for chance
    if A is complete; and its standard error `gap_error`. A gap of more than five of these makes the
    status "incomplete": the gradient is not that of the score.

    Source: Erion et al. (2021). Differs: a sample is compared with different baselines first, and
    alpha is stratified (Latin hypercube samples of a few draws each).
    """

    baselines: float | Tensor | tuple[float | Tensor, ...] = 0.0
    """What x' is drawn from, best inputs of the training set: `[M, ...]`, a tuple for several
    inputs. A number is the single baseline with that value at all entries."""
    samples: int = 64
    """Number of draws of a baseline and an alpha."""
    times_input: bool = True
    """Multiply by x - x'; False gives the mean gradient alone."""
    seed: int = 0
    """Random seed; draws are a function of (seed, id of the sample, numbers of draws and
    baselines)."""

    setting: ClassVar[str] = "baselines"
    method: ClassVar[str] = "expected-gradients"
    derivatives: ClassVar[tuple[str, ...]] = (IMPLICIT,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.baselines, (int, float, Tensor, tuple)):
            raise TypeError(
                "baselines: expected a number, a tensor [M, ...] or a tuple of these, got "
                f"{type(self.baselines).__name__}"
            )
        expect(self.samples >= 1, "samples", "at least 1", self.samples)
        expect(0 <= self.seed < 2**63, "seed", "an integer from 0 to 2^63 - 1", self.seed)

    def _compared(self, bound: BoundScore, inputs: Inputs, given: Any) -> BoundScore:
        own = inputs if isinstance(inputs, tuple) else (inputs,)
        if not isinstance(given, tuple):
            given = (given,) * (1 if isinstance(given, Tensor) else len(bound.layout.shapes))
        like = own if _through(bound.layer, given) else bound.layout.split(bound.origin)
        return replace(bound, references=_checked(given, like))

    def _plain(self, value: object) -> object:
        if isinstance(value, (Tensor, tuple)):
            parts = value if isinstance(value, tuple) else (value,)
            return f"{_count(parts)} given"
        return super()._plain(value)

    def _draws(self) -> int:
        return self.samples

    def fixed(self, draws: int) -> Self:
        return replace(self, samples=min(self.samples, draws))

    @property
    def _blocks(self) -> list[range]:
        """The draws of each Latin hypercube sample; their means are independent."""
        size = -(-self.samples // MOST)
        return [range(at, min(at + size, self.samples)) for at in range(0, self.samples, size)]

    def _maps(self, bound: BoundScore) -> Solution:
        blocks, batch = self._blocks, len(bound)
        terms = bound.origin.new_zeros(len(blocks), *bound.origin.shape)
        gaps = terms.new_zeros(len(blocks), batch, 1)
        here = bound.clean.to(terms)
        extent = here.abs()
        for part in self._parts(bound):
            _, gradient = part.bound.value_and_grad()
            start = part.bound.scores(part.baseline).to(terms).view(-1, batch)
            contributions = part.change * gradient
            total = contributions.double().sum(1).to(terms).view(-1, batch)
            added = contributions if self.times_input else gradient
            missing = total - (here - start)
            for place, draw in enumerate(part.draws):
                block = draw // len(blocks[0])
                terms[block] += added.view(-1, *bound.origin.shape)[place] / len(blocks[block])
                gaps[block] += missing[place, :, None] / len(blocks[block])
                extent = extent + start[place].abs() / self.samples
        means = BlockMeans(blocks, terms, self.samples, bound.mask)
        gap = BlockMeans(blocks, gaps, self.samples)
        error = relative(means.error(lambda mean: mean), means.mean)
        found = Solution.direct(means.mean, self.samples, Status.FIXED_BUDGET, error)
        missed, doubt = gap.mean[:, 0], gap.error(lambda mean: mean)
        details = {GAP: missed, "gap_error": doubt}
        found = replace(found, z_scores=means.z_scores(Measured), details=details)
        found = means.marked(found)
        if len(blocks) < FEWEST:
            return found
        # A change that the network's precision cannot resolve is none.
        coarsest = max(torch.finfo(part).eps for part in bound.layout.dtypes)
        incomplete = missed.abs() > BEYOND_CHANCE * doubt + coarsest**0.5 * extent
        return found.marked(Status.INCOMPLETE, incomplete)

    def _pull(self, bound: BoundScore, maps: Solution, cotangent: Tensor, through: str) -> Tensor:
        """c * mean g + mean alpha H ((x - x') * c) over the points x' + alpha (x - x')."""
        total = torch.zeros_like(cotangent)
        for part in self._parts(bound):
            along = cotangent.repeat(len(part.draws), 1)
            v = part.change * along if self.times_input else along
            gradient, product = gradient_and_product(part.bound, v)
            pulled = part.alpha * product
            if self.times_input:
                pulled = pulled + along * gradient
            total += pulled.view(-1, *cotangent.shape).sum(0)
        return total / self.samples

    def _parts(self, bound: BoundScore) -> Iterator[_Part]:
        """All draws, as many at once as fill a network pass."""
        count, keys = _count(bound.references), bound.keys
        own = {key: _drawn(self.seed, key, self._blocks, count) for key in dict.fromkeys(keys)}
        alphas = torch.stack([own[key][0] for key in keys], 1).to(bound.origin)
        numbers = torch.stack([own[key][1] for key in keys], 1)
        many = max(1, bound.chunks.size // len(bound))
        for at in range(0, self.samples, many):
            draws = range(at, min(at + many, self.samples))
            chosen = slice(draws.start, draws.stop)
            wide = bound.select(bound.rows.repeat(len(draws)))
            baseline = _baselines(wide, numbers[chosen].flatten())
            alpha, change = alphas[chosen].reshape(-1, 1), wide.origin - baseline
            yield _Part(draws, wide.moved(baseline + alpha * change), baseline, change, alpha)


def _drawn(seed: int, key: int, blocks: Sequence[range], count: int) -> tuple[Tensor, Tensor]:
    """alpha and the number of the baseline at each draw of one sample.

    In a block alpha is once in each of as many parts of [0, 1], and no baseline comes again before
    all have come. A draw by itself is uniform in both.
    """
    alphas, numbers = [], []
    for place, block in enumerate(blocks):
        source, draws = generator(seed, key, Stream.LINE, place), len(block)
        alphas.append((source.permutation(draws) + source.random(draws)) / draws)
        rounds = [source.permutation(count) for _ in range(-(-draws // count))]
        numbers.append(np.concatenate(rounds)[:draws])
    return torch.from_numpy(np.concatenate(alphas)), torch.from_numpy(np.concatenate(numbers))


def _baselines(bound: BoundScore, numbers: Tensor) -> Tensor:
    """x' of each sample, `[B, n]`: the baselines with these numbers `[B]`."""
    given = bound.references
    if _through(bound.layer, given):
        assert bound.layer is not None
        like = bound.args[: len(given)]
        args = (*_chosen(given, like, numbers), *bound.args[len(given) :])
        layer, flatten = bound.layer, bound.layout.flatten

        def output(rows: Tensor) -> Tensor:
            return flatten([taken(bound.model, layer, take(args, bound.follows, rows))])

        flat = replace(bound, meter=None).in_chunks(output).to(bound.origin.dtype)
    else:
        parts = bound.layout.split(bound.origin)
        flat = bound.layout.flatten(_chosen(given, parts, numbers))
    # Padding keeps its value, so that it contributes nothing.
    return flat if bound.mask is None else torch.where(bound.mask, flat, bound.origin)


def _chosen(given: tuple[Any, ...], like: tuple[Any, ...], numbers: Tensor) -> tuple[Tensor, ...]:
    return tuple(
        value[numbers.to(value.device)].to(device=part.device, dtype=part.dtype)
        if isinstance(value, Tensor)
        else torch.full_like(part, value)
        for value, part in zip(given, like, strict=True)
    )


def _through(layer: object, given: tuple[Any, ...]) -> bool:
    """Whether baselines are inputs of the model, of which a layer's output is needed."""
    return layer is not None and any(isinstance(value, Tensor) for value in given)


def _count(given: tuple[Any, ...]) -> int:
    """The number M of baselines."""
    return max(len(value) if isinstance(value, Tensor) else 1 for value in given)


def _checked(given: tuple[Any, ...], like: tuple[Tensor, ...]) -> tuple[float | Tensor, ...]:
    """Baselines as they can be drawn. Errors: ValueError or TypeError for others."""
    expect(len(given) == len(like), "baselines", f"one for each of {len(like)} inputs", len(given))
    hint = "(the target comes after the baselines: name it, target=)"
    for value, part in zip(given, like, strict=True):
        if isinstance(value, Tensor):
            if value.shape[1:] != part.shape[1:] or value.ndim != part.ndim or not len(value):
                shape = ", ".join(map(str, ("M", *part.shape[1:])))
                raise ValueError(
                    f"baselines: expected M of them, shape ({shape}), got {tuple(value.shape)} "
                    + hint
                )
            checks.check_finite("baselines", (value,))
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(
                "baselines: expected a number or a tensor for each input, got "
                f"{type(value).__name__} {hint}"
            )
    counts = {len(value) for value in given if isinstance(value, Tensor)}
    expect(len(counts) < 2, "baselines", "as many for each input", sorted(counts))
    return tuple(value.detach() if isinstance(value, Tensor) else value for value in given)
