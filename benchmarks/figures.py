"""The images of the MoreauGrad paper, figures 2 to 5, on networks and images of our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import gallery, subjects
from benchmarks.context import Context
from benchmarks.gallery import Case, Column
from benchmarks.results import Result
from benchmarks.subjects import Subject
from moreaugrad import METHODS

PHOTOS = (
    ("n01622779_great_grey_owl.JPEG", 0),
    ("n01580077_jay.JPEG", 0),
    ("n02444819_otter.JPEG", 0),
    ("n09421951_sandbar.JPEG", 0),
    ("n09421951_sandbar.JPEG", 1),
)
"""Two with a sure prediction, one with an unsure one, and people on a beach for both classes."""
SMALL = 5
"""Images of CIFAR-10: the first of the subject's fair order."""
RHOS = (0.1, 0.3, 1.0, 3.0)
ETAS = (0.001, 0.002, 0.005, 0.01, 0.02)
GROUP_ETAS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""The paper's are 0.005 and 0.05."""
ACCURACY = {"tolerance": 0.25, "max_evaluations": 1024}
"""Enough to be looked at: a cosine of about .97 to the exact map."""
QUICK = {"tolerance": 0.5, "max_evaluations": 32, "samples": 4, "steps": 2, "draws": 2}
PLAIN = 256
"""Evaluations without noise: smooth networks need tens, and with kinks more do not help."""
LEFT_OUT = ("published-moreaugrad",)
"""Its maps take 6400 evaluations."""

SOLVER = "as in the paper, with this package's solver instead of its fixed 300 steps"
DEFAULTS = (
    "each method with its own defaults, but for MoreauGrad's tolerance and max_evaluations; "
    f"noiseless (-plain) ones stop at {PLAIN} evaluations: on a network with kinks they "
    "do not converge"
)

Columns = Callable[[Context, Subject, Sequence[Case]], list[Column]]


def run(context: Context, figure: str, network: str = "squeezenet") -> Result:
    subject = subjects.load(network)
    wanted = PHOTOS if network == "squeezenet" else [(name, 0) for name in subject.names[:SMALL]]
    rows = gallery.cases(subject, wanted[: 2 if context.quick else None])
    title, columns = FIGURES[figure]
    return gallery.result(
        context,
        subject,
        rows,
        columns(context, subject, rows),
        name=f"figure-{figure}" + (f"-{network}" if figure == "methods" else ""),
        title=f"{title} ({network})",
        settings=ACCURACY | ({"plain": PLAIN} if figure == "methods" else {"sigma": 0.1}),
        notes=[DEFAULTS if figure == "methods" else SOLVER],
        band=7,
    )


def _made(
    context: Context, subject: Subject, rows: Sequence[Case], method: str, title: str, **given: Any
) -> Column:
    known = METHODS[method].defaults()
    looser = ACCURACY if "rho" in known else {}
    chosen = looser | given | (QUICK if context.quick else {})
    settings = {name: value for name, value in chosen.items() if name in known}
    return gallery.column(context, subject, rows, method, title, **settings)


def _over_rho(context: Context, subject: Subject, rows: Sequence[Case]) -> list[Column]:
    found = [
        _made(context, subject, rows, "simple-gradient", "simple\ngradient"),
        _made(
            context, subject, rows, "smoothgrad", "ρ → 0\n(SmoothGrad)",
            sigma=0.1, samples=256,
        ),
    ]  # fmt: skip
    return found + [
        _made(context, subject, rows, "moreaugrad", f"ρ = {rho:g}", rho=rho) for rho in RHOS
    ]


def _over_eta(method: str, etas: Sequence[float]) -> Columns:
    def made(context: Context, subject: Subject, rows: Sequence[Case]) -> list[Column]:
        found = [_made(context, subject, rows, "moreaugrad", "η = 0\n(MoreauGrad)")]
        return found + [
            _made(context, subject, rows, method, f"η = {eta:g}", eta=eta) for eta in etas
        ]

    return made


def _all_methods(context: Context, subject: Subject, rows: Sequence[Case]) -> list[Column]:
    found = []
    for name in METHODS:
        if name not in LEFT_OUT:
            few = {"max_evaluations": PLAIN} if name.endswith("-plain") else {}
            found.append(_made(context, subject, rows, name, broken(name), **few))
    return found


def broken(name: str, most: int = 16) -> str:
    """On lines of at most so many letters, where words allow."""
    lines = [""]
    for word in name.split("-"):
        joined = f"{lines[-1]}-{word}" if lines[-1] else word
        lines = [*lines[:-1], joined] if len(joined) <= most else [*lines, word]
    return "-\n".join(lines)


FIGURES: dict[str, tuple[str, Columns]] = {
    "rho": ("MoreauGrad over ρ, the paper's figure 2", _over_rho),
    "eta": (
        "Sparse MoreauGrad over η, the paper's figure 3", _over_eta("sparse-moreaugrad", ETAS)
    ),
    "group-eta": (
        "Group-Sparse MoreauGrad over η, the paper's figure 4",
        _over_eta("group-sparse-moreaugrad", GROUP_ETAS),
    ),
    "methods": ("Methods side by side, as in the paper's figure 5", _all_methods),
}  # fmt: skip
