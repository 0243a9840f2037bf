"""SmoothGrad against Captum's NoiseTunnel: time at equal samples, and at equal error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from captum.attr import NoiseTunnel, Saliency
from torch import Tensor

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.measures import squared_error
from benchmarks.results import Result, Table
from benchmarks.subjects import Subject
from benchmarks.timing import Work, interleaved
from moreaugrad import SmoothGrad

SAMPLES = {"squeezenet": 64, "resnet20": 512}
IMAGES = (1, 4)
SIGMA = 0.3
ROUNDS = 5
EQUAL = 64
"""Noise samples of the comparison at equal error."""
REFERENCE = 512
"""Those of each of the two references for errors."""
ERRORS = {"squeezenet": 1, "resnet20": 4}
"""Images of that comparison."""


def run(context: Context) -> Result:
    rounds = 1 if context.quick else ROUNDS
    rows: list[list[object]] = []
    ratios: dict[str, float] = {}
    for network, samples in SAMPLES.items():
        subject = subjects.load(network, context.device)
        inputs = subject.inputs(subject.names[: max(IMAGES)])
        target = subject.predictions(inputs)
        for count in IMAGES:
            x, classes = inputs[:count], target[:count]
            works: dict[str, Work] = {
                "captum": partial(_tunnel, subject, x, classes, samples),
                "ours": partial(_ours(subject, samples, centre=False).explain, x, target=classes),
            }
            seconds = interleaved(works, rounds)
            ratio = seconds["ours"] / seconds["captum"]
            ratios[f"{network}, {count}"] = ratio
            rows.append([network, count, samples, subject.chunk, *seconds.values(), ratio])
            print("  " + " ".join(map(str, rows[-1])), flush=True)
    equal = [_at_equal_error(context, network, rounds) for network in SAMPLES]
    return Result(
        title="SmoothGrad against Captum's NoiseTunnel",
        settings={"samples": SAMPLES, "sigma": SIGMA, "rounds": rounds},
        figures={
            "ours / captum": ratios,
            "times faster at equal error": {row[0]: row[-1] for row in equal},
        },
        tables=[
            Table(
                caption="Seconds (medians of turns) of the same network, samples and chunk.",
                header=["network", "images", "samples", "chunk", "Captum", "ours", "ours / Captum"],
                rows=rows,
            ),
            Table(
                caption=f"Squared relative errors of {EQUAL} noise samples, and seconds.",
                header=[
                    "network", "images", *(f"error^2, {name}" for name in KINDS),
                    *(f"seconds, {name}" for name in KINDS), "times faster at equal error",
                ],
                rows=equal,
            ),
        ],
        notes=[
            (
                "Captum: NoiseTunnel(Saliency(model)), abs=False; ours also states the map's "
                "error, and in the first table has no centre"
            ),
            (
                "error^2 = <c - A, c - B> / <A, B>, mean over the images, with A and B two "
                f"independent means of {REFERENCE} noise samples without a centre. Times faster: "
                "Captum's error^2 times its seconds, over those of ours with a centre, as squared "
                "errors fall with the number of samples"
            ),
        ],
    )  # fmt: skip


KINDS = ("Captum", "ours", "ours, centred")


def _tunnel(subject: Subject, x: Tensor, classes: Tensor, samples: int) -> Tensor:
    found: Tensor = NoiseTunnel(Saliency(subject.fast)).attribute(
        x, nt_type="smoothgrad", nt_samples=samples, stdevs=SIGMA, target=classes, abs=False,
        nt_samples_batch_size=subject.chunk // len(x),
    )  # fmt: skip
    return found


def _ours(subject: Subject, samples: int, **settings: Any) -> SmoothGrad:
    return SmoothGrad(
        subject.fast, sigma=SIGMA, sigma_mode="absolute", samples=samples,
        batch_size=subject.chunk, **settings,
    )  # fmt: skip


def _at_equal_error(context: Context, network: str, rounds: int) -> list[Any]:
    """A row of the second table."""
    subject = subjects.load(network, context.device)
    x = subject.inputs(subject.names[: ERRORS[network]])
    classes = subject.predictions(x)
    works: dict[str, Callable[[], Tensor]] = {
        "Captum": partial(_tunnel, subject, x, classes, EQUAL)
    }
    for name, centre in (("ours", False), ("ours, centred", True)):
        works[name] = partial(_ours(subject, EQUAL, centre=centre).attribute, x, target=classes)
    a, b = (
        _ours(subject, REFERENCE, centre=False, seed=seed).attribute(x, target=classes).flatten(1)
        for seed in (1, 2)
    )
    squares = [float(squared_error(work().flatten(1), a, b).mean()) for work in works.values()]
    seconds = list(interleaved(works, rounds).values())
    faster = squares[0] * seconds[0] / (squares[2] * seconds[2])
    return [network, len(x), *squares, *seconds, faster]
