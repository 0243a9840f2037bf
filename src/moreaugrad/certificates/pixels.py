"""Certificates of single pixels for the map of any method: important, unimportant, or neither."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import torch
from torch import Tensor

from moreaugrad.certificates.certify import check_layer, count_of, given_number
from moreaugrad.certificates.votes import vote_radii
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.calling import Progress, reporting
from moreaugrad.explainers.gradient import largest
from moreaugrad.metrics.maps import REDUCTIONS, reduced
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.checks import NotFiniteError
from moreaugrad.score.inputs import InputSpace
from moreaugrad.score.noise import Noise
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import Documented, expect

FIRST = 2**41
"""Number of the first noise vector, far beyond those of methods and attacks: the noise must be
independent of that which the certified method draws itself."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelCertificate(metaclass=Documented, heading="Attributes"):
    """For each pixel: whether most maps at noisy inputs have it among their largest, and how far
    from x that stays so.

    >>> explainer = mg.SimpleGradient(model)
    >>> found = mg.certificates.certify_pixels(explainer, x, sigma=0.1, samples=60, confidence=0.9)
    >>> important, curve = found.important, found.fraction([0.0, 0.05])

    The vote at an input x' is the majority over the noise: a pixel is important at x' if more than
    half of all maps at x' + z have it among their largest, and unimportant if more than half do
    not.
    """

    vote: Tensor
    """Whether more maps have the pixel among their largest than do not, bool `[B, *pixels]`."""
    radius: Tensor
    """For every x' that is closer to x, the vote is certified to be the same: L2 distance over all
    entries in the units of `sigma`, `[B, *pixels]` in float64; 0 where nothing is certified."""
    within: float
    """sigma Phi^-1(threshold), the radius at which `important` and `unimportant` are decided."""
    votes: Tensor
    """Number of maps that have the pixel among their largest, `[B, *pixels]`."""
    samples: int
    """Number of maps of each sample, each at a noisy input of its own."""
    failed: Tensor
    """Number of maps that are not finite, `[B]`: no vote for either class."""
    short: Tensor
    """Number of maps that did not reach the method's accuracy, `[B]`. They count as computed."""
    top: int
    """Number of a map's pixels that count as largest, at most: those that are 0 never do."""
    sigma: float
    """Standard deviation of the noise."""
    threshold: float
    """Probability of a vote that `within` needs."""
    confidence: float
    """Probability, over the noise, that all pixels and radii of a sample are correct together."""
    statement: str
    """The statement in words."""
    target: Tensor
    """The class that all maps explain, `[B]`, whatever the network predicts at the noisy inputs."""
    evaluations: Tensor
    """Evaluations of all maps of each sample, `[B]`."""

    @property
    def important(self) -> Tensor:
        """Certified important closer than `within`, bool `[B, *pixels]`."""
        return self.vote & self._certified(self.within)

    @property
    def unimportant(self) -> Tensor:
        """Certified unimportant closer than `within`, bool `[B, *pixels]`."""
        return ~self.vote & self._certified(self.within)

    @property
    def abstained(self) -> Tensor:
        """Neither, bool `[B, *pixels]`."""
        return ~self._certified(self.within)

    def fraction(self, radii: Sequence[float], vote: bool | None = None) -> Tensor:
        """Fraction of all pixels whose vote is certified up to each of the radii, `[B, R]`.

        vote: only those that are important (True) or unimportant (False).
        """
        own = torch.ones_like(self.vote) if vote is None else self.vote == vote
        return torch.stack(
            [(own & self._certified(radius)).flatten(1).double().mean(1) for radius in radii], 1
        )

    def _certified(self, radius: float) -> Tensor:
        return (self.radius > 0) & (self.radius >= radius)


