"""Pixels of maps that are certified important or unimportant, by method."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from benchmarks import subjects
from benchmarks.cache import Piece, digest_of
from benchmarks.context import Context
from benchmarks.references import PACKAGE, SOLVER
from benchmarks.results import Result, Table
from benchmarks.subjects import Subject
from moreaugrad import InputSpace, build
from moreaugrad.certificates import PixelCertificate, certify_pixels
from moreaugrad.reports.statistics import Intervals

METHODS: Mapping[str, dict[str, Any]] = {
    "simple-gradient": {},
    "grad-cam": {},
    "deeplift": {},
    "integrated-gradients": {"steps": 16},
    "smoothgrad": {"samples": 16},
    "sparsified-smoothgrad": {"samples": 16},
    "cafo": {},
    "sparse-moreaugrad": {"tolerance": 0.3, "max_evaluations": 64},
}
RADII = (0.05, 0.10, 0.15, 0.20, 0.25)
"""L2, in pixels of [0, 1]."""
SHOWN = 0.10
"""The radius at which classes are counted apart, that of the threshold."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The setting of Anani et al. (2025), with fewer images."""

    images: int
    sigma: float = 0.15
    samples: int = 100
    top: float = 0.1
    threshold: float = 0.75
    confidence: float = 0.999


PLANS = {"resnet20": Plan(images=16), "squeezenet": Plan(images=5)}
QUICK = Plan(images=2, samples=60, confidence=0.9)


def run(context: Context, network: str) -> Result:
    subject, plan = (
        subjects.load(network, context.device),
        QUICK if context.quick else PLANS[network],
    )
    names, intervals = subject.names[: plan.images], Intervals()
    rows: list[list[object]] = []
    for method in METHODS:
        found = _fractions(context, subject, plan, names, method)
        kinds = {kind: found[kind] for kind in ("important", "unimportant")}
        either = kinds["important"] + kinds["unimportant"]
        low, high = intervals.of_mean(either[:, RADII.index(SHOWN)].numpy())
        cells: list[object] = either.mean(0).tolist()
        if not math.isnan(low):
            cells[RADII.index(SHOWN)] = f"{cells[RADII.index(SHOWN)]:.3f} [{low:.3f}, {high:.3f}]"
        rows.append([
            method, *cells,
            *(each[:, RADII.index(SHOWN)].mean().item() for each in kinds.values()),
            int(found["short"].sum()), found["evaluations"].mean().item(),
        ])  # fmt: skip
    header = [f"{radius:g}" for radius in RADII]
    return Result(
        title=f"Certified pixels of maps on {network}",
        settings=asdict(plan) | {"methods": dict(METHODS), "images": names},
        figures={"rows": rows},
        tables=[
            Table(
                caption=f"Fraction of all pixels whose vote is certified up to each radius (L2, "
                f"pixels of [0, 1]), {len(names)} images.",
                header=["method", *header, f"important at {SHOWN:g}",
                        f"unimportant at {SHOWN:g}", "maps short of their accuracy",
                        "evaluations of an image"],
                rows=rows,
            )
        ],
        notes=[
            (
                "important: certified to be among the largest tenth of the pixels in most maps at "
                "noisy inputs; the rest abstains. All pixels of an image together, with the "
                "confidence of the settings; 95 % intervals of ten images or more (Student's t)"
            )
        ],
    )  # fmt: skip


def _fractions(
    context: Context, subject: Subject, plan: Plan, names: Sequence[str], method: str
) -> Piece:
    """Fractions of the pixels `[B, R]`, maps short of their accuracy and evaluations `[B]`."""
    space = InputSpace(mean=subject.preprocess.mean, std=subject.preprocess.std)
    own = asdict(plan)
    del own["images"]

    def compute(some: Sequence[str]) -> list[Piece]:
        x = subject.inputs(some)
        explainer = build(method, subject.fast, batch_size=subject.chunk, **METHODS[method])
        ids = [subject.names.index(name) for name in some]
        found = certify_pixels(explainer, x, subject.predictions(x), space=space, ids=ids, **own)
        return [_piece(found, row) for row in range(len(some))]

    key = {"network": subject.name, "method": method, "settings": json.dumps(METHODS[method]),
           **own, "code": digest_of(*SOLVER, PACKAGE / "certificates")}  # fmt: skip
    return context.cache.fetch(f"{subject.name}-pixels", key, names, compute, at_once=1)


def _piece(found: PixelCertificate, row: int) -> Piece:
    def fraction(vote: bool) -> Tensor:
        return found.fraction(RADII, vote=vote)[row].float()

    return {
        "important": fraction(True), "unimportant": fraction(False),
        "short": found.short[row].float(), "evaluations": found.evaluations[row].float(),
    }  # fmt: skip
