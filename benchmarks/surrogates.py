"""The time of first and second derivatives of smooth networks: by torch alone, and as methods and
attacks compute them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
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
from moreaugrad.curvature.second_derivatives import twice_differentiable
from moreaugrad.reports.statistics import Intervals
from moreaugrad.score.kinks import ACTIVATIONS, Replaced

BETA = 30.0
IMAGES = 4
ROUNDS = 15
PASSES = {"a gradient": 1, "a product with the Hessian": 2}
NETWORKS = ("resnet20-softplus", "resnet20", "squeezenet", "mobilenetv2")
SMOOTH = NETWORKS[:1]
"""Those that need no surrogate."""


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
    for network in NETWORKS[: 2 if context.quick else None]:
        subject = subjects.load(network, context.device)
        x = subject.inputs(subject.names[:IMAGES])
        target = subject.predictions(x)
        plain, smooth = subject.module, network in SMOOTH
        models = {
            "network": plain,
            "torch": plain if smooth else Written(plain),
            "library": plain if smooth else mg.softplus_surrogate(plain, BETA),
        }
        for name, order in PASSES.items():
            works = {
                label: partial(_differentiated, model, x, target, order, label == "library")
                for label, model in models.items()
            }
            taken: dict[str, list[float]] = {label: [] for label in works}
            for _ in range(1 + (2 if context.quick else ROUNDS)):
                for label, work in works.items():
                    taken[label].append(timed(work))
            seconds = {label: np.array(found[1:]) for label, found in taken.items()}
            ratios = np.log(seconds["torch"] / seconds["library"])
            ratio = np.exp([ratios.mean(), *intervals.of_mean(ratios)]).tolist()
            medians = {label: float(np.median(found)) for label, found in seconds.items()}
            figures[f"{network}, {name}"] = medians | {"ratio": ratio}
            rows.append([network, name, *medians.values(), *ratio])
            print("  " + " ".join(map(str, rows[-1])), flush=True)
    return Result(
        title="First and second derivatives of smooth networks",
        settings={"beta": BETA, "images": IMAGES, "rounds": ROUNDS},
        figures=figures,
        tables=[
            Table(
                caption=f"Seconds for {IMAGES} images, medians of {ROUNDS} rounds in turns. "
                "network: without a surrogate. torch: its own softplus for each jump of an "
                "activation's slope (none in resnet20-softplus), and its own second derivatives. "
                "library: as methods and attacks compute them. ratio: of torch to library, with a "
                "95 % interval (Student's t of its logarithm).",
                header=["network", "", *models, "ratio", "low", "high"],
                rows=rows,
            )
        ],
        notes=[
            (
                "Far below the kink softplus itself is a subnormal number, which is slow on CPUs. "
                "In a second derivative torch computes the part of a convolution's weights too."
            )
        ],
    )


def _differentiated(
    model: nn.Module, x: Tensor, target: Tensor, order: int, library: bool
) -> Tensor:
    leaf = x.detach().requires_grad_()
    with twice_differentiable(by_inputs=True) if library and order > 1 else nullcontext():
        score = model(leaf).gather(1, target[:, None]).sum()
        (found,) = torch.autograd.grad(score, leaf, create_graph=order > 1)
        if order == 1:
            return found
        return torch.autograd.grad(found, leaf, torch.ones_like(found))[0]