def certify_pixels(
    explainer: Explainer,
    inputs: Tensor,
    target: TargetLike = None,
    additional_forward_args: object = None,
    *,
    sigma: float = 0.15,
    samples: int = 100,
    top: float = 0.1,
    threshold: float = 0.75,
    confidence: float = 0.999,
    reduction: str = "abs-sum",
    space: InputSpace | None = None,
    seed: int = 0,
    ids: Sequence[int] | Tensor | None = None,
    progress: Progress | bool | None = None,
) -> PixelCertificate:
    """Certificates of the largest pixels of any method's map, by its maps at `samples` noisy inputs
    x + sigma z.

    inputs, target, additional_forward_args, ids, progress: as for `explain`, one input. sigma: in
    the units of the network's input; with `space`, in those of pixels, as radii then are too. top:
    the fraction of a map's pixels that count as important. threshold, confidence: see
    `vote_radii`. reduction: of the channels of images and volumes, "abs-sum", "sum", "max-abs", or
    "none", for which every entry counts by its magnitude. seed: of the noise, which is not clipped
    to any range.

    The statement is about the method as a function of the input, with the noise that it draws for
    the sample's id. It costs `samples` maps, about samples x explainer.budget() evaluations. The
    defaults, with `space`, are those of the paper, whose radius is 0.10.
    Errors: ValueError for settings that invalidate the statement, and for fewer samples than any
    certificate needs; TypeError for something else than an explainer.
    Source: Anani et al. (2025), arXiv 2506.15499. Differs: no draws to choose the class; the
    magnitude over the channels; see docs/certificates.md.
    """
    if not isinstance(explainer, Explainer):
        raise TypeError(f"explainer: expected an Explainer, got {type(explainer).__name__}")
    check_layer(explainer.layer)
    if isinstance(inputs, tuple):
        raise ValueError(
            f"inputs: expected one tensor, whose pixels are certified, got {len(inputs)} inputs; "
            "give those that are not perturbed as additional_forward_args"
        )
    expect(0 < given_number("sigma", sigma) < math.inf, "sigma", "a finite number > 0", sigma)
    choose("reduction", reduction, REDUCTIONS)
    noise = Noise(seed, antithetic=False)
    bound = explainer.bind(inputs, target, additional_forward_args, ids)
    reduced = _reduced(bound.layout.restore(bound.origin[:1])[0], reduction)
    shape, count = reduced.shape[1:], count_of(top, reduced[0].numel())
    check_votes(samples, reduced[0].numel(), threshold, confidence)
    deviation = sigma if space is None else sigma / space.scale(bound.layout, bound.origin)

    def points(rows: Tensor, draws: Tensor) -> Tensor:
        pairs = zip(rows.tolist(), draws.tolist(), strict=True)
        drawn = [noise.draw([bound.keys[i]], FIRST + k, bound.origin) for i, k in pairs]
        return bound.origin[rows] + deviation * torch.cat(drawn)

    with reporting(progress, f"{explainer.method}, pixels") as report:
        counted = _counted(explainer, bound, points, samples, count, reduction, report)
    votes, against, failed, short, evaluations = counted
    vote, radius = vote_radii(
        votes, against, samples, sigma=sigma, threshold=threshold, confidence=confidence
    )
    quantile = torch.special.ndtri(torch.tensor(threshold, dtype=torch.float64))
    units = "the network's input" if space is None else "pixels before the normalisation"
    aim = "class" if bound.target.function is None else "function"
    return PixelCertificate(
        vote=vote.reshape(-1, *shape),
        radius=radius.reshape(-1, *shape),
        within=float(sigma * quantile),
        votes=votes.reshape(-1, *shape),
        samples=samples,
        failed=failed,
        short=short,
        top=count,
        sigma=sigma,
        threshold=threshold,
        confidence=confidence,
        target=bound.target.classes,
        evaluations=evaluations,
        statement="for every x' that is closer to x than the radius (Euclidean, in the units of "
        f"{units}), the majority over the noise z of whether the pixel is among the {count} "
        f"largest of the {explainer.method} map at x' + z, of the {aim} explained at x, is that at "
        f"x; for all pixels together with confidence {confidence:g} over the noise",
    )


