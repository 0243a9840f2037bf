"""Noise levels chosen for each image against fixed ones: faithfulness by other random numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.subjects import Subject
from moreaugrad import InputSpace, Score, SmoothGrad, guidance
from moreaugrad.explainers.guidance import SIGMAS, sigma_cost
from moreaugrad.metrics import METRICS
from moreaugrad.reports.statistics import NONE, Intervals


@dataclass(frozen=True, kw_only=True)
class Plan:
    """samples: of the maps that are compared. size: of the regions that are replaced."""

    images: int
    samples: int = 256
    size: int = 4
    steps: int = 20
    draws: int = 10


PLANS = {
    "resnet20": Plan(images=32),
    "vit-gelu": Plan(images=32),
    "vit-relu": Plan(images=32),
    "squeezenet": Plan(images=10, samples=128, size=16, draws=4),
}
QUICK = Plan(images=2, samples=16, steps=2, draws=1)
SEED = 9
"""Of the maps and replacements that are compared; guidance has others."""


def run(context: Context, network: str) -> Result:
    subject, plan = (
        subjects.load(network, context.device),
        QUICK if context.quick else PLANS[network],
    )
    x = subject.inputs(subject.names[: plan.images])
    target, ids = subject.predictions(x), list(range(len(x)))
    found = guidance(subject.fast, x, target, batch_size=subject.chunk, ids=ids)
    chosen = found.sigma.cpu()
    print(f"  {network}: levels {chosen.tolist()}", flush=True)
    fixed = torch.stack([_faithful(subject, plan, x, target, ids, s) for s in SIGMAS], dim=1)
    levels = torch.tensor(SIGMAS, dtype=torch.float64)
    place = (chosen[:, None] == levels).int().argmax(1, keepdim=True)
    auto = fixed.gather(1, place)[:, 0]
    intervals = Intervals()
    rows: list[list[object]] = [
        ["chosen for each image", auto.mean().item(), *intervals.of_mean(auto), *NONE, math.nan]
    ]
    for column, sigma in enumerate(SIGMAS):
        own = fixed[:, column]
        gain = auto - own
        mean, low, high = own.mean().item(), *intervals.of_mean(own)
        rows.append([f"{sigma:g}", mean, low, high, gain.mean().item(), *intervals.of_mean(gain)])
    best = fixed.amax(1)
    rows.append(["best of each image, by these same numbers", best.mean().item(),
                 *intervals.of_mean(best), *NONE, math.nan])  # fmt: skip
    counts = [int((chosen == sigma).sum()) for sigma in SIGMAS]
    return Result(
        title=f"Noise levels chosen for each image of {network}",
        settings=asdict(plan) | {"images": subject.names[: plan.images]},
        figures={
            "sigma": chosen.tolist(), "faithfulness at each level": fixed.tolist(),
            "survival": found.survival.tolist(), "guidance": found.faithfulness.tolist(),
        },
        tables=[
            Table(
                caption=f"AOPC of SmoothGrad, {len(x)} images, and how much more the chosen levels "
                "have; 95 % intervals (Student's t, pairs).",
                header=["sigma", "AOPC", "low", "high", "chosen minus this", "low", "high"],
                rows=rows,
            ),
            Table(
                caption="How often each level was chosen, and the fraction of the noisy images "
                "that keep the class there.",
                header=["sigma", "images", "survival, mean"],
                rows=[
                    [f"{sigma:g}", count, found.survival[:, column].mean().item()]
                    for column, (sigma, count) in enumerate(zip(SIGMAS, counts, strict=True))
                ],
            ),
        ],
        notes=[
            (f"levels by guidance with its own noise and replacements ({sigma_cost()} evaluations "
            f"of each image); AOPC by maps of {plan.samples} noise samples and replacements of "
            "another seed"),
        ],
    )  # fmt: skip


def _faithful(
    subject: Subject, plan: Plan, x: Tensor, target: Tensor, ids: Sequence[int], sigma: float
) -> Tensor:
    """AOPC `[B]` at a level, each input's regions replaced by values in its own range."""
    explainer = SmoothGrad(
        subject.fast, sigma=sigma, samples=plan.samples, seed=SEED, batch_size=subject.chunk
    )
    maps = explainer.explain(x, target, ids=ids).parts[0]
    bound = Score(subject.fast, batch_size=subject.chunk).bind(x, target, ids=ids)
    aopc = METRICS.build("aopc", size=plan.size, steps=plan.steps, draws=plan.draws, seed=SEED)
    return torch.cat([
        aopc(bound.select(row), maps[row],
             InputSpace(low=float(x[row].min()), high=float(x[row].max())))
        for row in bound.rows[:, None]
    ]).cpu()  # fmt: skip
