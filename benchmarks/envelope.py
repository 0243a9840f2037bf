"""What the Moreau envelope itself adds: sparse maps of smooth networks without noise, solved to a
small error, as rho goes from 0 to its limit. At rho 0 the map is the gradient with a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import subjects
from benchmarks.attack_strength import AIM
from benchmarks.cache import Piece, digest_of
from benchmarks.context import Context
from benchmarks.matched_tables import AOPC, FEW, interval_of
from benchmarks.references import PACKAGE, SOLVER
from benchmarks.results import Result, Table
from benchmarks.subjects import Subject
from moreaugrad import InputSpace, Score, SimpleGradient, SparseMoreauGrad, rho_guidance
from moreaugrad.attacks import MatchedAttack
from moreaugrad.metrics import METRICS
from moreaugrad.solvers.solution import Status

NETWORKS = ("resnet20-softplus", "vit-gelu")
SCORES = ("logit", "probability")
CODE = [*SOLVER, PACKAGE / "attacks", PACKAGE / "metrics", PACKAGE / "explainers" / "guidance.py"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """fractions: of the limit of each image and score, the first one next to no reach. epsilon: L2,
    in pixels of [0, 1]. size, replaced, draws: of the regions that faithfulness replaces."""

    images: int = 50
    fractions: tuple[float, ...] = (0.001, 0.5, 0.9)
    tolerance: float = 0.01
    most: int = 128
    epsilon: float = 0.5
    steps: int = 4
    size: int = 4
    replaced: int = 20
    draws: int = 5


QUICK = Plan(images=2, fractions=(0.001, 0.5), most=32, steps=1, replaced=2, draws=1)


def run(context: Context) -> Result:
    plan = QUICK if context.quick else Plan()
    tables, figures = [], {}
    for network in NETWORKS:
        found = measured(context, network, plan)
        figures[network] = {name: values.tolist() for name, values in found.items()}
        tables += _tables(network, plan, found)
    return Result(
        title="What the envelope itself adds",
        settings=asdict(plan),
        figures=figures,
        tables=tables,
        notes=[
            (
                f"Means over {plan.images} images with 95 % intervals (Student's t). Sparse "
                "MoreauGrad with 90 % zeros and sigma 0; rho as a fraction of the limit that "
                "`rho_guidance` estimates for each image. "
                f"{FEW} is under the worse of two attacks of {plan.steps} steps, by the map's own "
                "derivative and by the simple gradient's. converged: fraction of the clean maps "
                f"whose stated error is {plan.tolerance:g} or less after at most {plan.most} "
                "evaluations; the others count too"
            )
        ],
    )  # fmt: skip


def measured(context: Context, network: str, plan: Plan) -> Piece:
    """`kept`, `aopc` and `converged` `[B, scores, fractions]`, and `limit` `[B, scores]`."""
    subject = subjects.load(network, context.device)
    key = {"network": network, "weights": subject.weights, **asdict(plan),
           "code": digest_of(*CODE, Path(__file__))}  # fmt: skip

    def compute(some: Sequence[str]) -> list[Piece]:
        return [_of_image(subject, plan, name) for name in some]

    names = subject.names[: plan.images]
    return context.cache.fetch(f"{network}-envelope", key, names, compute, at_once=1)


def _of_image(subject: Subject, plan: Plan, name: str) -> Piece:
    x = subject.inputs([name])
    target = subject.predictions(x)
    limits = [
        rho_guidance(SparseMoreauGrad(subject.fast, sigma=0, score=score), x, target).limit[0]
        for score in SCORES
    ]
    found = [
        [_of_rho(subject, plan, x, target, score, float(limit) * each) for each in plan.fractions]
        for score, limit in zip(SCORES, limits, strict=True)
    ]
    names = ("kept", "aopc", "converged")
    by_name = torch.tensor(found, dtype=torch.float64).movedim(-1, 0)
    return {
        **{n: v.clone() for n, v in zip(names, by_name, strict=True)},
        "limit": torch.stack(limits),
    }


def _of_rho(
    subject: Subject, plan: Plan, x: Tensor, target: Tensor, score: str, rho: float
) -> tuple[float, float, float]:
    explainer = SparseMoreauGrad(
        subject.fast, sigma=0, score=score, rho=rho, tolerance=plan.tolerance,
        max_evaluations=plan.most, batch_size=subject.chunk,
    )  # fmt: skip
    clean = explainer.explain(x, target)
    overlap = METRICS.build(AIM["metric"], **AIM["measure"])
    space = InputSpace(mean=subject.preprocess.mean, std=subject.preprocess.std)
    kept = []
    for source in (None, SimpleGradient(subject.fast, score=score)):
        attack = MatchedAttack(
            explainer, source=source, measured=source is None, epsilon=plan.epsilon, units="pixel",
            space=space, steps=plan.steps, **AIM,
        )  # fmt: skip
        result = attack.attack(x, target, clean=clean)
        if result.status[0].ok:
            kept.append(float(overlap(clean.maps, result.attacked.maps)))
    bound = Score(subject.fast, batch_size=subject.chunk).bind(x, target)
    aopc = METRICS.build(AOPC, size=plan.size, steps=plan.replaced, draws=plan.draws)
    faithful = aopc(bound, clean.parts[0], InputSpace(low=float(x.min()), high=float(x.max())))
    # NaN where no attack ran, or a map vanished.
    worst = float(torch.tensor(kept or [torch.nan]).min())
    return worst, float(faithful), float(clean.status[0] is Status.CONVERGED)


def _tables(network: str, plan: Plan, found: Piece) -> list[Table]:
    """Means for each rho, and differences from the smallest one image by image."""
    means, more = list[list[object]](), list[list[object]]()
    for column, score in enumerate(SCORES):
        kept, aopc = (found[name][:, column] for name in ("kept", "aopc"))
        for place, fraction in enumerate(plan.fractions):
            own = [interval_of(v[:, place].tolist()) for v in (kept, aopc)]
            converged = float(found["converged"][:, column, place].mean())
            means.append([score, f"{fraction:g}", *own, converged])
            if place:
                gains = [interval_of((v[:, place] - v[:, 0]).tolist()) for v in (kept, aopc)]
                more.append([score, f"{fraction:g}", *gains])
    head = ["score", "rho over its limit"]
    return [
        Table(
            caption=f"{network}: by the reach of the envelope.",
            header=[*head, FEW, AOPC, "converged"], rows=means,
        ),
        Table(
            caption=f"{network}: minus the same at the smallest rho, image by image.",
            header=[*head, FEW, AOPC], rows=more,
        ),
    ]  # fmt: skip
