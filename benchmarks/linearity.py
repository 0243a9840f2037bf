"""Time over images, evaluations and pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch.nn.functional import interpolate

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.measures import exponent
from benchmarks.references import Setting
from benchmarks.results import Result, Table
from benchmarks.timing import interleaved
from moreaugrad import SparseMoreauGrad

IMAGES = (4, 8, 16, 32)
EVALUATIONS = (256, 512, 1024)
SIDES = (96, 128, 160, 192, 224, 288)
ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class Sweep:
    name: str
    unit: str
    sizes: Sequence[int]
    work: Callable[[int], Callable[[], object]]
    amount: Callable[[int], int] = int


def run(context: Context) -> Result:
    rounds = 1 if context.quick else ROUNDS
    rows: list[list[object]] = []
    figures: dict[str, dict[str, object]] = {}
    curves = []
    for sweep in _sweeps(context.quick):
        works = {str(size): sweep.work(size) for size in sweep.sizes}
        seconds = list(interleaved(works, rounds).values())
        amounts = [sweep.amount(size) for size in sweep.sizes]
        slope = exponent(amounts, seconds)
        each = [1e3 * spent / amount for spent, amount in zip(seconds, amounts, strict=True)]
        spread = max(each) / min(each)
        figures[sweep.name] = {
            "amounts": amounts, "seconds": seconds, "exponent": slope, "spread": spread,
        }  # fmt: skip
        rows.append([sweep.name, f"{amounts[0]} to {amounts[-1]}", slope, spread])
        curves.append((sweep, amounts, seconds))
        print("  " + " ".join(map(str, rows[-1])), flush=True)
    return Result(
        title="Time is linear in images, evaluations and pixels",
        settings={"rounds": rounds},
        figures=figures,
        tables=[
            Table(
                caption="Power of the size that the time grows with (1 is linear), and the ratio "
                "of the dearest to the cheapest image, evaluation or pixel.",
                header=["over", "range", "power", "dearest / cheapest"],
                rows=rows,
            )
        ],
        pictures={"linearity.png": _plot(curves)},
    )


def _sweeps(quick: bool) -> list[Sweep]:
    small, large, setting = subjects.load("resnet20"), subjects.load("squeezenet"), Setting()
    pictures = small.inputs(small.names[: max(IMAGES)])
    photo = large.inputs(large.names[:1])

    def explain(
        model: torch.nn.Module, inputs: torch.Tensor, evaluations: int
    ) -> Callable[[], object]:
        explainer = SparseMoreauGrad(
            model, rho=setting.rho, eta=setting.eta, sigma=setting.sigma,
            tolerance=1e-9, max_evaluations=evaluations,
        )  # fmt: skip
        return lambda: explainer.explain(inputs)

    def resized(side: int) -> torch.Tensor:
        return interpolate(photo, size=(side, side), mode="bilinear", antialias=True)

    least = min(EVALUATIONS)
    return [
        Sweep(
            name="images (ResNet-20)", unit="images", sizes=IMAGES[:2] if quick else IMAGES,
            work=lambda count: explain(small.fast, pictures[:count], least),
        ),
        Sweep(
            name="evaluations (ResNet-20)", unit="evaluations of each of 8 images",
            sizes=EVALUATIONS[:2] if quick else EVALUATIONS,
            work=lambda count: explain(small.fast, pictures[:8], count),
        ),
        Sweep(
            name="pixels (SqueezeNet)", unit="pixels", sizes=SIDES[:2] if quick else SIDES,
            work=lambda side: explain(large.fast, resized(side), least),
            amount=lambda side: side * side,
        ),
    ]  # fmt: skip


def _plot(curves: Sequence[tuple[Sweep, Sequence[int], Sequence[float]]]) -> bytes:
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, (sweep, amounts, seconds) in zip(
        figure.subplots(1, len(curves)), curves, strict=True
    ):
        each = sum(seconds) / sum(amounts)
        axes.plot([0, amounts[-1]], [0, each * amounts[-1]], lw=0.8, color="grey")
        axes.plot(amounts, seconds, "o", color="black", markersize=4)
        axes.set(xlabel=sweep.unit, ylabel="seconds", title=sweep.name, xlim=0, ylim=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
