"""Attacks on the certified overlap of Sparsified SmoothGrad's largest entries."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cache import Piece, digest_of
from benchmarks.context import Context
from benchmarks.references import PACKAGE, SOLVER
from benchmarks.subjects import Subject
from moreaugrad import SimpleGradient, SmoothGrad, SparsifiedSmoothGrad
from moreaugrad.attacks import build
from moreaugrad.certificates import bounds, certificate_of_moments
from moreaugrad.certificates.certify import STATEMENTS, count_of
from moreaugrad.explainers.sparsified import SPARSIFIED, Moments

ATTACK, FRESH = 1, 100
"""Seeds: of the maps that attacks search on, and the first one of those that judge them."""
INSIDE = 1 - 1e-5
"""Of a radius, so that rounding leaves few inputs outside of it."""
CHECKED_BY = [*SOLVER, PACKAGE / "certificates", PACKAGE / "attacks", PACKAGE / "metrics"]
"""The code that everything of these parts depends on, besides their own modules."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """sigma, radii: in units of the input. samples: of the certificate. judged: blocks of as many
    fresh noise samples, of which the map at an attacked input is the mean. Attacks search at the
    lengths `searched`, with `draws` noise samples, and `screened` ones choose the best of them; a
    shorter radius has the same direction, in which the network is nearly linear. At the last radius
    nothing is certified: it shows that the attacks work."""

    images: int = 5
    sigma: float = 0.5
    samples: int = 1024
    top: float = 0.1
    confidence: float = 0.95
    radii: tuple[float, ...] = (0.05, 0.1, 1.0)
    searched: tuple[float, ...] = (0.1, 1.0)
    judged: int = 4
    steps: int = 4
    draws: int = 128
    screened: int = 256


QUICK = Overlap(images=2, samples=128, judged=2, steps=1, draws=8, screened=16, confidence=0.5)
WAYS = ("exact derivative", "Stein", "transfer from SmoothGrad", "transfer from the gradient",
        "random search")  # fmt: skip


def measured(context: Context, subject: Subject, plan: Overlap) -> Piece:
    """For each image, radius (0 first) and so on: `certified` `[B, statements, R]`, `kept` and
    `possible` overlaps with the exact mean `[B, R]`, `alike` with means of as many noise samples
    `[B, R, blocks]`, and the `way` whose input is judged `[B, searches]`."""
    names = subject.names[: plan.images]

    def compute(some: Sequence[str]) -> list[Piece]:
        return [_of_image(subject, plan, name) for name in some]

    key = {"network": subject.name, "weights": subject.weights, **asdict(plan),
           "code": digest_of(*CHECKED_BY, Path(__file__))}  # fmt: skip
    return context.cache.fetch(f"{subject.name}-attacked-overlap", key, names, compute, at_once=1)


def _of_image(subject: Subject, plan: Overlap, name: str) -> Piece:
    x, ids = subject.inputs([name]), [subject.names.index(name)]
    target = subject.predictions(x)
    explainer = SparsifiedSmoothGrad(
        subject.fast, variant=SPARSIFIED, samples=plan.samples, sigma=plan.sigma,
        sigma_mode="absolute", batch_size=subject.chunk,
    )  # fmt: skip
    moments = explainer.moments(x, target, ids=ids)
    radii, count = (0.0, *plan.radii), count_of(plan.top, moments.mean.shape[1])
    certified = [
        certificate_of_moments(
            moments, sigma=plan.sigma, radii=radii, top=plan.top, statement=statement,
            confidence=plan.confidence,
        ).overlap[0]
        for statement in STATEMENTS
    ]  # fmt: skip
    inside = _largest(moments.mean, count)
    worst = [_worst(explainer, plan, x, target, ids, count, length) for length in plan.searched]
    kept, possible, alike = [], [], []
    for radius in radii:
        there = moved(x, worst[bisect.bisect_left(plan.searched, radius)][1], radius)
        blocks = [
            replace(explainer, seed=FRESH + block).moments(there, target, ids=ids)
            for block in range(plan.judged)
        ]
        mean = pooled(blocks)
        lower, upper = bounds(mean, failure(plan))
        kept.append(overlap(inside, mean.mean, count))
        possible.append(most_overlap(inside, lower, upper, count))
        alike.append(torch.cat([overlap(inside, block.mean, count) for block in blocks]))
    return {
        "certified": torch.stack(certified), "kept": torch.cat(kept),
        "possible": torch.cat(possible), "alike": torch.stack(alike),
        "way": torch.tensor([WAYS.index(way) for way, _ in worst]),
    }  # fmt: skip


def failure(plan: Overlap) -> float:
    """Of the bounds of one map that is judged: all of them together fail in one run of 1000."""
    return 0.001 / (plan.images * (1 + len(plan.radii)))


def _worst(
    explainer: SparsifiedSmoothGrad, plan: Overlap, x: Tensor, target: Tensor, ids: Sequence[int],
    count: int, length: float,
) -> tuple[str, Tensor]:  # fmt: skip
    """The attack that leaves the least overlap, and its displacement in float64."""
    # A regression of the same output: its gradient is the same, and no class has to stay.
    clean = replace(explainer, task="regression").explain(x, target, ids=ids)
    searched = replace(explainer, task="regression", seed=ATTACK, samples=plan.screened)
    best, move, least = WAYS[-1], torch.zeros_like(x).double(), torch.inf
    for way, settings in _attacks(searched, plan):
        name = "random-search" if way == WAYS[-1] else "matched"
        attack = build(
            name, searched, epsilon=length, seed=ATTACK, metric="top-k",
            measure={"count": count, "nonzero": False}, **settings,
        )  # fmt: skip
        found = attack.attack(x, target, ids=ids, clean=clean)
        shift = found.inputs[0] - x[0] if isinstance(found.inputs, Tensor) else x[0] * 0
        if float(found.after) < least and bool(shift.any()):
            best, least = way, float(found.after)
            move = shift.double()[None]
    return best, move


def moved(x: Tensor, move: Tensor, radius: float) -> Tensor:
    """The input at that distance from x in the direction `move`, in float64; x itself without one.

    Rounding leaves it within the radius."""
    length, inside = float(move.norm()), INSIDE
    there = (x + (inside * radius / length if length else 0.0) * move).to(x)
    while float((there.double() - x.double()).norm()) > radius:
        inside -= 1 - INSIDE
        there = (x + inside * radius / length * move).to(x)
    return there


def _attacks(searched: SparsifiedSmoothGrad, plan: Overlap) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every one has the settings of `plan`; those that cost less make more steps."""
    network = searched.forward_func
    common: dict[str, Any] = {"draws": plan.draws, "steps": plan.steps}
    relaxed = replace(searched, variant="relaxed")
    smooth = SmoothGrad(
        network, task="regression", seed=ATTACK, sigma=plan.sigma, sigma_mode="absolute"
    )
    plain = SimpleGradient(network, task="regression")
    yield WAYS[0], common | {"source": relaxed, "through": "implicit"}
    yield WAYS[1], common | {"through": "stein"}
    yield WAYS[2], common | {"source": smooth, "measured": False}
    yield WAYS[3], common | {"source": plain, "measured": False, "steps": 10 * plan.steps}
    yield WAYS[4], common | {"steps": 2 * plan.steps}


