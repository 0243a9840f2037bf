"""The balanced backward pass in vision transformers: faithfulness, and what input times gradient
adds up to."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from moreaugrad import InputSpace, Score, build
from moreaugrad.metrics import METRICS
from moreaugrad.reports.statistics import NONE, Intervals
from moreaugrad.score.balanced import BALANCED, EXACT
from moreaugrad.score.completeness import COMPLETENESS_ERROR


@dataclass(frozen=True, kw_only=True)
class Plan:
    """size: of the regions that are replaced."""

    images: int = 16
    size: int = 4
    steps: int = 16
    draws: int = 8


QUICK = Plan(images=2, steps=2, draws=1)
SEED = 9
"""Of the replacements."""
METHODS = ("simple-gradient", "gradient-x-input")


def run(context: Context, network: str) -> Result:
    subject = subjects.load(network, context.device)
    plan = QUICK if context.quick else Plan()
    x = subject.inputs(subject.names[: plan.images])
    target, ids = subject.predictions(x), list(range(len(x)))
    bound = Score(subject.fast, batch_size=subject.chunk).bind(x, target, ids=ids)
    intervals, found, errors = Intervals(), {}, {}
    for method in METHODS:
        for backward in (EXACT, BALANCED):
            explainer = build(method, subject.fast, backward=backward, batch_size=subject.chunk)
            result = explainer.explain(x, target, ids=ids)
            maps = result.parts[0]
            found[method, backward] = torch.cat([
                METRICS.build("aopc", size=plan.size, steps=plan.steps, draws=plan.draws,
                              seed=SEED)(
                    bound.select(row), maps[row],
                    InputSpace(low=float(x[row].min()), high=float(x[row].max())),
                )
                for row in bound.rows[:, None]
            ]).cpu()  # fmt: skip
            if backward == BALANCED:
                errors[method] = result.details[COMPLETENESS_ERROR].cpu()
    rows: list[list[object]] = []
    for method in METHODS:
        for backward in (EXACT, BALANCED):
            own = found[method, backward]
            gain = own - found[method, EXACT]
            compared = NONE if backward == EXACT else intervals.of_mean(gain)
            mean = math.nan if backward == EXACT else gain.mean().item()
            rows.append([method, backward, own.mean().item(), *intervals.of_mean(own), mean,
                         *compared])  # fmt: skip
    error = torch.cat(list(errors.values()))
    return Result(
        title=f"The balanced backward pass on {network}",
        settings=asdict(plan) | {"images": subject.names[: plan.images]},
        figures={
            "aopc": {" ".join(key): values.tolist() for key, values in found.items()},
            "completeness_error": error[: len(x)].tolist(),
        },
        tables=[
            Table(
                caption=f"AOPC of maps by either backward pass, {len(x)} images, and how much more "
                "the balanced one has; 95 % intervals (Student's t, pairs).",
                header=["method", "backward", "AOPC", "low", "high", "balanced minus exact",
                        "low", "high"],
                rows=rows,
            ),
            Table(
                caption="Error of completeness of the balanced backward pass, over the images.",
                header=["median", "largest"],
                rows=[[error.median().item(), error.max().item()]],
            ),
        ],
        notes=[
            (f"blocks of {plan.size} x {plan.size} pixels, {plan.steps} steps, replaced by values "
            f"in each image's own range, mean of {plan.draws} replacements"),
        ],
    )  # fmt: skip
