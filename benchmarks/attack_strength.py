"""How strong attacks on MoreauGrad maps are, by their derivative, at equal evaluations."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from moreaugrad import GroupSparseMoreauGrad, SimpleGradient, SparseMoreauGrad
from moreaugrad.attacks import build
from moreaugrad.attacks.base import Attack
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.metrics import aggregate, top_k_intersection
from moreaugrad.score.inputs import InputSpace

PICTURES, EVALUATIONS, EPSILON, DRAWS = 8, 2500, 0.5, 16
JUDGED = {"tolerance": 0.25, "max_evaluations": 512}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "implicit": ("top-k", {"through": "implicit"}),
    "straight-through": ("top-k", {"through": "straight-through"}),
    "unrolled": ("top-k", {"through": "unrolled"}),
    "Stein": ("top-k", {"through": "stein"}),
    "Stein, many draws": ("top-k", {"through": "stein", "draws": 4 * DRAWS}),
    "transfer from the gradient": ("top-k", {"source": SimpleGradient, "measured": False}),
    "random search": ("random-search", {}),
    "as released": ("published-top-k", {}),
}
TRIED = 2
"""Steps of a first attack, which shows how many the evaluations pay for."""
NOTE = """Top-k attacks at an L2 budget of {epsilon} in pixels; each attack has as many steps as
about {evaluations} evaluations pay for, {draws} draws at each unless said otherwise. overlap: of
the largest 40 % of the clean map's entries that are not zero, the mean over {pictures} images;
lower is a stronger attack. failed: images on which the attack found nothing to follow."""


def run(context: Context) -> Result:
    subject = subjects.load("resnet20-softplus", context.device)
    pictures, evaluations = (2, 200) if context.quick else (PICTURES, EVALUATIONS)
    x = subject.inputs(subject.names[:pictures])
    space = InputSpace(mean=subject.preprocess.mean, std=subject.preprocess.std)
    rows: list[list[object]] = []
    for explainer in (
        SparseMoreauGrad(subject.fast, **JUDGED),
        GroupSparseMoreauGrad(subject.fast, **JUDGED),
    ):
        clean = explainer.explain(x)
        for way in WAYS:
            rows.append(
                [explainer.method, way, *_strength(explainer, way, x, clean, space, evaluations)]
            )
            print("  " + " ".join(map(str, rows[-1])), flush=True)
    return Result(
        title="Strength of attacks on MoreauGrad maps",
        settings={
            "images": pictures, "evaluations": evaluations, "epsilon": EPSILON, "draws": DRAWS,
        },
        figures={f"{row[0]}, {row[1]}": row[2] for row in rows},
        tables=[
            Table(
                caption="Softplus ResNet-20, CIFAR-10.",
                header=["method", "attack", "overlap", "steps", "evaluations", "failed"],
                rows=rows,
            )
        ],
        notes=[
            NOTE.format(
                epsilon=EPSILON, evaluations=evaluations, draws=DRAWS, pictures=pictures
            )
        ],
    )  # fmt: skip


def _strength(
    explainer: Explainer, way: str, x: Tensor, clean: Explanation, space: InputSpace, most: int
) -> list[object]:
    tried = _attack(explainer, way, space, TRIED).attack(x[:2])
    each = float(tried.evaluations.float().mean()) / TRIED
    steps = max(1, round(most / each))
    found = _attack(explainer, way, space, steps).attack(x, clean=clean)
    overlap = aggregate(top_k_intersection(clean.maps, found.attacked.maps))
    failed = sum(not status.ok for status in found.status)
    return [overlap.mean, steps, float(found.evaluations.float().mean()), failed]


def _attack(explainer: Explainer, way: str, space: InputSpace, steps: int) -> Attack:
    name, given = WAYS[way]
    settings = {"draws": DRAWS} | given
    if "source" in settings:
        settings["source"] = settings["source"](explainer.forward_func)
    return build(
        name, explainer, epsilon=EPSILON, units="pixel", space=space, steps=steps, **settings
    )
