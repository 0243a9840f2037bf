"""Second derivatives of a score between the entries that a sparse map keeps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from moreaugrad.curvature.products import PRODUCT, outside_autocast
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.calling import Progress, metered, reporting
from moreaugrad.explainers.derivatives import score_model
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import Batched, Layout
from moreaugrad.score.score import Score
from moreaugrad.score.targets import Target
from moreaugrad.settings import Documented, expect
from moreaugrad.solvers.blocks import MOST, block_error, mean_of_blocks
from moreaugrad.solvers.solution import Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ELEMENT, PIXEL = "element", "pixel"
LEAST = 1e-6
"""Noise in an entry counts as at least so many standard deviations."""


@dataclass(frozen=True)
class Pair:
    """Two entries of an input, and the second derivative of the score by both.

    first, second: their places in the input, `(channel, row, column)` or, of pixels, `(row,
    column)`; of several inputs the number of the input comes first. error: of the value, a standard
    error where there is noise.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    value: float
    error: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Interactions(Batched, metaclass=Documented, heading="Attributes"):
    """Second derivatives of the score between the k largest entries of each sample's map.

    >>> sparse = mg.SparseMoreauGrad(model, samples=8).explain(x)
    >>> found = mg.interactions(mg.Score(model, sigma=0.1), sparse, most=4, samples=8)
    >>> pairs = found.strongest(3)
    """

    values: Tensor
    """d2 f / dx_i dx_j, `[B, k, k]`, symmetric; NaN beyond the entries that a map has."""
    error: Tensor
    """Error of each value, `[B, k, k]`: with noise the standard error, else half the asymmetry of
    the products, which is rounding."""
    index: Tensor
    """Which entry each row is of, `[B, k]`, its number in the flattened input, of several inputs
    one after the other; -1: none. Of pixels the number of the pixel."""
    status: tuple[Status, ...]
    """How each sample's computation ended."""
    evaluations: Tensor
    """Evaluations of each sample, `[B]`."""
    inputs: tuple[Tensor, ...]
    """The inputs, `[B, ...]` each."""
    per: str
    """What an entry is: "element" or "pixel"."""

    def strongest(self, count: int = 10, sample: int = 0, beyond: float = 0.0) -> list[Pair]:
        """The pairs of different entries with the largest |value|, the largest first.

        beyond: leaves out those whose |value| is less than so many errors.
        """
        values, error = self.values[sample].cpu(), self.error[sample].cpu()
        one, two = torch.triu_indices(len(values), len(values), 1)
        size = values[one, two].abs()
        # Comparisons with NaN are false.
        kept = ((size > 0) & ~(size < beyond * error[one, two])).nonzero()[:, 0]
        order = kept[size[kept].argsort(descending=True, stable=True)][:count]
        return [
            Pair(
                first=self._place(int(self.index[sample, i])),
                second=self._place(int(self.index[sample, j])),
                value=float(values[i, j]),
                error=float(error[i, j]),
            )
            for i, j in zip(one[order].tolist(), two[order].tolist(), strict=True)
        ]

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        sample: int = 0,
        *,
        count: int = 20,
        beyond: float = 2.0,
        title: str = "",
    ) -> Figure:
        """A figure of one sample's strongest pairs, as lines between their pixels on the image.

        path: where to write the figure, in the format of the suffix. count, beyond: as for
        `strongest`. Errors: ValueError for inputs that are not one image.
        """
        from moreaugrad.pictures import photo
        from moreaugrad.pictures.plot import plot_pairs, save_figure

        image = photo(self.inputs[0][sample]) if len(self.inputs) == 1 else None
        if image is None:
            shapes = [tuple(part.shape[1:]) for part in self.inputs]
            raise ValueError(f"expected one image [C, H, W] to draw on, got inputs of {shapes}")
        pairs = self.strongest(count, sample, beyond)
        lines = [(pair.first[-2:], pair.second[-2:], pair.value) for pair in pairs]
        shown = plot_pairs(lines, image.pixels, title=title)
        if path is not None:
            save_figure(shown, path)
        return shown

    def _place(self, number: int) -> tuple[int, ...]:
        part = 0
        shapes = [tuple(each.shape[1:]) for each in self.inputs]
        if self.per == PIXEL:
            shapes = [shape[1:] for shape in shapes]
        while number >= np.prod(shapes[part], dtype=int):
            number -= int(np.prod(shapes[part], dtype=int))
            part += 1
        place = tuple(int(at) for at in np.unravel_index(number, shapes[part]))
        return place if len(shapes) == 1 else (part, *place)


