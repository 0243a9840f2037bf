"""Metrics of maps against Quantus, for the same definition on the same maps: seconds and memory.

    python -m benchmarks.metrics WHO NAME COUNT SIDE THREADS

prints the MiB that one call adds to what the maps themselves take, in a process of its own.
"""

from __future__ import annotations

import gc
import importlib
import statistics
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.timing import timed
from moreaugrad import metrics

COUNT, SIDE, QUICK = 64, 224, (2, 64)
ROUNDS = 5
SLOW = 5.0
"""Seconds from which one turn is enough."""

ASKED_SPEED, ASKED_COPIES = 20, 3

WINDOW = metrics.Window(size=7, sigma=None, cropped=True, unbiased=True)
"""That of Quantus's SSIM, which is scikit-image's default."""

Maps = tuple[Tensor, Tensor]
Call = Callable[[Maps], object]


def of_maps(name: str, **options: Any) -> Call:
    """A whole call of a metric class of Quantus on given maps."""

    def call(maps: Maps) -> object:
        quantus = _quantus()
        metric = getattr(quantus, name)(
            abs=True, normalise=False, disable_warnings=True, display_progressbar=False, **options
        )
        a = maps[0].numpy()
        masks = _masks(a) if name in ("AUC", "PointingGame") else None
        a = a[:, :1] if masks is not None else a
        return metric(
            model=nn.Identity(), x_batch=maps[0].numpy(), y_batch=np.zeros(len(a), dtype=int),
            a_batch=a, s_batch=masks, device="cpu", batch_size=len(a),
        )  # fmt: skip

    return call


def of_rows(function: str, shared: str = "batched") -> Call:
    """A similarity function of Quantus: on the whole batch where it takes one, else row by row."""

    def call(maps: Maps) -> object:
        found = getattr(_quantus().similarity_func, function)
        a, b = (each.flatten(1).numpy() for each in maps)
        if shared == "batched":
            return found(a, b, batched=True)
        if shared == "unit":
            a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
            return found(a, b)
        return [1 - found(x, y) for x, y in zip(a, b, strict=True)]

    return call


def _quantus_ssim(maps: Maps) -> object:
    a, b = (each.abs().sum(1).numpy() for each in maps)
    return _quantus().similarity_func.ssim(a, b, batched=True)


