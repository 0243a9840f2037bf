"""The galleries of the CASO paper, on networks and images of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks import gallery, subjects
from benchmarks.caso import spread
from benchmarks.context import Context
from benchmarks.figures import PHOTOS
from benchmarks.gallery import Case, Column
from benchmarks.results import Result
from benchmarks.subjects import Subject
from moreaugrad import Status, build
from moreaugrad.solvers.sparsity import eta_for

ROWS, POOL = 6, 100
SHARES = (2, 4, 8, 16, 32, 64, 128)
"""Of the largest entry of the gradient: lambda1 is it divided by these."""
SWEPT = ("n02444819_otter.JPEG", "n01622779_great_grey_owl.JPEG")
"""An unsure prediction and a sure one."""
COMPARED = (
    ("simple-gradient", "gradient", {}),
    ("integrated-gradients-local", "integrated\ngradients", {}),
    ("smoothgrad", "SmoothGrad", {}),
    ("cafo", "CAFO", {}),
    ("caso", "CASO", {}),
    ("smooth-cafo", "smooth CAFO", {}),
    ("smooth-caso", "smooth CASO", {"hessian": "gauss-newton"}),
)


def confidence(context: Context, network: str) -> Result:
    """Figures 2 and 8 (a piecewise linear network) and 9 (a smooth one)."""
    subject = subjects.load(network)
    names = spread(subject, 2 if context.quick else ROWS, 10 if context.quick else POOL)
    rows = gallery.cases(subject, [(name, 0) for name, _ in names])
    columns = [
        gallery.column(context, subject, rows, method, title, **settings)
        for method, title, settings in (
            ("cafo", "CAFO\nλ₁ = 0", {"lambda1": 0.0}),
            ("caso", "CASO\nλ₁ = 0", {"lambda1": 0.0}),
            ("cafo", "CAFO\n90 % zeros", {}),
            ("caso", "CASO\n90 % zeros", {}),
            ("cafo", "CAFO\nsearch", {"lambda1": "search"}),
            ("caso", "CASO\nsearch", {"lambda1": "search"}),
        )
    ]
    numbers = "figures 2 and 8" if network == "squeezenet" else "figure 9"
    return gallery.result(
        context, subject, rows, columns,
        name=f"figure-confidence-{network}",
        title=f"CAFO and CASO by confidence, the CASO paper's {numbers} ({network})",
        settings={"c1": 10.0, "pool": POOL},
        notes=["from the least sure prediction to the surest; search: lambda1 by the paper's rule"],
    )  # fmt: skip


def comparison(context: Context) -> Result:
    """Figures 4 and 11 to 16."""
    subject = subjects.load("squeezenet")
    rows = gallery.cases(subject, PHOTOS[: 1 if context.quick else None])
    some = COMPARED[:4] if context.quick else COMPARED
    columns = [
        gallery.column(context, subject, rows, method, title, **settings)
        for method, title, settings in some
    ]
    return gallery.result(
        context, subject, rows, columns,
        name="figure-comparison",
        title="Methods side by side, as in the CASO paper's figures 4 and 11 to 16 (squeezenet)",
        settings={"c1": 10.0, "sigma": 0.15},
        notes=["the last two rows are one photo with two objects, explained for both"],
    )  # fmt: skip


def lambda1(context: Context) -> Result:
    """Figure 3: a sweep of lambda1, with the one that the search chooses, against clipping."""
    subject = subjects.load("squeezenet")
    cases = gallery.cases(subject, [(name, 0) for name in SWEPT[: 1 if context.quick else None]])
    results = [_sweep(context, subject, case) for case in cases]
    first = results[0]
    return Result(
        title="CAFO and CASO over lambda1, the CASO paper's figure 3 (squeezenet)",
        settings=first.settings,
        figures={case.name: each.figures for case, each in zip(cases, results, strict=True)},
        tables=[table for each in results for table in each.tables],
        notes=first.notes,
        pictures={name: data for each in results for name, data in each.pictures.items()},
    )


def _sweep(context: Context, subject: Subject, case: Case) -> Result:
    plain = gallery.column(context, subject, [case], "cafo", lambda1=0.0, c1=0.5).maps
    # c1 = 1/2 makes lambda2 a half, and the map the gradient itself.
    largest = float(plain.abs().max())
    chosen = {
        method: float(_explained(subject, case, method).eta[0]) for method in ("cafo", "caso")
    }
    columns = []
    for share in SHARES:
        weight = largest / share
        both = [
            gallery.column(context, subject, [case], method, lambda1=weight)
            for method in ("cafo", "caso")
        ]
        zeros = float(both[1].zeros[0])
        magnitude = plain.abs().flatten(1)
        clipped = torch.where(plain.abs() > eta_for(magnitude, zeros).view(-1, 1, 1, 1), plain, 0.0)
        marks = [name.upper() for name, eta in chosen.items() if abs(eta / weight - 1) < 1e-3]
        mark = f"\nchosen: {', '.join(marks)}" if marks else ""
        columns.append(
            Column(
                title=f"λ₁ = max|g| / {share}{mark}",
                maps=torch.cat([both[0].maps, both[1].maps, clipped]),
                status=(*both[0].status, *both[1].status, Status.DIRECT),
                error=torch.cat([both[0].error, both[1].error, both[0].error]),
                evaluations=torch.cat([each.evaluations for each in (*both, both[0])]),
            )
        )
    rows = [
        Case(name=case.name, target=case.target, label=label, probability=case.probability)
        for label in ("CAFO", "CASO", "clipped gradient")
    ]
    stem = case.name.partition(".")[0].partition("_")[2].replace("_", "-")
    return gallery.result(
        context, subject, rows, columns,
        name=f"figure-lambda1-{stem}",
        title="", settings={"c1": 10.0, "shares": SHARES},
        notes=["the gradient is clipped to CASO's share of zeros; chosen: by the paper's search"],
    )  # fmt: skip


def _explained(subject: Subject, case: Case, method: str) -> Any:
    explainer = build(method, subject.fast, std=list(subject.preprocess.std), lambda1="search")
    return explainer.explain(subject.inputs([case.name]), [case.target])


def run(context: Context, figure: str, **settings: Any) -> Result:
    return FIGURES[figure](context, **settings)


FIGURES: dict[str, Callable[..., Result]] = {
    "confidence": confidence,
    "comparison": comparison,
    "lambda1": lambda1,
}