def pooled(blocks: Sequence[Moments]) -> Moments:
    """Of all noise samples of blocks of equal size."""
    return replace(
        blocks[0],
        mean=torch.stack([block.mean for block in blocks]).mean(0),
        square=torch.stack([block.square for block in blocks]).mean(0),
        samples=sum(block.samples for block in blocks),
    )


def _largest(maps: Tensor, count: int) -> Tensor:
    """Whether an entry is among the largest, bool `[B, n]`; of equal ones the first are."""
    order = maps.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(maps, dtype=torch.bool).scatter(1, order, True)


def overlap(inside: Tensor, maps: Tensor, count: int) -> Tensor:
    """The fraction of `inside` that is among the `count` largest of other maps `[B, n]`, `[B]`."""
    return (inside & _largest(maps, count)).sum(1).double() / count


def most_overlap(inside: Tensor, lower: Tensor, upper: Tensor, count: int) -> Tensor:
    """The largest such fraction for any values between `lower` and `upper`, `[B, n]` each.

    It is reached where the entries inside have their largest values and all others their smallest.
    """
    values = torch.where(inside, upper, lower)
    # With the entries inside first, these win where values are equal.
    first = (~inside).long().argsort(dim=1, stable=True)
    return overlap(inside.gather(1, first), values.gather(1, first), count)
