"""The descent methods on deterministic scores: which of them should be the default."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from moreaugrad import L1, Noise, Score, Status
from moreaugrad.curvature.krylov import estimate_curvature
from moreaugrad.data.cells import Cells
from moreaugrad.models import load_model
from moreaugrad.solvers import SOLVERS, MoreauProblem, Solution
from moreaugrad.solvers.sparsity import eta_for

TOLERANCES = (1e-2, 1e-3, 1e-4)
TIGHTNESS = (0.5, 0.9)
"""rho lambda: how near rho is to the limit at which the problem stops being convex."""
ZEROS = 0.8
"""Fraction of zeros of the thresholded clean gradient, which sets eta for each sample."""
BUDGET = 600
"""Gradient evaluations, or passes over the fixed set of draws, at which a method stops."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """`smooth`: the solution can be computed to high accuracy, and errors be known."""

    name: str
    model: nn.Module
    inputs: Tensor
    smooth: bool
    sigma: float = 0.0
    samples: int = 1
    budget: int = BUDGET

    def problem(self, tightness: float, dtype: torch.dtype) -> MoreauProblem:
        model, inputs = self.model.to(dtype), self.inputs.to(dtype)
        score = Score(model, sigma=self.sigma, samples=self.samples, noise=Noise(0))
        bound = score.bind(inputs)
        curved = estimate_curvature(bound).weak_convexity.clamp_min(1e-3)
        rho = tightness / curved
        _, gradient = bound.value_and_grad()
        eta = eta_for(gradient.abs(), ZEROS)
        return MoreauProblem(score=bound, rho=rho, eta=eta, penalty=L1(1.0))


def run(context: Context) -> Result:
    rows: list[list[object]] = []
    notes: list[str] = []
    smooth = set()
    for case in _cases(context.quick, notes):
        if case.smooth:
            smooth.add(case.name)
        for tightness in TIGHTNESS[:1] if context.quick else TIGHTNESS:
            rows += _compare(case, tightness)
            for row in rows[-len(SOLVERS) * len(TOLERANCES) :]:
                print("  " + " ".join(map(str, row)), flush=True)
    choice = _choice(rows, smooth)
    return Result(
        title="Descent methods on deterministic scores",
        settings={
            "tolerances": TOLERANCES, "rho lambda": TIGHTNESS, "zeros": ZEROS, "budget": BUDGET,
        },
        figures={"rows": rows, "choice": choice},
        tables=[
            Table(
                caption="Sparse MoreauGrad without noise, or with one fixed set of draws. "
                "Evaluations: median over all samples, those that failed with what they had "
                "spent. Kept: of the converged ones, the share with a true error within the "
                "tolerance. Gap: median objective above the best of the three, in units of the "
                "best one's decrease.",
                header=[
                    "case", "samples", "rho lambda", "tolerance", "solver", "converged",
                    "stalled", "evaluations", "kept", "gap",
                ],
                rows=rows,
            ),
            Table(
                caption="Over all cases and tolerances.",
                header=[
                    "network", "solver", "converged", "evaluations, geometric mean", "gap, mean",
                ],
                rows=choice,
            ),
        ],
        notes=notes,
    )  # fmt: skip


def _compare(case: Case, tightness: float) -> list[list[object]]:
    problem = case.problem(tightness, torch.float32)
    truth = _truth(case, problem, tightness) if case.smooth else None
    start = _objective(problem, problem.start)
    rows: list[list[object]] = []
    for tolerance in TOLERANCES:
        solved = {}
        for name, solver in SOLVERS.items():
            each = 2 if solver.extrapolates else 1
            steps = max(1, case.budget // each)
            solved[name] = solver(tolerance=tolerance, max_steps=steps).solve(problem)
        reached = {name: _objective(problem, item.values) for name, item in solved.items()}
        best = torch.stack(list(reached.values())).amin(0)
        for name, item in solved.items():
            gap = ((reached[name] - best) / (start - best)).median().item()
            rows.append(
                [
                    case.name, len(case.inputs), tightness, tolerance, name,
                    _share(item, Status.CONVERGED), _share(item, Status.STALLED),
                    item.evaluations.double().median().item(),
                    _kept(item, truth, tolerance), gap,
                ]
            )  # fmt: skip
    return rows


def _truth(case: Case, problem: MoreauProblem, tightness: float) -> Tensor:
    """The solution in double precision, of the same problem."""
    double = case.problem(tightness, torch.float64)
    double = replace(double, rho=problem.rho.double(), eta=problem.eta.double())
    u = SOLVERS["spectral"](tolerance=1e-8, max_steps=5000).solve(double).values
    case.model.float()
    return u


def _kept(item: Solution, truth: Tensor | None, tolerance: float) -> float:
    done = torch.tensor([status is Status.CONVERGED for status in item.status])
    if truth is None or not done.any():
        return math.nan
    error = (item.values.double() - truth).norm(dim=1) / truth.norm(dim=1)
    return (error[done] <= tolerance).double().mean().item()


def _objective(problem: MoreauProblem, u: Tensor) -> Tensor:
    return problem.value_and_grad(u)[0] + problem.eta * problem.penalty.value(u)


def _share(item: Solution, status: Status) -> float:
    return statistics.mean(found is status for found in item.status)


def _choice(rows: list[list[Any]], smooth: set[str]) -> list[list[object]]:
    """Per kind of network and solver: converged, evaluations, gap."""
    found: list[list[object]] = []
    for kind in ("smooth", "kinks"):
        for name in SOLVERS:
            own = [
                row for row in rows if row[4] == name and (row[0] in smooth) == (kind == "smooth")
            ]
            if not own:
                continue
            logs = [math.log(row[7]) for row in own]
            converged, gap = (statistics.mean(row[i] for row in own) for i in (5, 9))
            found.append([kind, name, converged, math.exp(statistics.mean(logs)), gap])
    return found


def _cases(quick: bool, notes: list[str]) -> Iterator[Case]:
    count = 2 if quick else 16
    for name, activation, smooth in (("SiLU", nn.SiLU, True), ("ReLU", nn.ReLU, False)):
        model, inputs = _tabular(activation(), 4 * count)
        yield Case(name=f"tabular MLP, {name}", model=model, inputs=inputs, smooth=smooth)
    builtin = load_model("builtin")
    cells = Cells(size=64, seed=2, count=count)
    mean, std = (
        torch.tensor(value).view(-1, 1, 1)
        for value in (builtin.preprocess.mean, builtin.preprocess.std)
    )
    inputs = (torch.stack([cells[i][0] for i in range(count)]) - mean) / std
    yield Case(name="built-in network", model=builtin.module, inputs=inputs, smooth=True)
    try:
        subject = subjects.load("resnet20")
    except subjects.MissingData as error:
        notes.append(f"ResNet-20 left out: {error}")
        return
    inputs = subject.inputs(subject.names[:count])
    yield Case(name="ResNet-20", model=subject.fast, inputs=inputs, smooth=False)
    yield Case(
        name="ResNet-20, 32 fixed draws", model=subject.fast, inputs=inputs[:4], smooth=False,
        sigma=0.1, samples=32, budget=BUDGET // 6,
    )  # fmt: skip


def _tabular(activation: nn.Module, count: int) -> tuple[nn.Module, Tensor]:
    """A trained classifier of 20 standardised features, five of which matter, and new rows."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(2048 + count, 20, generator=random)
    a, b, c, d, e = rows[:, :5].T
    label = torch.stack([a * b, (c - d).sin() + e, d.square() - 1], 1).argmax(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(20, 64), activation, nn.Linear(64, 64), activation, nn.Linear(64, 3)
        )
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(400):
        loss = nn.functional.cross_entropy(model(rows[:2048]), label[:2048])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval().requires_grad_(False), rows[2048:]
