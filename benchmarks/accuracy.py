"""Vector error, support and zeros at given evaluations; the published output; the floor."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import references as runs
from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.measures import evaluations_at, rms, roots, squared_error, support_iou, zeros
from benchmarks.results import Result, Table


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`sizes` are evaluations of ours, `floor_sizes` those at which the floor is measured.

    `floor` is the number of draws at the reference solution, at least twice the largest of these.
    """

    images: int
    reference: int
    floor: int
    sizes: tuple[int, ...]
    floor_sizes: tuple[int, ...]
    reduced: int
    published_steps: int


# The published algorithm has 9600 evaluations on ResNet-20 and 6400 on SqueezeNet; their half and
# quarter lie within the sizes, or just above.
PLANS = {
    "resnet20": Plan(
        images=12, reference=6144, floor=8192, reduced=1024, published_steps=300,
        sizes=(512, 1024, 2048, 4096, 4800), floor_sizes=(512, 1024, 2048, 4096),
    ),
    "squeezenet": Plan(
        images=2, reference=2048, floor=3072, reduced=512, published_steps=200,
        sizes=(512, 1024, 1536), floor_sizes=(512, 1024, 1536),
    ),
}  # fmt: skip
QUICK = Plan(
    images=2, reference=384, floor=2048, reduced=256, published_steps=4,
    sizes=(256, 512), floor_sizes=(256, 512),
)  # fmt: skip


