"""The time of passes through a softplus surrogate, and through the same one written out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import moreaugrad as mg
from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.timing import timed
from moreaugrad.reports.statistics import Intervals
from moreaugrad.score.kinks import ACTIVATIONS, Replaced

BETA = 30.0
IMAGES = 4
ROUNDS = 15
PASSES = {"a gradient": 1, "a product with the Hessian": 2}


class Written(nn.Module):
    """Every jump of an activation's slope as torch's softplus, far below the kink too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        rules = {function: partial(self._written, read) for function, read in ACTIVATIONS.items()}
        with Replaced(rules):
            found: Tensor = self.model(x)
        return found

    @staticmethod
    def _written(read: Callable[..., Any], *given: Any, **named: Any) -> Tensor:
        t, activation, _ = read(*given, **named)
        slopes = [a for a, _ in activation.slopes]
        found = activation.first + slopes[0] * (t - activation.kinks[0])
        for kink, before, after in zip(activation.kinks, slopes, slopes[1:], strict=False):
            found = found + (after - before) * F.softplus(t - kink, beta=BETA)
        return found


def run(context: Context) -> Result:
    intervals, rows, figures = Intervals(), [], {}
    for network in ("resnet20", "squeezenet", "mobilenetv2")[: 1 if context.quick else None]:
        subject = subjects.load(network, context.device)
        x = subject.inputs(subject.names[:IMAGES])
        target = subject.predictions(x)
        models = {
            "plain": subject.module, "written": Written(subject.module),
            "surrogate": mg.softplus_surrogate(subject.module, BETA),
        }  # fmt: skip
        for name, order in PASSES.items():
            works = {
                label: partial(_differentiated, model, x, target, order)
                for label, model in models.items()
            }
            taken: dict[str, list[float]] = {label: [] for label in works}
            for _ in range(1 + (2 if context.quick else ROUNDS)):
                for label, work in works.items():
                    taken[label].append(timed(work))
            seconds = {label: np.array(found[1:]) for label, found in taken.items()}
            ratios = np.log(seconds["written"] / seconds["surrogate"])
            ratio = np.exp([ratios.mean(), *intervals.of_mean(ratios)]).tolist()
            medians = {label: float(np.median(found)) for label, found in seconds.items()}
            figures[f"{network}, {name}"] = medians | {"ratio": ratio}
            rows.append([network, name, *medians.values(), *ratio])
            print("  " + " ".join(map(str, rows[-1])), flush=True)
    return Result(
        title="Passes through softplus surrogates",
        settings={"beta": BETA, "images": IMAGES, "rounds": ROUNDS},
        figures=figures,
        tables=[
            Table(
                caption=f"Seconds for {IMAGES} images, medians of {ROUNDS} rounds in turns. ratio: "
                "of the surrogate that is written out to the library's, with a 95 % interval "
                "(Student's t of its logarithm).",
                header=["network", "", "ReLU", "written out", "surrogate", "ratio", "low", "high"],
                rows=rows,
            )
        ],
        notes=["Far below the kink softplus itself is a subnormal number, which is slow on CPUs."],
    )


def _differentiated(model: nn.Module, x: Tensor, target: Tensor, order: int) -> Tensor:
    leaf = x.detach().requires_grad_()
    score = model(leaf).gather(1, target[:, None]).sum()
    (found,) = torch.autograd.grad(score, leaf, create_graph=order > 1)
    if order == 1:
        return found
    return torch.autograd.grad(found, leaf, torch.ones_like(found))[0]
