"""The time that noise takes, compared with the network passes that it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor

import moreaugrad as mg
from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.timing import timed
from moreaugrad.reports.statistics import LEAST, Intervals
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.normals import HALF, gaussian, integers

NETWORKS = ("squeezenet", "resnet20")
THREADS = (1, 2)
ROUNDS = 15
PASSES, OURS, LIBRARY, ARITHMETIC = "passes", "noise", "ziggurat", "torch"


def run(context: Context) -> Result:
    rounds = LEAST if context.quick else ROUNDS
    rows: list[list[object]] = []
    figures: dict[str, dict[str, list[float]]] = {}
    for network in NETWORKS:
        subject = subjects.load(network)
        bound = mg.Score(subject.fast, sigma=0.1).bind(subject.inputs(subject.names[:1]))
        works = _works(bound, subject.chunk)
        for threads in THREADS:
            torch.set_num_threads(threads)
            seconds = _seconds(works, rounds)
            below = seconds.pop(PASSES)
            mean = sum(below) / rounds / subject.chunk
            row: list[object] = [network, threads, 1e3 * mean]
            for name, above in seconds.items():
                found = [sum(above) / sum(below), *Intervals().of_ratio(below, above)]
                figures.setdefault(f"{network}, threads: {threads}", {})[name] = found
                row += [f"{found[0]:.2%}", f"{found[1]:.2%} to {found[2]:.2%}"]
            rows.append(row)
            print("  " + " ".join(map(str, row)), flush=True)
        torch.set_num_threads(context.threads)
    return Result(
        title="Noise compared with network passes",
        settings={"rounds": rounds, "sigma": 0.1},
        figures=figures,
        tables=[
            Table(
                caption="Milliseconds of an evaluation (forward, and backward to the input) and "
                f"time of its noise as a fraction of it, with 95 % intervals (Fieller's) over "
                f"{rounds} turns of one chunk each.",
                header=["network", "threads", "evaluation (ms)", "noise", "", "ziggurat", "",
                        "torch", ""],
                rows=rows,
            )
        ],
        notes=[
            "noise: normal vectors of antithetic pairs made, scaled and added to the input",
            "ziggurat: as many vectors by numpy's standard_normal, one after another, not added",
            "torch: the vectors of noise by the integer arithmetic for accelerators, not added",
        ],
    )  # fmt: skip


def _works(bound: BoundScore, chunk: int) -> dict[str, Callable[[], object]]:
    """One chunk of one image: its passes, and three ways to make noise that is new each time."""
    points = torch.empty(chunk, bound.layout.size)
    rows = torch.zeros(chunk, dtype=torch.long)
    assert bound.sigma is not None
    add = bound.noise.adder(bound.keys, bound.origin, bound.sigma)
    starts: Iterator[int] = count(0, chunk)

    def ours() -> None:
        start = next(starts)
        add(points, [(slice(i, i + 1), start + i, slice(0, 1)) for i in range(chunk)])

    def numbers() -> range:
        start = next(starts) // 2
        return range(start, start + chunk // 2)

    def library() -> list[np.ndarray]:
        return [
            np.random.Generator(np.random.Philox(counter=[0, 0, 0, number])).standard_normal(
                bound.layout.size, dtype=np.float32
            )
            for number in numbers()
        ]

    def arithmetic() -> Tensor:
        groups = -(-bound.layout.size // (2 * HALF))
        vectors = [(0, number) for number in numbers()]
        found = integers(0, vectors, groups, torch.device("cpu"))
        return gaussian(found, torch.empty(found.shape))

    return {
        PASSES: lambda: bound.value_and_grad_at(points, rows),
        OURS: ours,
        LIBRARY: library,
        ARITHMETIC: arithmetic,
    }


def _seconds(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in turns, after one turn that does not count."""
    turns = [{name: timed(work) for name, work in works.items()} for _ in range(rounds + 1)]
    return {name: [turn[name] for turn in turns[1:]] for name in works}
