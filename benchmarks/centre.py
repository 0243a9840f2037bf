"""Shrinkage towards a centre: error at equal evaluations, stated error, and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import centre_runs as runs
from benchmarks import subjects
from benchmarks.centre_runs import MAP, MEAN, SEEDS, Curve
from benchmarks.context import Context
from benchmarks.measures import evaluations_at, interval
from benchmarks.results import Result, Table
from benchmarks.timing import Work, interleaved

PLAIN, CENTRED = "centre=False", "centre=True"
CENTRES = {PLAIN: False, CENTRED: True}
TINY = 1e-9
"""In place of an error of zero, which samples whose noise cancels can have."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """sizes: noise samples of SmoothGrad. budgets: most evaluations of Sparse MoreauGrad.

    mean_samples and map_evaluations: the lengths of the references of the two.
    """

    images: int
    mean_samples: int
    map_evaluations: int
    timed_images: int
    sizes: tuple[int, ...] = (32, 64, 128, 256, 1024)
    budgets: tuple[int, ...] = (36, 64, 128, 256, 1024)  # 36: the solver takes no 32
    timed: tuple[int, ...] = (64, 256)
    rounds: int = 5


PHOTOS = Plan(
    images=8, mean_samples=1024, map_evaluations=1024, timed_images=1,
    sizes=(64, 128, 256), budgets=(64, 128, 256), timed=(64, 256), rounds=3,
)  # fmt: skip
PLANS = {
    "resnet20": Plan(
        images=24, mean_samples=8192, map_evaluations=8192, timed_images=8, timed=(64, 256, 1024)
    ),
    "squeezenet": PHOTOS,
    "mobilenetv2": PHOTOS,
}
QUICK = Plan(
    images=2, mean_samples=128, map_evaluations=128, timed_images=1,
    sizes=(32, 64), budgets=(36, 64), timed=(64,), rounds=1,
)  # fmt: skip


def run(context: Context, network: str) -> Result:
    subject, setting = subjects.load(network, context.device), runs.Smoothing()
    plan = QUICK if context.quick else PLANS[network]
    names, cache = subject.names[: plan.images], context.cache
    references = {
        MEAN: runs.mean_references(subject, setting, cache, names, plan.mean_samples),
        MAP: runs.map_references(subject, setting, cache, names, plan.map_evaluations),
    }
    tables: list[Table] = []
    figures: dict[str, Any] = {}
    better: dict[tuple[str, int], float] = {}
    for method, sizes in ((MEAN, plan.sizes), (MAP, plan.budgets)):
        reference = references[method]
        curves = {
            label: {
                size: runs.measured(subject, setting, cache, names, method, size, centre, reference)
                for size in sizes
            }
            for label, centre in CENTRES.items()
        }
        single = reference.distance <= runs.SEVERAL
        several = [name for name, one in zip(names, single.tolist(), strict=True) if not one]
        # Means over noise have one value each; where all differ, there is nothing better to show.
        every = method == MEAN or not single.any()
        rows = torch.arange(len(names))[single | every]
        gains = {size: gain(curves, size, rows) for size in sizes}
        better |= {(method, size): squares(curves, size, rows) for size in sizes}
        about = f"{method} on {network}, {len(rows)} images, {len(SEEDS)} seeds"
        tables += [_errors(about, curves, gains, rows), _calibration(about, curves, rows)]
        if several and not every:
            tables.append(_several(about, curves, reference, ~single, names))
        figures[method] = {
            "saved": gains,
            "distance of the references": reference.distance.tolist(),
            "several solutions": several,
            "runs": {label: _listed(curve) for label, curve in curves.items()},
        }
    seconds = _seconds(plan, subject, setting)
    figures["seconds"] = seconds
    tables.append(_times(network, plan, seconds, better))
    return Result(
        title=f"Shrinkage towards a centre on {network}",
        settings=asdict(plan) | asdict(setting) | {
            "images": names,
            "seeds": {"reference": [runs.SEED_A, runs.SEED_B], "runs": SEEDS},
            "reference_draws": runs.REFERENCE_DRAWS,
            "threads": context.threads,
        },
        figures=figures,
        tables=tables,
        notes=_notes(plan, setting),
    )  # fmt: skip


def squares(curves: dict[str, Curve], size: int, rows: Tensor) -> float:
    """Mean squared error without a centre over that with one."""
    plain, centred = (curves[label][size].rms(rows) for label in (PLAIN, CENTRED))
    return (plain / max(centred, TINY)) ** 2


def gain(curves: dict[str, Curve], size: int, rows: Tensor) -> dict[str, list[float]]:
    """Evaluations saved at equal error and their 95 % interval, in two ways.

    By the ratio of squared errors, as an error of a mean falls with the root of the evaluations;
    and by the evaluations at which the curve without a centre has the same error.
    """
    plain, centred = curves[PLAIN], curves[CENTRED][size]

    def ratio(chosen: Tensor) -> float:
        some = rows[chosen]
        return squares(curves, size, some) * plain[size].cost(some) / centred.cost(some)

    def along(chosen: Tensor) -> float:
        some = rows[chosen]
        costs = [int(item.cost(some)) for item in plain.values()]
        errors = [max(item.rms(some), TINY) for item in plain.values()]
        wanted = max(centred.rms(some), TINY)
        return evaluations_at(wanted, costs, errors) / centred.cost(some)

    every = torch.arange(len(rows))
    return {
        name: [of(every), *interval(of, len(rows))]
        for name, of in (("squared errors", ratio), ("plain curve", along))
    }


def _errors(
    about: str, curves: dict[str, Curve], gains: dict[int, dict[str, list[float]]], rows: Tensor
) -> Table:
    plain, centred = curves[PLAIN], curves[CENTRED]
    return Table(
        caption=f"{about}: relative error (rms), and evaluations saved at equal error.",
        header=[
            "N", f"evaluations, {PLAIN}", f"evaluations, {CENTRED}", f"error, {PLAIN}",
            f"error, {CENTRED}", "saved, by squared errors", "95 % interval",
            "saved, by the plain curve", "95 % interval",
        ],
        rows=[
            [
                size, plain[size].cost(rows), centred[size].cost(rows), plain[size].rms(rows),
                centred[size].rms(rows), *_shown(found["squared errors"]),
                *_shown(found["plain curve"]),
            ]
            for size, found in gains.items()
        ],
    )  # fmt: skip


def _calibration(about: str, curves: dict[str, Curve], rows: Tensor) -> Table:
    return Table(
        caption=f"{about}: stated over true error.",
        header=["N", "setting", "median", "within a factor 2", "below half"],
        rows=[
            [size, label, *item.calibration(rows)]
            for size in curves[PLAIN]
            for label, item in ((label, curve[size]) for label, curve in curves.items())
        ],
    )


def _several(
    about: str,
    curves: dict[str, Curve],
    reference: runs.References,
    chosen: Tensor,
    names: Sequence[str],
) -> Table:
    rows = chosen.nonzero()[:, 0].tolist()
    return Table(
        caption=f"{about}: images with several solutions, not counted above, at the largest N.",
        header=["image", "distance of the references", *(f"error, {label}" for label in curves)],
        rows=[
            [
                names[row], reference.distance[row].item(),
                *(curve[max(curve)].rms(torch.tensor([row])) for curve in curves.values()),
            ]
            for row in rows
        ],
    )  # fmt: skip


def _seconds(
    plan: Plan, subject: subjects.Subject, setting: runs.Smoothing
) -> dict[str, dict[int, dict[str, float]]]:
    """Median seconds by method, size and setting, taken in turns."""
    inputs = subject.inputs(subject.names[: plan.timed_images])
    target = subject.predictions(inputs)
    found: dict[str, dict[int, dict[str, float]]] = {MEAN: {}, MAP: {}}
    for method, by_size in found.items():
        options = {"tolerance": runs.UNREACHED} if method == MAP else {}
        for size in plan.timed:
            works: dict[str, Work] = {
                label: partial(
                    setting.explainer(method, subject, size, centre=centre, **options).explain,
                    inputs, target=target,
                )
                for label, centre in CENTRES.items()
            }  # fmt: skip
            by_size[size] = interleaved(works, plan.rounds)
            print(f"  {method}, {size}: {by_size[size]}", flush=True)
    return found


def _times(
    network: str,
    plan: Plan,
    seconds: dict[str, dict[int, dict[str, float]]],
    better: dict[tuple[str, int], float],
) -> Table:
    return Table(
        caption=f"Seconds on {network}, images at once: {plan.timed_images}, medians of "
        f"{plan.rounds} interleaved rounds.",
        header=["method", "N", *CENTRES, "ratio", "time saved at equal error"],
        rows=[
            [method, size, *times.values(), ratio, better[method, size] / ratio]
            for method, by_size in seconds.items()
            for size, times in by_size.items()
            for ratio in [times[CENTRED] / times[PLAIN]]
        ],
    )


def _listed(curve: Curve) -> dict[int, dict[str, Any]]:
    return {
        size: {name: value.tolist() for name, value in vars(item).items()}
        for size, item in curve.items()
    }


def _shown(found: list[float]) -> list[object]:
    value, low, high = found
    return [value, f"{low:.2f} to {high:.2f}"]


def _notes(plan: Plan, setting: runs.Smoothing) -> list[str]:
    return [
        (
            f"{MEAN}: the mean gradient, sigma {setting.sigma}, N noise samples; {MAP}: rho "
            f"{setting.rho}, sparsity {setting.sparsity}, at most N evaluations, and no "
            "tolerance that it would meet before. Evaluations count those of the centre"
        ),
        (
            "error^2 = <c - A, c - B> / <A, B> with A and B two independent references without a "
            f"centre: means over {plan.mean_samples} noise samples, maps of "
            f"{plan.map_evaluations} evaluations; rms over images and seeds. A bias that A and B "
            "have in common does not show"
        ),
        (
            "saved, by squared errors: their ratio at the same N times the ratio of evaluations; "
            "by the plain curve: evaluations at which the curve without a centre has the same "
            "error, over those spent, interpolated and beyond its ends continued as 1 / sqrt(N). "
            "Intervals: bootstrap over images. Time saved: the ratio of squared errors over that "
            "of seconds"
        ),
        (
            "several solutions: the two references of a map differ by more than "
            f"{runs.SEVERAL:.0%} of their norm. Stated over true error, of each image and seed: "
            "its median, the fraction within a factor 2, and that of stated errors below half the "
            "true ones"
        ),
    ]
