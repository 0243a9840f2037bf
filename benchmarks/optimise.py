"""What each step of `mg.optimise` saves of a gradient, and what it changes."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.measures import interval
from benchmarks.results import Result, Table
from benchmarks.timing import timed
from moreaugrad import Optimised, Score, optimise

SAMPLES = {"squeezenet": 4, "resnet20": 32}
IMAGES, ROUNDS = 4, 21
SIGMA = 0.3


def run(context: Context) -> Result:
    rounds = 2 if context.quick else ROUNDS
    rows: list[list[object]] = []
    figures: dict[str, dict[str, list[float]]] = {}
    for network, samples in SAMPLES.items():
        subject = subjects.load(network)
        x = subject.inputs(subject.names[:IMAGES])
        target = subject.predictions(x)
        found = optimise(subject.module, x, target, dtype=torch.bfloat16)
        networks = {"as given": subject.module, **_after_each_step(found)}
        works = {}
        for name, module in networks.items():
            score = Score(
                module, batch_size=subject.chunk, sigma=SIGMA, sigma_mode="absolute",
                samples=samples,
            )  # fmt: skip
            works[name] = score.bind(x, target).value_and_grad
            works[name]()
        seconds = torch.tensor([[timed(work) for work in works.values()] for _ in range(rounds)])
        each = seconds.double() / (IMAGES * samples)
        errors = {step.name: step for step in found.steps}
        for column, name in enumerate(networks):
            saved = partial(_ratio, each, column)
            figures.setdefault(network, {})[name] = [
                ratio := saved(torch.arange(rounds)), *(ends := interval(saved, rounds)),
            ]  # fmt: skip
            step = errors.get(name)
            rows.append(
                [network, name, 1000 * each[:, column].median().item(), ratio,
                 "–" if column == 0 else f"{ends[0]:.2f} to {ends[1]:.2f}",
                 "–" if step is None else f"{step.output_error:.1e}",
                 "–" if step is None else f"{step.gradient_error:.1e}"]
            )  # fmt: skip
            print("  " + " ".join(map(str, rows[-1])), flush=True)
    return Result(
        title="Steps of mg.optimise",
        settings={"images": IMAGES, "samples": SAMPLES, "rounds": rounds},
        figures={"times faster": figures},
        tables=[
            Table(
                caption="A gradient at one noise sample, with all steps up to this one.",
                header=[
                    "network",
                    "step",
                    "ms",
                    "times faster",
                    "95 % interval",
                    "change of outputs by the step",
                    "of input gradients",
                ],
                rows=rows,
            )
        ],
        notes=[
            "times faster: median of the ratios of rounds in turns, and its bootstrap interval",
            "changes: relative, the largest of the images, as `optimise` states them",
        ],
    )


def _after_each_step(found: Optimised) -> dict[str, torch.nn.Module]:
    """The network after each step that was applied, with those before it."""
    names = [step.name for step in found.steps if step.applied]
    settings = {"fold_batchnorm": False, "channels_last": False, "dtype": None}
    after = {}
    for name in names:
        settings[name] = torch.bfloat16 if name == "dtype" else True
        after[name] = optimise(found.original, None, **settings).model
    return after


def _ratio(each: torch.Tensor, column: int, chosen: torch.Tensor) -> float:
    return float((each[chosen, 0] / each[chosen, column]).median())
