"""Milliseconds of one gradient evaluation: the published way and ours, side by side.

    python -m benchmarks.speed NETWORK THREADS ROUNDS

is what the part runs in processes of its own, because the allocator is set by the environment.
"""

from __future__ import annotations

import copy
import json
import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine, results, subjects
from benchmarks.context import Context
from benchmarks.published import published_moreaugrad
from benchmarks.references import Setting
from benchmarks.results import Result, Table
from benchmarks.timing import Work, interleaved
from moreaugrad import SparseMoreauGrad

NETWORKS = ("resnet20", "squeezenet")
ALLOCATORS: dict[str, dict[str, str]] = {"default": {}, "keeps its pages": machine.KEPT_PAGES}
SAMPLES = 32
"""Noisy copies a step, of the published algorithm."""
BUDGET = 256
"""Evaluations of ours an image: a whole explanation, with everything that comes with it."""
ROUNDS = 3
STEPS = {"resnet20": 16, "squeezenet": 4}
SEVERAL = {"resnet20": 8, "squeezenet": 1}
"""Images explained at once: small ones fill a pass only together."""


def run(context: Context) -> Result:
    found: dict[str, dict[str, dict[str, float]]] = {}
    rounds = 1 if context.quick else ROUNDS
    subjects.load("resnet20")
    for network in NETWORKS:
        found[network] = {}
        for name, settings in ALLOCATORS.items():
            printed = machine.run_module(
                "benchmarks.speed", network, context.threads, rounds,
                environment=settings | {"OMP_NUM_THREADS": str(context.threads)},
            )  # fmt: skip
            found[network][name] = json.loads(printed)
            print(f"  {network}, allocator {name}: {printed}", flush=True)
    forms = list(found["resnet20"]["default"])
    rows = [
        [network, name, *(times.get(form, float("nan")) for form in forms)]
        for network, by in found.items()
        for name, times in by.items()
    ]
    tables = [
        Table(
            caption="Milliseconds of one gradient evaluation.",
            header=["network", "allocator", *forms],
            rows=rows,
        )
    ]
    ratios = _ratios(context, found)
    if ratios:
        tables.append(
            Table(
                caption="How many times faster, at equal vector error: (evaluations of the "
                "published algorithm over ours) x (its milliseconds over ours).",
                header=[
                    "network", "allocator", "evaluations", "ours", "time, float32",
                    "whole, float32",
                    "time, bfloat16 against float32", "whole, bfloat16 against float32",
                    "whole, bfloat16 against bfloat16",
                ],
                rows=ratios,
            )
        )  # fmt: skip
    notes = [
        (
            f"published: the literal algorithm, {SAMPLES} stacked copies a step, one image a "
            f"call; ours: whole explanations of {BUDGET} evaluations an image, channels-last, "
            "BatchNorm folded, of one image and of several at once"
        ),
        f"bfloat16 instructions of this processor: {machine.bfloat16_support()}",
        "allocator that keeps its pages: "
        + " ".join(f"{key}={value}" for key, value in machine.KEPT_PAGES.items()),
    ]
    if not ratios:
        notes.append("no ratio at equal error: run the accuracy parts into the same folder first")
    return Result(
        title="Time of an evaluation",
        settings={"rounds": rounds, "budget": BUDGET, "samples": SAMPLES},
        figures={"milliseconds": found, "ratios": ratios},
        tables=tables,
        notes=notes,
    )


def _ratios(context: Context, found: dict[str, Any]) -> list[list[object]]:
    rows: list[list[object]] = []
    for network, by in found.items():
        accuracy = results.read(f"accuracy-{network}", context.out)
        if accuracy is None:
            continue
        fewer = accuracy["figures"]["evaluations_ratio"]["rms"]
        for name, times in by.items():
            theirs, theirs_reduced = times["published"], times["published, bfloat16"]
            for form in sorted({"ours", _form(SEVERAL[network])}):
                quick, reduced = theirs / times[form], theirs / times[f"{form}, bfloat16"]
                same = theirs_reduced / times[f"{form}, bfloat16"]
                rows.append(
                    [
                        network, name, fewer, form, quick, fewer * quick,
                        reduced, fewer * reduced, fewer * same,
                    ]
                )  # fmt: skip
    return rows


def worker(network: str, rounds: int) -> dict[str, float]:
    """Milliseconds of an evaluation by form, all in this process and in turns."""
    subject = subjects.load(network)
    several = SEVERAL[network]
    inputs = subject.inputs(subject.names[:several])
    target = subject.predictions(inputs)
    steps = STEPS[network]
    works: dict[str, Work] = {}
    counts: dict[str, int] = {}
    for suffix, dtype in (("", torch.float32), (", bfloat16", torch.bfloat16)):
        plain, quick = (copy.deepcopy(m).to(dtype) for m in (subject.module, subject.fast))
        x = inputs.to(dtype)
        works[f"published{suffix}"] = partial(
            published_moreaugrad, plain, x[:1], int(target[0]), steps=steps, samples=SAMPLES
        )
        counts[f"published{suffix}"] = steps * SAMPLES
        for count in sorted({1, several}):
            name = f"{_form(count)}{suffix}"
            works[name] = partial(explain, quick, x[:count], target[:count], subject.chunk)
            counts[name] = BUDGET * count
    seconds = interleaved(works, rounds)
    return {name: 1e3 * seconds[name] / counts[name] for name in works}


def _form(count: int) -> str:
    return "ours" if count == 1 else f"ours, {count} images"


def explain(model: torch.nn.Module, inputs: Tensor, target: Tensor, chunk: int) -> None:
    """One whole explanation of BUDGET evaluations for each image."""
    setting = Setting()
    SparseMoreauGrad(
        model, rho=setting.rho, eta=setting.eta, sigma=setting.sigma,
        tolerance=1e-9, max_evaluations=BUDGET, batch_size=chunk,
    ).explain(inputs, target=target)  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    print(json.dumps(worker(sys.argv[1], int(sys.argv[3]))))