def run(context: Context, network: str) -> Result:
    subject, setting = subjects.load(network, context.device), runs.Setting()
    plan = QUICK if context.quick else PLANS[network]
    names = subject.names[: plan.images]
    cache = context.cache
    reference = runs.references(subject, setting, cache, names, plan.reference)
    block = min(plan.floor_sizes)
    gradients = runs.floor_gradients(
        subject, setting, cache, names, reference, plan.floor, block, plan.reference
    )
    floors = {
        size: floor(gradients, size // block, setting, reference) for size in plan.floor_sizes
    }
    found = {
        size: _measured(
            runs.ours(subject, setting, cache, names, evaluations=size)["map"], reference
        )
        for size in plan.sizes
    }
    reduced = runs.ours(
        subject, setting, cache, names, evaluations=plan.reduced, dtype=torch.bfloat16
    )
    theirs = runs.published(subject, setting, cache, names, plan.published_steps)
    return _result(
        network, plan, names, setting,
        figures={
            "ours": found,
            "floor": floors,
            "bfloat16": {plan.reduced: _measured(reduced["map"], reference)},
            "published": _measured(theirs, reference),
            "reference_zeros": zeros(reference.mean).tolist(),
            "two_solutions": [
                name for name, split in zip(names, reference.split.tolist(), strict=True) if split
            ],
        },
    )  # fmt: skip


def _measured(maps: Tensor, reference: runs.Reference) -> dict[str, Any]:
    squares = squared_error(maps, reference.a, reference.b)
    iou = support_iou(maps, reference.mean)
    return {
        "rms": rms(squares[_single(reference)]),
        "median": roots(squares).median().item(),
        "iou": iou.median().item(),
        "zeros": zeros(maps).median().item(),
        "squares": squares.tolist(),
        "ious": iou.tolist(),
    }


def floor(
    gradients: Tensor, count: int, setting: runs.Setting, reference: runs.Reference
) -> dict[str, Any]:
    """Of the mean of `count` blocks of draws at the reference solution, `[B, K, n]`.

    Each disjoint group of blocks is held against the two halves of all other blocks: the truth at
    this very point. The long runs A and B would not do, because the point was made from them.
    """
    squares, supports, shares = [], [], []
    for start in range(0, gradients.shape[1] - count + 1, count):
        inside = torch.zeros(gradients.shape[1], dtype=torch.bool)
        inside[start : start + count] = True
        own, others = gradients[:, inside].mean(1), gradients[:, ~inside]
        one, two = others[:, ::2].mean(1), others[:, 1::2].mean(1)
        found, a, b = setting.map(own), setting.map(one), setting.map(two)
        squares.append(squared_error(found, a, b))
        supports.append(support_iou(found, reference.mean).median().item())
        shares.append(zeros(found).median().item())
    mean = torch.stack(squares).mean(0)
    return {
        "rms": rms(mean[_single(reference)]),
        "median": roots(mean).median().item(),
        "iou": statistics.mean(supports),
        "zeros": statistics.mean(shares),
        "squares": mean.tolist(),
        "repeats": len(squares),
    }


def _single(reference: runs.Reference) -> Tensor:
    """Images with one solution; the others have no one error. All, where there are no such."""
    return reference.split if reference.split.all() else ~reference.split


def _result(
    network: str,
    plan: Plan,
    names: tuple[str, ...],
    setting: runs.Setting,
    figures: dict[str, Any],
) -> Result:
    ours, floors, theirs = figures["ours"], figures["floor"], figures["published"]
    true_zeros = statistics.median(figures["reference_zeros"])
    cost = plan.published_steps * 32
    rows: list[list[object]] = []
    for size, item in ours.items():
        at = floors.get(size)
        ratio = item["rms"] / at["rms"] if at else float("nan")
        lowest = at["rms"] if at else float("nan")
        rows.append(["ours", size, *_shown(item), lowest, ratio, at["iou"] if at else "–"])
    for size, item in figures["bfloat16"].items():
        rows.append(["ours, bfloat16", size, *_shown(item), "–", "–", "–"])
    rows.append(["published", cost, *_shown(theirs), "–", "–", "–"])
    equal = {
        kind: evaluations_at(theirs[kind], list(ours), [item[kind] for item in ours.values()])
        for kind in ("rms", "median")
    }
    # Of each image by itself, where both its errors are above the noise of the measurement.
    curves = torch.tensor([item["squares"] for item in ours.values()]).T
    each = [
        evaluations_at(math.sqrt(square), list(ours), curve.sqrt().tolist())
        for square, curve in zip(theirs["squares"], curves, strict=True)
        if square > 0 and bool((curve > 0).all())
    ]
    if each:
        equal["images, geometric mean"] = statistics.geometric_mean(each)
    figures["equal_evaluations"] = equal
    figures["published_evaluations"] = cost
    figures["evaluations_ratio"] = {kind: cost / value for kind, value in equal.items()}
    tables = [
        Table(
            caption=f"Sparse MoreauGrad on {network}, {len(names)} images. Zeros of the "
            f"reference: {true_zeros:.3f}.",
            header=[
                "run", "evaluations", "error, rms", "error, median", "zeros", "support IoU",
                "floor, rms", "error / floor", "IoU of the floor",
            ],
            rows=rows,
        ),
        Table(
            caption="Evaluations of ours that give the published output's error.",
            header=["error compared", "published", "ours", "ratio"],
            rows=[[kind, cost, value, cost / value] for kind, value in equal.items()],
        ),
    ]  # fmt: skip
    return Result(
        title=f"Accuracy on {network}",
        settings=asdict(plan) | asdict(setting) | {
            "images": names,
            "reference_draws": runs.DRAWS,
            "seeds": {
                "reference": [runs.SEED_A, runs.SEED_B], "floor": runs.SEED_FLOOR,
                "ours": runs.SEED_OURS, "published": runs.SEED_PUBLISHED,
            },
        },
        figures=figures,
        tables=tables,
        notes=[
            ("error^2 = <c - A, c - B> / <A, B> with A and B two independent long runs with a "
            f"decaying step ({plan.reference} evaluations each); rms over the images with one "
            f"solution (two were seen for {len(figures['two_solutions'])}), medians and zeros over "
            "all"),
            ("floor: the same threshold of an N-sample mean gradient (antithetic, fresh draws) at "
            "the reference solution, over disjoint sets of draws, each against the others"),
        ],
    )  # fmt: skip


def _shown(item: dict[str, Any]) -> list[object]:
    return [item["rms"], item["median"], item["zeros"], item["iou"]]
