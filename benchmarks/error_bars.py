"""The stated error against the true one, where the library stops by its own rule."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import accuracy, subjects
from benchmarks import references as runs
from benchmarks.context import Context
from benchmarks.measures import bounded, roots, squared_error, within_factor
from benchmarks.results import Result, Table


@dataclass(frozen=True, kw_only=True)
class Plan:
    images: int
    reference: int
    tolerance: float


PLANS = {
    "resnet20": Plan(images=64, reference=2048, tolerance=0.2),
    "squeezenet": Plan(images=24, reference=512, tolerance=0.2),
}
QUICK = Plan(images=2, reference=384, tolerance=0.3)


def run(context: Context, network: str) -> Result:
    subject, setting = subjects.load(network, context.device), runs.Setting()
    plan = QUICK if context.quick else PLANS[network]
    names = subject.names[: plan.images]
    a, b, split = _references(context, subject, setting, plan, names)
    found = runs.ours(subject, setting, context.cache, names, tolerance=plan.tolerance)
    stated = found["error"].double()
    true = roots(squared_error(found["map"], a, b))
    quantiles = (true / stated).quantile(torch.tensor([0.1, 0.5, 0.9], dtype=true.dtype)).tolist()
    rows: list[list[object]] = []
    figures: dict[str, object] = {
        "stated": stated.tolist(),
        "true": true.tolist(),
        "evaluations": found["evaluations"].tolist(),
        "two_solutions": [name for name, two in zip(names, split.tolist(), strict=True) if two],
    }
    for label, rowset in (("all", split | True), ("one solution", ~split)):
        share = within_factor(stated[rowset], true[rowset])
        above = bounded(stated[rowset], true[rowset])
        rows.append([label, int(rowset.sum()), share, above])
        figures[label] = {"within a factor 2": share, "stated >= true": above}
    figures["true / stated"] = dict(zip(("10 %", "50 %", "90 %"), quantiles, strict=True))
    spent = found["evaluations"]
    return Result(
        title=f"Stated error against true error on {network}",
        settings=asdict(plan) | asdict(setting) | {"images": names},
        figures=figures,
        tables=[
            Table(
                caption=f"Sparse MoreauGrad on {network}, to a stated error of {plan.tolerance}.",
                header=["images", "count", "within a factor 2", "stated >= true"],
                rows=rows,
            ),
            Table(
                caption="True over stated error, and evaluations.",
                header=["", "10 %", "median", "90 %"],
                rows=[
                    ["true / stated", *quantiles],
                    ["true error", *true.quantile(true.new_tensor([0.1, 0.5, 0.9])).tolist()],
                    ["evaluations", *spent.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()],
                ],
            ),
        ],
        notes=[
            (
                f"true error against two long runs of {plan.reference} evaluations (longer where "
                "the accuracy part has them); one solution: the two runs agree within three times "
                "their own errors"
            ),
        ],
        pictures={f"error-bars-{network}.png": _picture(stated, true, network)},
    )


def _references(
    context: Context,
    subject: subjects.Subject,
    setting: runs.Setting,
    plan: Plan,
    names: Sequence[str],
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of the accuracy part for the images that it has, shorter ones for the others."""
    known = accuracy.QUICK if context.quick else accuracy.PLANS[subject.name]
    parts = [
        runs.references(subject, setting, context.cache, some, evaluations)
        for some, evaluations in (
            (names[: known.images], known.reference),
            (names[known.images :], plan.reference),
        )
        if some
    ]
    a, b, split = (
        torch.cat([getattr(part, field) for part in parts]) for field in ("a", "b", "split")
    )
    return a, b, split


def _picture(stated: Tensor, true: Tensor, network: str) -> bytes:
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axes = figure.subplots()
    ends = [min(stated.min(), true[true > 0].min()) / 1.3, max(stated.max(), true.max()) * 1.3]
    axes.fill_between(ends, [e / 2 for e in ends], [e * 2 for e in ends], alpha=0.15, lw=0)
    axes.plot(ends, ends, lw=0.8)
    axes.loglog(stated, true, ".", color="black")
    axes.set(xlabel="stated relative error", ylabel="true relative error", title=network)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
