"""The balanced backward pass in vision transformers: faithfulness, and what input times gradient
adds up to."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import product

import torch
from torch import Tensor

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from moreaugrad import InputSpace, Score, build
from moreaugrad.metrics import METRICS
from moreaugrad.reports.statistics import NONE, Intervals
from moreaugrad.score.balanced import BALANCED, EXACT
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.completeness import COMPLETENESS_ERROR


@dataclass(frozen=True, kw_only=True)
class Plan:
    """size: of the regions that are replaced."""

    images: int = 16
    size: int = 4
    steps: int = 16
    draws: int = 5


QUICK = Plan(images=2, steps=2, draws=1)
SEED = 9
"""Of the replacements."""
METHODS = ("simple-gradient", "gradient-x-input")
REDUCTIONS = ("abs-sum", "sum")
"""How a region's relevance is made of its entries."""


def run(context: Context, network: str) -> Result:
    subject = subjects.load(network, context.device)
    plan = QUICK if context.quick else Plan()
    x = subject.inputs(subject.names[: plan.images])
    target, ids = subject.predictions(x), list(range(len(x)))
    bound = Score(subject.fast, batch_size=subject.chunk).bind(x, target, ids=ids)
    intervals, found, rows = Intervals(), {}, []
    for method, reduction in product(METHODS, REDUCTIONS):
        for backward in (EXACT, BALANCED):
            explainer = build(method, subject.fast, backward=backward, batch_size=subject.chunk)
            result = explainer.explain(x, target, ids=ids)
            own = _faithful(plan, bound, result.parts[0], reduction)
            found[f"{method} {reduction} {backward}"] = own.tolist()
            if backward == EXACT:
                exact, compared = own, [math.nan, *NONE]
            else:
                compared = [(own - exact).mean().item(), *intervals.of_mean(own - exact)]
            mean, low, high = own.mean().item(), *intervals.of_mean(own)
            rows.append([method, reduction, backward, mean, low, high, *compared])
    error = result.details[COMPLETENESS_ERROR]
    return Result(
        title=f"The balanced backward pass on {network}",
        settings=asdict(plan) | {"images": subject.names[: plan.images]},
        figures={"aopc": found, "completeness_error": error.tolist()},
        tables=[
            Table(
                caption=f"AOPC of maps by either backward pass, {len(x)} images, and how much more "
                "the balanced one has; 95 % intervals (Student's t, pairs).",
                header=["method", "relevance", "backward", "AOPC", "low", "high",
                        "balanced minus exact", "low", "high"],
                rows=rows,
            ),
            Table(
                caption="Completeness error of the balanced backward pass, over the images.",
                header=["median", "largest"],
                rows=[[error.median().item(), error.max().item()]],
            ),
        ],
        notes=[
            (f"blocks of {plan.size} x {plan.size} pixels, {plan.steps} steps, replaced by values "
            f"in each image's own range, mean of {plan.draws} replacements; their relevance is the "
            "sum of magnitudes (abs-sum), or the sum itself"),
        ],
    )  # fmt: skip


def _faithful(plan: Plan, bound: BoundScore, maps: Tensor, reduction: str) -> Tensor:
    """AOPC `[B]`, each image's regions replaced by values in its own range."""
    aopc = METRICS.build(
        "aopc", size=plan.size, steps=plan.steps, draws=plan.draws, seed=SEED, reduction=reduction
    )
    found = []
    for row in bound.rows[:, None]:
        low, high = (float(end) for end in bound.origin[row].aminmax())
        found.append(aopc(bound.select(row), maps[row], InputSpace(low=low, high=high)))
    return torch.cat(found).cpu()
