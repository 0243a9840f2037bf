"""How much attacks that are aimed at what is measured damage maps, by their evaluations."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.measures import interval
from benchmarks.results import Result, Table
from moreaugrad import SimpleGradient, SmoothGrad, SparseMoreauGrad
from moreaugrad.attacks import build
from moreaugrad.attacks.base import Attack
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.metrics import METRICS
from moreaugrad.score.inputs import InputSpace

IMAGES, EVALUATIONS, EPSILON, DRAWS, SIGMA = 12, (250, 1000), 0.5, 16, 0.2
JUDGED = {"sigma": SIGMA, "tolerance": 0.25, "max_evaluations": 256}
AIM: dict[str, Any] = {"metric": "top-k", "measure": {"ratio": 0.04, "nonzero": False}}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "implicit": ("matched", {"through": "implicit"}),
    "straight-through": ("matched", {"through": "straight-through"}),
    "Stein": ("matched", {"through": "stein"}),
    "transfer from SmoothGrad": (
        "matched",
        {"source": partial(SmoothGrad, sigma=SIGMA), "measured": False},
    ),
    "transfer from the gradient": ("matched", {"source": SimpleGradient, "measured": False}),
    "random search": ("random-search", {}),
}
TRIED = 2
"""Steps of a first attack; a second one of twice as many shows what a step costs."""


def run(context: Context) -> Result:
    subject = subjects.load("resnet20-softplus", context.device)
    images, evaluations = (2, (200,)) if context.quick else (IMAGES, EVALUATIONS)
    x = subject.inputs(subject.names[:images])
    space = InputSpace(mean=subject.preprocess.mean, std=subject.preprocess.std)
    rows: list[list[object]] = []
    for explainer in (
        SmoothGrad(subject.fast, sigma=SIGMA, samples=64),
        SparseMoreauGrad(subject.fast, **JUDGED),
    ):
        clean = explainer.explain(x)
        for way, (_, given) in WAYS.items():
            if given.get("through") not in (None, *explainer.derivatives):
                continue
            for most in evaluations:
                found = _strength(explainer, way, x, clean, space, most)
                rows.append([explainer.method, way, most, *found])
                print("  " + " ".join(map(str, rows[-1])), flush=True)
    return Result(
        title="Strength of matched attacks",
        settings={
            "images": images, "evaluations": evaluations, "epsilon": EPSILON, "draws": DRAWS,
            "sigma": SIGMA,
        },
        figures={f"{row[0]}, {row[1]}, {row[2]}": row[3] for row in rows},
        tables=[
            Table(
                caption="Softplus ResNet-20, CIFAR-10: what is left of the largest 4 % of all "
                "entries.",
                header=[
                    "method", "attack", "evaluations allowed", "overlap", "95 % interval", "steps",
                    "evaluations", "failed",
                ],
                rows=rows,
            )
        ],
        notes=[
            (
                f"an L2 budget of {EPSILON} in pixels; at least one step, and as many as the "
                f"evaluations pay for, with {DRAWS} noise samples in each"
            ),
            (
                f"overlap: mean over those of {images} images that were attacked, with a bootstrap "
                "interval; lower is a stronger attack. failed: it found nothing to follow"
            ),
        ],
    )  # fmt: skip


def _strength(
    explainer: Explainer, way: str, x: Tensor, clean: Explanation, space: InputSpace, most: int
) -> list[object]:
    few, more = (
        float(_attack(explainer, way, space, steps).attack(x[:2], clean=clean[:2])
              .evaluations.float().mean())
        for steps in (TRIED, 2 * TRIED)
    )  # fmt: skip
    each = (more - few) / TRIED
    steps = max(1, round((most - few) / each) + TRIED)
    found = _attack(explainer, way, space, steps).attack(x, clean=clean)
    overlap = METRICS.build(AIM["metric"], **AIM["measure"])(clean.maps, found.attacked.maps)
    done = overlap[[status.ok for status in found.status]].double()
    low, high = interval(lambda chosen: float(done[chosen].mean()), len(done))
    spent = float(found.evaluations.float().mean())
    failed = len(overlap) - len(done)
    return [float(done.mean()), f"{low:.2f} to {high:.2f}", steps, spent, failed]


def _attack(explainer: Explainer, way: str, space: InputSpace, steps: int) -> Attack:
    name, given = WAYS[way]
    settings = {"draws": DRAWS, **AIM} | given
    if "source" in settings:
        settings["source"] = settings["source"](explainer.forward_func)
    return build(
        name, explainer, epsilon=EPSILON, units="pixel", space=space, steps=steps, **settings
    )
