"""Attacks on what is only an estimate, of MoreauGrad's maps, and on proven Lipschitz constants."""

from __future__ import annotations

from collections.abc import Sequence
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
from moreaugrad import MoreauGrad, SimpleGradient, SmoothGrad, SparseMoreauGrad
from moreaugrad.attacks import build
from moreaugrad.certificates import estimate_of_explanation, probability_curvature
from moreaugrad.explainers.derivatives import gradient_and_product
from moreaugrad.metrics import METRICS

METHODS = {each.method: each for each in (MoreauGrad, SparseMoreauGrad)}


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """sigma, radii: in units of the input. evaluations: of a map. Attacks search at the largest
    radius, with `draws` noise samples. climb: steps on the length of the gradient."""

    images: int = 2
    sigma: float = 0.5
    rho_of_limit: float = 0.5
    evaluations: int = 768
    top: float = 0.1
    radii: tuple[float, ...] = (0.0, 0.001, 0.01)
    steps: int = 3
    draws: int = 32
    climb: int = 40


QUICK = Estimates(images=1, evaluations=34, steps=1, draws=8, climb=2)


def measured(context: Context, subject: Subject, plan: Estimates, method: str) -> Piece:
    """For each image `[B, R]`: the overlap that the estimate `states` for a map of the same error,
    and `were exact`, what its constants alone allow; the overlap `found`; the same of distances at
    unit length, `apart states` and `apart`."""
    names = subject.names[: plan.images]

    def compute(some: Sequence[str]) -> list[Piece]:
        return [_of_image(subject, plan, method, name) for name in some]

    return context.cache.fetch(
        f"{subject.name}-attacked-estimates", _key(subject, plan, method), names, compute,
        at_once=1,
    )  # fmt: skip


def _key(subject: Subject, plan: Estimates, what: str) -> dict[str, Any]:
    return {"network": subject.name, "weights": subject.weights, **asdict(plan), "method": what,
            "code": digest_of(*CHECKED_BY, Path(__file__))}  # fmt: skip


def _of_image(subject: Subject, plan: Estimates, method: str, name: str) -> Piece:
    x, ids = subject.inputs([name]), [subject.names.index(name)]
    target = subject.predictions(x)
    explainer = METHODS[method](
        subject.fast, score="probability", sigma=plan.sigma, sigma_mode="absolute",
        rho=plan.rho_of_limit / probability_curvature(plan.sigma), tolerance=0.05,
        max_evaluations=plan.evaluations, batch_size=subject.chunk,
    )  # fmt: skip
    clean = explainer.explain(x, target, ids=ids)
    if isinstance(explainer, SparseMoreauGrad):  # the weight at x' is that at x
        explainer = replace(explainer, eta=float(clean.eta))
        clean = explainer.explain(x, target, ids=ids)
    estimate = partial(estimate_of_explanation, clean, radii=plan.radii, top=plan.top)
    stated = estimate(statement="two-sample")
    exact = estimate(exact=True)
    aim = {"count": int(stated.top), "nonzero": False}
    smooth = SmoothGrad(
        subject.fast, score="probability", sigma=plan.sigma, sigma_mode="absolute", seed=ATTACK
    )
    tried = [x * 0.0]
    for more in ({}, {"source": smooth, "measured": False}):
        attack = build(
            "matched", replace(explainer, seed=ATTACK), epsilon=plan.radii[-1], metric="top-k",
            measure=aim, steps=plan.steps, draws=plan.draws, seed=ATTACK, **more,
        )  # fmt: skip
        there = attack.attack(x, target, ids=ids, clean=clean).inputs
        assert isinstance(there, Tensor)
        tried.append(there - x)
    overlap = METRICS.build("top-k", **aim)
    found, apart = [], []
    for radius in plan.radii:
        results = []
        for shift in tried[1:] if radius else tried[:1]:
            there = moved(x, shift.double(), radius)
            map_ = replace(explainer, seed=FRESH).explain(there, target, ids=ids).parts[0]
            before = clean.parts[0]
            results.append((float(overlap(before, map_)), _apart(before, map_)))
        found.append(min(kept for kept, _ in results))
        apart.append(max(distance for _, distance in results))
    assert stated.distance is not None
    return {
        "states": stated.overlap[0], "were exact": exact.overlap[0],
        "found": torch.tensor(found, dtype=torch.float64),
        "apart states": stated.distance[0], "apart": torch.tensor(apart, dtype=torch.float64),
    }  # fmt: skip


def _apart(a: Tensor, b: Tensor) -> float:
    """The distance of two maps at unit length."""
    a, b = a.double(), b.double()
    return float((a / a.norm() - b / b.norm()).norm())


def steepest(context: Context, subject: Subject, plan: Estimates) -> Tensor:
    """The largest ||grad f|| that ascent from each image finds, and the class, `[B, 2]`.

    x <- x + t H g / ||H g||, the direction in which ||g|| grows; t is 1 in units of the input."""
    names = subject.names[: plan.images]

    def compute(some: Sequence[str]) -> list[Piece]:
        x = subject.inputs(some)
        target = subject.predictions(x)
        bound = SimpleGradient(subject.fast, task="regression").bind(x, target)
        best = torch.zeros(len(x))
        at = bound.origin
        for _ in range(plan.climb):
            here = bound.moved(at)
            slope = here.value_and_grad()[1]
            best = torch.maximum(best, slope.norm(dim=1))
            up = gradient_and_product(here, slope / slope.norm(dim=1, keepdim=True))[1]
            at = at + up / up.norm(dim=1, keepdim=True)
        return [
            {"steepest": torch.stack((b, t.float()))} for b, t in zip(best, target, strict=True)
        ]

    return context.cache.fetch(
        f"{subject.name}-steepest", _key(subject, plan, "steepest"), names, compute, at_once=8
    )["steepest"]
