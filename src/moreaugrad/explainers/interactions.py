"""Second derivatives of a score between the entries that a sparse map keeps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from moreaugrad.curvature.products import PRODUCT
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.calling import Progress, metered, reporting
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.explainers.hessian_entries import PIXEL, Selection, exact, sampled
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.forward import outside_autocast
from moreaugrad.score.inputs import Batched
from moreaugrad.score.score import Score
from moreaugrad.settings import Documented, expect
from moreaugrad.solvers.solution import Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ELEMENT = "element"
Number = TypeVar("Number", int, Tensor)


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
        from moreaugrad.pictures.pairs import plot_pairs
        from moreaugrad.pictures.plot import save_figure

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
    samples: int | None = None,
    ids: Sequence[int] | Tensor | None = None,
    progress: Progress | bool | None = None,
) -> Interactions:
    """H_S = the Hessian of the score at the inputs, between the largest entries of sparse maps.

    >>> sparse = mg.SimpleGradient(model, keep=0.01).explain(x)
    >>> found = mg.interactions(mg.Score(model, kind="probability"), sparse, most=4)

    score: what is differentiated, as a `Score` or as an explainer, whose score and noise it then
    is. explanation: whose maps choose the entries: those that are not zero, the `most` largest.
    per: "element", or "pixel": the second derivatives when all channels of a pixel change alike,
    which are sums over the channels. samples: noise samples, where the score has noise; None takes
    the score's own, 64 by default. ids, additional_forward_args: as for `explain`. progress: as
    there.

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
    for name, part, kinds in (
        ("score", score, (Score, Explainer)), ("explanation", explanation, (Explanation,)),
    ):  # fmt: skip
        if not isinstance(part, kinds):
            names = " or an ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{name}: expected a {names}, got {type(part).__name__}")
    choose("per", per, (ELEMENT, PIXEL))
    expect(most >= 2, "most", "at least 2 entries", most)
    expect(samples is None or samples >= 1, "samples", "at least 1", samples)
    if score.layer is not None or "layer" in explanation.settings:
        raise ValueError("layer: expected maps and a score of the input itself, got a layer's")
    bound = score.bind(
        explanation.inputs, explanation.given, additional_forward_args, ids, explanation.mask
    )
    bound.check_exact()
    units = Selection.largest(bound.layout, explanation.parts, per, most)
    bound = bound if samples is None else replace(bound, samples=samples)
    smooth = bound.sigma is not None
    each = _evaluations(units.count, bound.samples if smooth else None)
    with reporting(progress, "interactions") as report, outside_autocast(bound.origin.device):
        if report is not None:
            meter = metered(report, 0, len(bound), len(bound), len(bound) * each)
            bound = replace(bound, meter=meter)
        found = sampled if smooth else exact
        values, error = found(bound, units)
    broken = ~torch.isfinite(bound.layout.flatten(explanation.parts)).all(1)
    real = units.valid[:, :, None] & units.valid[:, None]
    taken = _evaluations(units.valid.sum(1), bound.samples if smooth else None)
    given = explanation.inputs
    return Interactions(
        values=values.masked_fill(~real, torch.nan),
        error=error.masked_fill(~real, torch.nan),
        index=units.index.masked_fill(~units.valid, -1),
        status=tuple(_statuses(bound, broken, values, error, real)),
        evaluations=bound.spent + taken,
        inputs=given if isinstance(given, tuple) else (given,),
        per=per,
    )


def interactions_budget(explainer: Explainer, most: int) -> int:
    """The most evaluations of one sample by `interactions` of so many of an explainer's entries."""
    score = explainer._score
    own = _evaluations(most, score.samples if score.sigma else None)
    return own + explainer._choices()


def _evaluations(count: Number, samples: int | None) -> Number:
    """Of so many entries. samples: noise samples, None without noise."""
    return 1 + PRODUCT * count if samples is None else 2 * samples * count


def _statuses(
    bound: BoundScore, broken: Tensor, values: Tensor, error: Tensor, real: Tensor
) -> list[Status]:
    """broken: which maps are not finite, `[B]`."""
    silent, smooth = bound.silent().tolist(), bound.sigma is not None
    some = real.flatten(1).any(1)
    wrong = (broken | (real & ~values.isfinite()).flatten(1).any(1)).tolist()
    flat = (some & (~real | (values == 0)).flatten(1).all(1)).tolist()
    same = (some & (~real | (error == 0)).flatten(1).all(1)).tolist()
    found = []
    for row in range(len(bound)):
        if silent[row]:
            found.append(Status.NO_NOISE)
        elif not some[row] and not broken[row]:
            found.append(Status.NO_ENTRIES)
        elif wrong[row]:
            found.append(Status.NON_FINITE)
        elif smooth:
            found.append(Status.UNVARIED if same[row] else Status.FIXED_BUDGET)
        else:
            found.append(Status.NO_CURVATURE if flat[row] else Status.DIRECT)
    return found