def interactions(
    score: Score | Explainer,
    explanation: Explanation,
    additional_forward_args: object = None,
    *,
    most: int = 32,
    per: str = ELEMENT,
    samples: int = 64,
    ids: Sequence[int] | Tensor | None = None,
    progress: Progress | bool | None = None,
) -> Interactions:
    """H_S = the Hessian of the score at the inputs, between the largest entries of sparse maps.

    >>> sparse = mg.SimpleGradient(model, keep=0.01).explain(x)
    >>> found = mg.interactions(mg.Score(model, kind="probability"), sparse, most=4)

    score: what is differentiated, as a `Score` or as an explainer, whose score and noise it then
    is. explanation: whose maps choose the entries: those that are not zero, the `most` largest.
    per: "element", or "pixel": the second derivatives when all channels of a pixel change alike,
    which are sums over the channels. samples: noise samples, where the score has noise.
    ids, additional_forward_args: as for `explain`. progress: as there.

    Without noise these are products with the Hessian, 1 + 2 k evaluations. The logits of a
    piecewise linear network have a Hessian of zeros: the status is then "no curvature"; smooth the
    score, or explain its probability. With noise they are those of the mean score, of any network:
    means of (grad f(x + z + t e_j) - grad f(x + z - t e_j)) / 2 t over noise z in the other entries
    and steps t about 1.6 sigma long. They need first derivatives only, and `samples` times 2 k
    evaluations.

    Errors: ValueError for maps of a layer, and settings out of range.
    Source: Janizek et al. (2021), who integrate second derivatives from a baseline. Differs: those
    of the score at the input itself, between few entries; with noise by Stein's identity.
    """
    if not (isinstance(score, (Score, Explainer)) and isinstance(explanation, Explanation)):
        raise TypeError(
            "expected a Score or an explainer, and what its explain(...) returns; got "
            f"{type(score).__name__} and {type(explanation).__name__}"
        )
    choose("per", per, (ELEMENT, PIXEL))
    expect(most >= 2, "most", "at least 2 entries", most)
    expect(samples >= 1, "samples", "at least 1", samples)
    if score.layer is not None or "layer" in explanation.settings:
        raise ValueError("layer: expected maps and a score of the input itself, got a layer's")
    target = Target(explanation.target, explanation.position).given
    bound = score.bind(explanation.inputs, target, additional_forward_args, ids, explanation.mask)
    units = _Units.largest(bound.layout, explanation.parts, per, most)
    bound = replace(bound, samples=samples)
    each = 1 + PRODUCT * units.count if bound.sigma is None else 2 * samples * units.count
    with reporting(progress, "interactions") as report, outside_autocast(bound) as bound:
        if report is not None:
            meter = metered(report, 0, len(bound), len(bound), len(bound) * each)
            bound = replace(bound, meter=meter)
        found = _exact if bound.sigma is None else _sampled
        values, error = found(bound, units)
    real = units.valid[:, :, None] & units.valid[:, None]
    own = units.valid.sum(1)
    given = explanation.inputs
    return Interactions(
        values=values.masked_fill(~real, torch.nan),
        error=error.masked_fill(~real, torch.nan),
        index=units.index.masked_fill(~units.valid, -1),
        status=tuple(_statuses(bound, values, error, real)),
        evaluations=1 + PRODUCT * own if bound.sigma is None else 2 * samples * own,
        inputs=given if isinstance(given, tuple) else (given,),
        per=per,
    )


@dataclass(frozen=True, eq=False)
class _Units(Batched):
    """The entries or pixels of each sample.

    index: `[B, k]`. valid: which of them there are, `[B, k]`. members: the entries of the flat
    input that each has, `[B, k, C]`.
    """

    index: Tensor
    valid: Tensor
    members: Tensor

    @property
    def count(self) -> int:
        return self.index.shape[1]

    @classmethod
    def largest(cls, layout: Layout, maps: Sequence[Tensor], per: str, most: int) -> _Units:
        """The largest ones in the maps, in the order of their size, at most `most`."""
        channels = 1
        if per == PIXEL:
            shapes = layout.shapes
            if len(shapes) > 1 or len(shapes[0]) < 2:
                raise ValueError(
                    "per: 'pixel' is for one input [C, ...] with channels, got inputs of shapes "
                    f"{list(shapes)}"
                )
            channels = shapes[0][0]
        flat = layout.flatten([part.detach().abs() for part in maps]).nan_to_num()
        size = flat.view(len(flat), channels, -1).sum(1)
        count = min(most, max(1, int((size > 0).sum(1).max())))
        index = size.argsort(dim=1, descending=True, stable=True)[:, :count]
        steps = torch.arange(channels, device=index.device) * size.shape[1]
        return cls(index, size.gather(1, index) > 0, index[:, :, None] + steps)

    def sums(self, flat: Tensor) -> Tensor:
        """Of each one the sum over its members, `[B, k]`; 0 where there is none."""
        found = flat.gather(1, self.members.flatten(1)).view(self.members.shape).sum(2)
        return found * self.valid

    def added(self, flat: Tensor, amounts: Tensor, columns: slice) -> Tensor:
        """Copies of `flat` `[B, n]`, each with the members of one of the columns changed by the
        amount `[B, k]`: `[B c, n]`."""
        members, change = self.members[:, columns], (amounts * self.valid)[:, columns, None]
        copies = flat[:, None].repeat(1, members.shape[1], 1)
        return copies.scatter_add_(2, members, change.expand(members.shape)).flatten(0, 1)


