"""The stated error against the true one where a solve ends, with and without a centre."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks import centre, subjects
from benchmarks import centre_runs as runs
from benchmarks.context import Context
from benchmarks.measures import bounded, roots, squared_error, within_factor
from benchmarks.results import Result, Table


@dataclass(frozen=True, kw_only=True)
class Plan:
    """reference: evaluations of each of the two references. limit: most evaluations.

    network: where it is not the name of the plan. rho: the default is 1. On vit-gelu the problem
    has several solutions there for about a fifth of the images, which no stated error covers, and
    on kws at 0.1 for three of 24; the other networks with 0.1 were not tried at 1.
    """

    images: int
    reference: int = 1024
    tolerances: tuple[float, ...] = (0.1,)
    limit: int = 16384
    rho: float = 1.0
    network: str = ""


PLANS = {
    "resnet20": Plan(
        images=64, reference=centre.PLANS["resnet20"].map_evaluations, tolerances=(0.1, 0.3),
        limit=4096,
    ),
    "squeezenet": Plan(images=8, reference=centre.PHOTOS.map_evaluations),
    "mobilenetv2": Plan(images=8, reference=centre.PHOTOS.map_evaluations),
    "vit-gelu": Plan(images=64, rho=0.1),
    "vit-relu": Plan(images=64, rho=0.1),
    "kws": Plan(images=24, reference=2048, rho=0.01),
    "kws-curved": Plan(images=24, reference=2048, rho=0.1, network="kws"),
    "bytes": Plan(images=12, rho=0.1),
}  # fmt: skip
QUICK = Plan(images=2, reference=centre.QUICK.map_evaluations, tolerances=(0.1, 0.3), limit=256)


def run(context: Context, network: str) -> Result:
    plan = QUICK if context.quick else PLANS[network]
    network = PLANS[network].network or network
    subject = subjects.load(network, context.device)
    setting = runs.Smoothing(rho=plan.rho)
    names = subject.names[: plan.images]
    reference = runs.map_references(subject, setting, context.cache, names, plan.reference)
    single = reference.distance <= runs.SEVERAL
    errors: list[list[object]] = []
    costs: list[list[object]] = []
    figures: dict[str, Any] = {
        "several solutions": [n for n, one in zip(names, single.tolist(), strict=True) if not one],
        "distance of the references": reference.distance.tolist(),
    }
    for tolerance in plan.tolerances:
        for label, centred in centre.CENTRES.items():
            found = runs.explained(
                subject, setting, context.cache, names, runs.MAP, plan.limit,
                tolerance=tolerance, centre=centred,
            )  # fmt: skip
            stated = found["error"].double()
            true = roots(squared_error(found["map"], reference.a, reference.b))
            converged = found["converged"].bool()
            for name, rows in (
                ("all", converged | True),
                ("converged", converged),
                ("one solution", single),
            ):
                ratio = stated[rows] / true[rows]
                below = (ratio < 0.5).double().mean().item()
                errors.append(
                    [
                        tolerance, label, name, int(rows.sum()), ratio.nanmedian().item(),
                        within_factor(stated[rows], true[rows]), below,
                        bounded(stated[rows], true[rows]),
                    ]
                )  # fmt: skip
            quantiles = found["evaluations"].quantile(torch.tensor([0.1, 0.5, 0.9, 1])).tolist()
            costs.append(
                [
                    tolerance, label, int(converged.sum()), stated.median().item(),
                    true.median().item(), *quantiles,
                ]
            )  # fmt: skip
            figures[f"{tolerance}, {label}"] = {
                "stated": stated.tolist(),
                "true": true.tolist(),
                "evaluations": found["evaluations"].tolist(),
                "converged": converged.tolist(),
            }
    return Result(
        title=f"Stated error against true error on {network}, rho {plan.rho:g}",
        settings=asdict(plan) | asdict(setting) | {"images": names},
        figures=figures,
        tables=[
            Table(
                caption=f"Sparse MoreauGrad on {network}, {len(names)} inputs: stated over true "
                "error.",
                header=[
                    "tolerance", "setting", "inputs", "count", "median", "within a factor 2",
                    "below half", "stated >= true",
                ],
                rows=errors,
            ),
            Table(
                caption="Errors and evaluations of all inputs.",
                header=[
                    "tolerance", "setting", "converged", "stated error, median",
                    "true error, median", "evaluations, 10 %", "median", "90 %", "most",
                ],
                rows=costs,
            ),
        ],
        notes=[
            (
                f"true error against two references of {plan.reference} evaluations without a "
                "centre; one solution: they differ by at most "
                f"{runs.SEVERAL:.0%} of their norm; at most {plan.limit} evaluations"
            ),
        ],
    )  # fmt: skip