def check_votes(
    samples: int, pixels: int, threshold: float, confidence: float, name: str = "samples"
) -> None:
    """Errors: ValueError where not even unanimous votes would reach the threshold. name: of the
    setting, for the message."""
    expect(isinstance(samples, Integral), name, "a whole number", samples)
    unanimous = torch.full((1, pixels), samples)
    settings = {"sigma": 1.0, "threshold": threshold, "confidence": confidence}
    _, radius = vote_radii(unanimous, torch.zeros_like(unanimous), samples, **settings)
    least = float(torch.special.ndtri(torch.tensor(threshold, dtype=torch.float64)))
    enough = math.log(2 * pixels / (1 - confidence)) / -math.log(threshold)
    expect(
        float(radius.amin()) >= least and bool((radius > 0).all()),
        name,
        f"about {math.ceil(enough)} or more: with fewer not even unanimous votes certify one of "
        f"{pixels} pixels at the threshold {threshold:g} with confidence {confidence:g}",
        samples,
    )


def _counted(
    explainer: Explainer,
    bound: BoundScore,
    points: Callable[[Tensor, Tensor], Tensor],
    samples: int,
    count: int,
    reduction: str,
    progress: Progress | None,
) -> tuple[Tensor, ...]:
    """Votes for and against each pixel `[B, N]`; maps that failed and those short of their
    accuracy, and evaluations, `[B]`. points: the noisy inputs of rows and numbers of draws."""
    batch = len(bound)
    fixed = replace(explainer, check=False)  # the model was checked at x
    totals: list[Tensor] = []
    pairs = torch.arange(batch * samples, device=bound.origin.device)
    for part in torch.split(pairs, max(1, bound.chunks.size)):
        rows, done = part // samples, int(part[0])

        def report(ready: float, _: int, done: int = done) -> None:
            if progress is not None:
                progress((done + ready) / samples, batch)

        maps, short, spent = _maps(fixed, bound, rows, points(rows, part % samples), report)
        finite = torch.isfinite(maps.flatten(1)).all(1)
        values = _reduced(maps.nan_to_num(0, 0, 0), reduction).flatten(1)
        chosen = largest(values, torch.full_like(rows, count)) & (values > 0)
        yes, no = chosen & finite[:, None], ~chosen & finite[:, None]
        added = [each.long() for each in (yes, no, ~finite, short, spent)]
        totals = totals or [each.new_zeros(batch, *each.shape[1:]) for each in added]
        for total, each in zip(totals, added, strict=True):
            total.index_add_(0, rows, each)
        report(len(part), batch)
    return tuple(totals)


def _maps(
    explainer: Explainer, bound: BoundScore, rows: Tensor, points: Tensor, report: Progress
) -> tuple[Tensor, Tensor, Tensor]:
    """The maps `[m, *shape]` of these samples at other inputs `[m, n]`, NaN where the network's
    output is not finite; which are short of their accuracy, and their evaluations, `[m]`."""
    left = torch.arange(len(rows), device=rows.device)
    maps = torch.full_like(points, torch.nan)
    short, spent = torch.zeros_like(rows, dtype=torch.bool), torch.zeros_like(rows)
    while len(left):
        part = bound.select(rows[left])
        (x,) = bound.layout.restore(points[left])
        try:
            there = explainer.bind(x, part.target.given, part.args, part.keys)
        except NotFiniteError as error:
            keep = torch.ones_like(left, dtype=torch.bool)
            keep[list(error.samples)] = False
            left = left[keep]
            continue
        there = replace(there, follows=bound.follows, chunks=bound.chunks)
        found = explainer._explained(there, False, report)
        maps[left] = bound.layout.flatten(found.parts).to(maps)
        short[left] = torch.tensor([not s.ok for s in found.status], device=rows.device)
        spent[left] = found.evaluations
        break
    return bound.layout.split(maps)[0], short, spent


def _reduced(maps: Tensor, reduction: str) -> Tensor:
    """One number for each pixel: `[m, *shape]` to `[m, *pixels]`, in float64."""
    values = reduced(maps.double(), reduction)
    return values if reduction == "sum" else values.abs()