def _exact(bound: BoundScore, units: _Units) -> tuple[Tensor, Tensor]:
    """H_S and its asymmetry from products with the Hessian, `[B, k, k]` each."""
    product, zeros = score_model(bound), torch.zeros_like(bound.origin)
    ones = torch.ones_like(bound.origin[:, :1]).expand(units.index.shape)
    columns = [
        units.sums(product(units.added(zeros, ones, slice(at, at + 1)), bound.rows))
        for at in range(units.count)
    ]
    found = torch.stack(columns, 1)
    return _symmetric(found), (found - found.mT).abs() / 2


def _sampled(bound: BoundScore, units: _Units) -> tuple[Tensor, Tensor]:
    """H_S of the mean score and its standard error, `[B, k, k]` each.

    With v a unit vector and t = v'z, Stein's identity in t alone is H v = E g(x + z) t / sigma^2 =
    E (g(x + z_ + t v) - g(x + z_ - t v)) t / (2 sigma^2), z_ the part of z across v. Distances t of
    the density t^2 N(t) / sigma^2, those of three normal numbers, weigh all differences alike.
    """
    count, channels = units.count, units.members.shape[2]
    assert bound.sigma is not None
    levels = bound.sigma.expand_as(bound.origin).gather(1, units.members[:, :, 0])

    def work(points: Tensor, rows: Tensor) -> tuple[Tensor]:
        own, level = units.select(rows), levels[rows] / channels**0.5
        along = own.sums(points - bound.origin[rows]) / channels
        step = level * _of_three((along / level).abs())
        many = max(1, bound.chunks.size // (2 * len(points)))
        columns = []
        for at in range(0, count, many):
            part = slice(at, min(at + many, count))
            copies = torch.arange(len(points), device=points.device)
            copies = copies.repeat_interleave(part.stop - at)
            there, back = (
                own.select(copies)
                .sums(bound.value_and_grad_at(own.added(points, move, part), rows[copies])[1])
                .view(len(points), -1, count)
                for move in (step - along, -step - along)
            )
            columns.append((there - back) / (2 * step[:, part, None]))
        found = torch.cat(columns, 1)
        return (_symmetric(found),)

    size = 2 * -(-bound.samples // (2 * MOST))  # even: antithetic pairs stay together
    blocks = [range(at, min(at + size, bound.samples)) for at in range(0, bound.samples, size)]
    (sums,) = bound.block_sums(work, None, range(bound.samples), 2 * count, size)
    # The error of each value by itself.
    terms = [total.reshape(-1, 1) / len(block) for total, block in zip(sums, blocks, strict=True)]
    values, error = mean_of_blocks(blocks, terms), block_error(blocks, terms, lambda mean: mean)
    # Sums of the same terms differ by rounding from place to place.
    return _symmetric(values.view(sums.shape[1:])), _symmetric(error.view(sums.shape[1:]))


def _symmetric(matrices: Tensor) -> Tensor:
    return (matrices + matrices.mT) / 2


def _of_three(size: Tensor) -> Tensor:
    """Lengths of three normal numbers, at the quantiles of these magnitudes of one."""
    from scipy.special import erfc, gammainccinv

    # A length of zero, which only rounding makes, cannot be divided by.
    beyond = erfc(size.double().clamp_min(LEAST).cpu().numpy() / 2**0.5)
    return torch.from_numpy(np.sqrt(2 * gammainccinv(1.5, beyond))).to(size)


def _statuses(bound: BoundScore, values: Tensor, error: Tensor, real: Tensor) -> list[Status]:
    silent, smooth = bound.silent().tolist(), bound.sigma is not None
    some = real.flatten(1).any(1)
    broken = (real & ~values.isfinite()).flatten(1).any(1).tolist()
    flat = (some & (~real | (values == 0)).flatten(1).all(1)).tolist()
    same = (some & (~real | (error == 0)).flatten(1).all(1)).tolist()
    found = []
    for row in range(len(bound)):
        if silent[row]:
            found.append(Status.NO_NOISE)
        elif broken[row]:
            found.append(Status.NON_FINITE)
        elif smooth:
            found.append(Status.UNVARIED if same[row] else Status.FIXED_BUDGET)
        else:
            found.append(Status.NO_CURVATURE if flat[row] else Status.DIRECT)
    return found
