"""Attacks on pixels that are certified to keep their vote."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.attacked_overlap import ATTACK, CHECKED_BY, FRESH, moved
from benchmarks.cache import Piece, digest_of
from benchmarks.context import Context
from benchmarks.subjects import Subject
from moreaugrad import InputSpace, SmoothGrad, build
from moreaugrad.certificates import PixelCertificate, certify_pixels
from moreaugrad.certificates.overlap import binomial_lower
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.gradient import largest

Slope = Callable[[Tensor, Tensor], Tensor]
"""Of an input `[1, C, H, W]` and weights `[H, W]`: the derivative of the weighted sum of the votes,
`[C, H, W]`, in units of pixels."""

OWN, STEIN, TRANSFER = "own derivative", "Stein", "transfer from SmoothGrad"


@dataclass(frozen=True, kw_only=True)
class Method:
    """images: the first of the plan's, fewer for a method of many evaluations. steps: what they
    follow."""

    settings: Mapping[str, Any]
    steps: str
    images: int = 3


METHODS: Mapping[str, Method] = {
    "simple-gradient": Method(settings={}, steps=OWN),
    "grad-cam": Method(settings={}, steps=STEIN),
    "smoothgrad": Method(settings={"samples": 4}, steps=OWN),
    "sparse-moreaugrad": Method(
        settings={"tolerance": 0.5, "max_evaluations": 34}, steps=TRANSFER, images=2
    ),
}


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """sigma and lengths: in pixels of [0, 1]. samples: of the certificate. judged: fresh maps that
    vote at an attacked input, and at x; screened: those that choose the best attack. points,
    votes: noisy inputs of a step that follows derivatives, and of one by Stein's identity. beyond:
    a length at which nothing is certified, which shows that the attacks work."""

    sigma: float = 0.15
    samples: int = 100
    top: float = 0.1
    threshold: float = 0.75
    confidence: float = 0.999
    judged: int = 256
    screened: int = 64
    steps: int = 6
    points: int = 16
    votes: int = 128
    softness: float = 0.2
    beyond: float = 2.0


QUICK = Pixels(samples=60, confidence=0.9, judged=16, screened=16, steps=1, points=2, votes=2)
AIMED = 8
TARGETS = (1, AIMED, 0)
"""How many certified pixels an attack is aimed at, those whose votes are closest; 0 for all."""


def measured(context: Context, subject: Subject, plan: Pixels, method: str) -> Piece:
    """For each image `[B]`: how many pixels are `certified` and `important`; the smallest fraction
    of votes for the class of a certified pixel at x, `at x`, and at the attacked input, `least`,
    and their means; how many have less than half of these votes there, `below`, and, but for the
    chance of `failure`, of all votes, `proven`."""
    images = 1 if context.quick else METHODS[method].images
    return _fetched(context, subject, plan, method, "radius", images, _within)


def beyond(context: Context, subject: Subject, plan: Pixels, method: str) -> Piece:
    """The first image under an attack of the length `plan.beyond`: `least` and `below`, `[1]`."""
    return _fetched(context, subject, plan, method, "beyond", 1, _beyond)


def failure() -> float:
    """Of the test of one pixel: all tests of a run together fail in one run of 1000."""
    return 0.001 / (sum(row.images for row in METHODS.values()) * 32 * 32)


@dataclass(frozen=True, kw_only=True)
class _Case:
    """An image, its certificate, and which pixels are certified at the radius of the threshold.

    base: the fractions of the votes at x. scale: pixels of one unit of the input."""

    plan: Pixels
    x: Tensor
    ids: Sequence[int]
    scale: Tensor
    voted: Callable[..., PixelCertificate]
    own: PixelCertificate
    certified: Tensor
    base: Tensor
    slope: Slope

    def descent(self, number: int, length: float) -> Tensor:
        """Aimed at that many pixels: a displacement in pixels."""
        weights = _aimed(self.own.vote, self.certified, self.base, number)[0]
        return _descent(
            self.slope, self.x * self.scale, self.scale, weights, length, self.plan.steps
        )

    def fractions(self, shift: Tensor, length: float, seed: int, samples: int) -> Tensor:
        """Of the votes of the certified pixels at that distance, for their classes."""
        there = moved(self.x * self.scale, shift, length) / self.scale
        return for_class(self.voted(there, seed, samples), self.own.vote)[self.certified]


def _fetched(
    context: Context, subject: Subject, plan: Pixels, method: str, what: str, images: int,
    work: Callable[[_Case], Piece],
) -> Piece:  # fmt: skip
    def compute(some: Sequence[str]) -> list[Piece]:
        return [work(_case(subject, plan, method, name)) for name in some]

    key = {"network": subject.name, "weights": subject.weights, **asdict(plan), "method": method,
           "settings": json.dumps(asdict(METHODS[method])), "what": what,
           "code": digest_of(*CHECKED_BY, Path(__file__))}  # fmt: skip
    return context.cache.fetch(
        f"{subject.name}-attacked-pixels", key, subject.names[:images], compute, at_once=1
    )


def _case(subject: Subject, plan: Pixels, method: str, name: str) -> _Case:
    x, ids = subject.inputs([name]), [subject.names.index(name)]
    target = subject.predictions(x)
    row, shown = METHODS[method], subject.preprocess
    space = InputSpace(mean=shown.mean, std=shown.std)
    explainer = build(method, subject.fast, batch_size=subject.chunk, **row.settings)

    def voted(
        there: Tensor, seed: int, samples: int, threshold: float = 0.5, confidence: float = 0.01
    ) -> PixelCertificate:
        # By default the fewest samples are enough: the votes alone are read.
        return certify_pixels(
            explainer, there, target, ids=ids, space=space, seed=seed, samples=samples,
            sigma=plan.sigma, top=plan.top, threshold=threshold, confidence=confidence,
        )  # fmt: skip

    own = voted(x, 0, plan.samples, plan.threshold, plan.confidence)
    scale = torch.tensor(shown.std).to(x)[:, None, None]
    return _Case(
        plan=plan, x=x, ids=ids, scale=scale, voted=voted, own=own,
        certified=own.important | own.unimportant,
        base=for_class(voted(x, FRESH, plan.judged), own.vote),
        slope=_slope(subject, plan, explainer, row.steps, target, ids, scale),
    )  # fmt: skip


def _within(case: _Case) -> Piece:
    """Of attacks at the radius, that whose weakest pixels have the fewest votes."""
    plan, length = case.plan, case.own.within
    found = torch.empty(0, dtype=torch.float64)
    if bool(case.certified.any()):
        tried = [case.descent(number, length) for number in TARGETS]
        tried.append(_normal(case.x, case.ids, 0)[None].double())
        screens = [case.fractions(shift, length, ATTACK, plan.screened) for shift in tried]
        weakest = torch.stack([each.sort().values[:AIMED].mean() for each in screens])
        found = case.fractions(tried[int(weakest.argmin())], length, FRESH + 1, plan.judged)
    at_x = case.base[case.certified]
    return {
        "certified": case.certified.sum(), "important": (case.certified & case.own.vote).sum(),
        "pixels": torch.tensor(case.certified.numel()),
        "at x": _smallest(at_x), "least": _smallest(found),
        "mean at x": at_x.mean(), "mean": found.mean(),
        "below": (found < 0.5).sum(), "proven": proven(found, plan.judged).sum(),
    }  # fmt: skip


def _beyond(case: _Case) -> Piece:
    shift = case.descent(AIMED, case.plan.beyond)
    found = case.fractions(shift, case.plan.beyond, FRESH + 1, case.plan.judged)
    return {"least": _smallest(found), "below": (found < 0.5).sum()}


def for_class(found: PixelCertificate, vote: Tensor) -> Tensor:
    """The fraction of all maps that vote for these classes, `[B, *pixels]`; a map that failed votes
    for neither."""
    failed = found.failed.reshape(-1, *[1] * (vote.ndim - 1))
    own = torch.where(vote, found.votes, found.samples - failed - found.votes)
    return own.double() / found.samples


def proven(fractions: Tensor, samples: int) -> Tensor:
    """Where the probability of the class is below one half, but for the chance of `failure`."""
    against = ((1 - fractions) * samples).round().long()
    return binomial_lower(samples, failure())[against] > 0.5


def _smallest(values: Tensor) -> Tensor:
    return values.min() if len(values) else torch.tensor(torch.nan, dtype=torch.float64)


def _aimed(vote: Tensor, certified: Tensor, fractions: Tensor, number: int) -> Tensor:
    """Weights of the votes that an attack lowers: 1 for important, -1 for unimportant pixels, of
    the `number` certified ones whose votes are closest."""
    sign = torch.where(vote, 1.0, -1.0) * certified
    if not number:
        return sign
    limit = fractions[certified].sort().values[:number].amax()
    return sign * (fractions <= limit)


def _normal(x: Tensor, ids: Sequence[int], number: int) -> Tensor:
    """A standard normal vector of the shape of one input."""
    generator = torch.Generator().manual_seed(1_000_003 * ids[0] + number)
    return torch.randn(x.shape[1:], generator=generator)


def _descent(
    slope: Slope, pixels: Tensor, scale: Tensor, weights: Tensor, length: float, steps: int
) -> Tensor:
    """A displacement in pixels, in float64, that lowers the weighted sum of the votes."""
    shift = torch.zeros_like(pixels, dtype=torch.float64)
    for step in range(steps):
        there = (pixels + shift).to(pixels) / scale
        down = -slope(there, weights).double()[None]
        if not bool(down.any()):
            break
        shift = shift + length * (1 - step / steps) * down / down.norm()
        shift = shift * min(1.0, length / float(shift.norm()))
    return shift


def _slope(
    subject: Subject, plan: Pixels, explainer: Explainer, steps: str, target: Tensor,
    ids: Sequence[int], scale: Tensor,
) -> Slope:  # fmt: skip
    drawn = 0

    def noisy(there: Tensor, number: int) -> tuple[Tensor, Tensor]:
        nonlocal drawn
        z = torch.stack([_normal(there, ids, 1 + drawn + k) for k in range(number)])
        drawn += number
        return z, there + plan.sigma * z / scale

    def by_stein(there: Tensor, weights: Tensor) -> Tensor:
        """E V z / sigma, V the weighted sum of the votes at x' + sigma z."""
        z, points = noisy(there, plan.votes)
        found = explainer.explain(points, target.expand(len(points)), ids=[*ids] * len(points))
        values = found.parts[0].abs().sum(1).flatten(1)
        count = torch.full_like(found.target, int(plan.top * values.shape[1]))
        inside = largest(values, count) & (values > 0)
        votes = (inside * weights.flatten()).sum(1)
        return ((votes - votes.mean())[:, None, None, None] * z).mean(0) / plan.sigma

    def by_derivative(stepper: Explainer, there: Tensor, weights: Tensor) -> Tensor:
        """Of soft votes, the sigmoid of a pixel's magnitude relative to the last that votes."""
        points = noisy(there, plan.points)[1]
        bound = stepper.bind(points, target.expand(len(points)), ids=[*ids] * len(points))
        maps = stepper._maps(bound)
        with torch.enable_grad():
            entries = maps.values.detach().double().requires_grad_()
            values = entries.reshape(points.shape).abs().sum(1).flatten(1)
            last = values.topk(int(plan.top * values.shape[1])).values[:, -1:]
            soft = torch.sigmoid((values / last - 1) / plan.softness)
            (cotangent,) = torch.autograd.grad((soft * weights.flatten()).sum(), entries)
        way = next(each for each in stepper.derivatives if each != "stein")
        pulled = stepper._pull(bound, maps, cotangent.to(points), way)
        return pulled.reshape(points.shape).mean(0) / scale

    if steps == STEIN:
        return by_stein
    stepper = explainer if steps == OWN else SmoothGrad(subject.fast, samples=4)
    return partial(by_derivative, replace(stepper, task="regression", check=False))