def _masks(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The middle of each image."""
    found = np.zeros((len(a), 1, *a.shape[2:]), dtype=bool)
    side = a.shape[-1]
    found[..., side // 4 : -side // 4, side // 4 : -side // 4] = True
    return found


def _of_mask(metric: Callable[[Tensor, Tensor], Tensor]) -> Call:
    def call(maps: Maps) -> object:
        return metric(maps[0][:, 0].abs(), torch.from_numpy(_masks(maps[0].numpy())[:, 0]))

    return call


# What both define: (ours, theirs).
SAME: Mapping[str, tuple[Call, Call]] = {
    "gini": (lambda m: metrics.gini(m[0]), of_maps("Sparseness")),
    "entropy": (lambda m: metrics.entropy(m[0]), of_maps("Complexity")),
    "spearman": (
        lambda m: metrics.spearman(*m, signed=True), of_rows("correlation_spearman")
    ),
    "pearson": (lambda m: metrics.pearson(*m, signed=True), of_rows("correlation_pearson")),
    "cosine": (lambda m: metrics.cosine(*m, signed=True), of_rows("cosine", "rows")),
    "normalised-distance": (
        lambda m: metrics.normalised_distance(*m, signed=True),
        of_rows("distance_euclidean", "unit"),
    ),
    "ssim": (
        lambda m: metrics.ssim(*m, displayed=False, data_range=None, window=WINDOW),
        _quantus_ssim,
    ),
    "auroc": (_of_mask(metrics.auroc), of_maps("AUC")),
    "pointing-game": (_of_mask(metrics.pointing_game), of_maps("PointingGame")),
}  # fmt: skip

OWN = {n: row.kind for n, row in metrics.METRICS.items() if row.kind in ("map", "pair")}


def own(name: str, maps: Maps) -> object:
    return metrics.build(name)(*(maps if OWN[name] == "pair" else maps[:1]))


def run(context: Context) -> Result:
    _quantus()
    count, side = QUICK if context.quick else (COUNT, SIDE)
    rounds = 1 if context.quick else ROUNDS
    maps, few = draw(count, side), draw(2, side)
    copy = maps[0].numel() * 4 / 2**20
    compared: list[list[object]] = []
    faster: dict[str, float] = {}
    for name, (ours, theirs) in SAME.items():
        seconds = in_turns(ours, theirs, maps, few, rounds)
        faster[name] = seconds[1] / seconds[0]
        added = [memory(who, name, count, side, context.threads) for who in ("ours", "quantus")]
        compared.append([name, *seconds, faster[name], *(each / copy for each in added)])
        print("  " + " ".join(map(str, compared[-1])), flush=True)
    alone: list[list[object]] = []
    copies: dict[str, float] = {}
    for name, kind in OWN.items():
        call = partial(own, name, maps)
        own(name, few)
        seconds_own = statistics.median(timed(call) for _ in range(rounds))
        copies[name] = memory("own", name, count, side, context.threads) / copy
        alone.append([name, kind, seconds_own, copies[name]])
        print("  " + " ".join(map(str, alone[-1])), flush=True)
    below = [name for name, times in faster.items() if times < ASKED_SPEED]
    above = [name for name, times in copies.items() if times >= ASKED_COPIES]
    return Result(
        title="Metrics of maps against Quantus",
        settings={"maps": [count, 3, side, side], "rounds": rounds, "quantus": version("quantus")},
        figures={"times faster": faster, "copies": copies, "below": below, "above": above},
        tables=[
            Table(
                caption=(
                    f"The same definition on the same {count} maps of 3 x {side} x {side}, "
                    "float32: seconds (medians of turns), and the memory that a call adds to its "
                    f"arguments, in copies of one batch of maps ({copy:.1f} MiB)."
                ),
                header=[
                    "metric", "ours, s", "Quantus, s", "times faster",
                    "ours, copies", "Quantus, copies",
                ],
                rows=compared,
            ),
            Table(
                caption="All metrics of maps, with the registry's settings.",
                header=["metric", "kind", "seconds", "copies"],
                rows=alone,
            ),
        ],
        notes=[
            (
                f"asked: {ASKED_SPEED} times faster; not reached by: {', '.join(below) or 'none'}"
            ),
            (
                f"asked: below {ASKED_COPIES} copies of the batch; not kept by: "
                f"{', '.join(above) or 'none'}"
            ),
            (
                "Gini, entropy, AUROC, pointing game: whole calls of Quantus's classes; the "
                "others: its similarity functions, on the whole batch where they take one. Ours "
                "also look for maps that are zero or not finite"
            ),
            "memory: the kernel's peak of a process of its own, after a call on one sample",
            "AUROC and pointing game: one channel, the mask is the image's middle",
        ],
    )  # fmt: skip


def in_turns(ours: Call, theirs: Call, maps: Maps, few: Maps, rounds: int) -> tuple[float, float]:
    """Median seconds of each, in turns after a call on few maps; what is slow has one turn."""
    for call in (ours, theirs):
        call(few)
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        seconds[0].append(timed(partial(ours, maps)))
        if turn == 0 or seconds[1][0] < SLOW:
            seconds[1].append(timed(partial(theirs, maps)))
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def memory(who: str, name: str, count: int, side: int, threads: int) -> float:
    return float(machine.run_module("benchmarks.metrics", who, name, count, side, threads))


def worker(who: str, name: str, count: int, side: int) -> float:
    """MiB that one call adds."""
    call = partial(own, name) if who == "own" else SAME[name][who == "quantus"]
    few = draw(2, side)
    call(few)  # loads whatever it needs
    maps = draw(count, side)
    gc.collect()
    before = machine.resident_mib()
    call(maps)
    return max(0.0, machine.peak_mib() - before)


def draw(count: int, side: int) -> Maps:
    """Two batches of maps that are somewhat alike, made one sample at a time."""
    source = torch.Generator().manual_seed(0)
    a, b = (torch.empty(count, 3, side, side) for _ in range(2))
    for first, second in zip(a, b, strict=True):
        first.normal_(generator=source)
        second.normal_(generator=source).add_(first)
    return a, b


def _quantus() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("quantus")


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[5]))
    print(worker(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
