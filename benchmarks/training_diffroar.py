"""DiffROAR on the synthetic cells: the AdvGrad paper's table 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.training_again import GRADIENT, SEEDS, STUDY, again, mean, percent, rows
from benchmarks.training_rows import CELLS
from benchmarks.training_runs import result, trained

LEVELS = (0.2, 0.5, 0.8)
EPOCHS = 5
"""Of the networks that learn from masked cells."""
RANDOM = "random"
PUBLISHED = {"plain": 1.81, "L1": 2.95, "group": 2.57, "elastic net": 3.24}
"""DiffROAR in %, of each penalty's best setting: Imagenette, nine levels, three seeds."""
Figures = Mapping[str, Any]


def run(context: Context) -> Result:
    chosen = rows("plain", "L1", "group", "elastic net")[: 1 if context.quick else None]
    networks = trained(context, STUDY, chosen)
    levels = LEVELS[:1] if context.quick else LEVELS
    found = {}
    for place, row in enumerate(chosen):
        network = networks[row.stem][0]
        found[row.label] = result(network)["test"] | again(
            context, "diffroar", row, str(network), "--target", "label",
            "--levels", ",".join(map(str, levels)), "--seeds", "0" if context.quick else SEEDS,
            "--epochs", str(1 if context.quick else EPOCHS),
            # A random order does not depend on the network.
            "--no-control" if place else "--control",
        )  # fmt: skip
    orders: dict[str, Figures] = {label: each["orders"][GRADIENT] for label, each in found.items()}
    orders[RANDOM] = found[chosen[0].label]["orders"][RANDOM]
    about = {label: (each["accuracy"], each["gini"]["mean"]) for label, each in found.items()}
    whole = [accuracy for each in found.values() for accuracy in each["all"]]
    return Result(
        title=f"DiffROAR on synthetic cells ({CELLS} pixels), the AdvGrad paper's table 3",
        settings={"levels": levels, "seeds": SEEDS, "epochs": EPOCHS, "target": "label",
                  "unit": "element", "rows": [row.stem for row in chosen]},
        figures={"orders": orders, "explained": about, "whole": whole},
        tables=[_differences(orders, about, levels), _accuracies(orders, levels)],
        notes=[
            (
                "the networks that learn from masked cells have the explained ones' architecture "
                f"and learn for {EPOCHS} epochs on the plain loss; on whole cells they reach "
                f"{percent(min(whole))} to {percent(max(whole))} %"
            ),
            (
                "masks are of the label's logit, as in the paper, also those of the test cells, "
                "so that they carry information about the label: orders compare with each other "
                "and with the random one"
            ),
            (
                "the interval over two seeds (Student's t) is wide; the paper has Imagenette, nine "
                "levels and three seeds, and the best setting of each penalty is shown here"
            ),
        ],
    )  # fmt: skip


def _differences(
    orders: Mapping[str, Figures],
    about: Mapping[str, tuple[float, float]],
    levels: Sequence[float],
) -> Table:
    lines = []
    for label, found in orders.items():
        accuracy, gini = about.get(label, (None, None))
        low, high = found["low"], found["high"]
        lines.append(
            [label, percent(accuracy), "–" if gini is None else f"{gini:.3f}",
             *map(percent, found["by_level"]), percent(found["mean"]),
             "–" if low is None else f"{percent(low)} to {percent(high)}",
             PUBLISHED.get(label, "–")]
        )  # fmt: skip
    return Table(
        caption="Accuracy on what the gradient ranks first, less that on what it ranks last, in "
        "points. accuracy, Gini: of the explained network.",
        header=["order", "accuracy %", "Gini", *(f"{100 * level:g} % kept" for level in levels),
                "DiffROAR", "95 %", "the paper's"],
        rows=lines,
    )  # fmt: skip


def _accuracies(orders: Mapping[str, Figures], levels: Sequence[float]) -> Table:
    return Table(
        caption="Test accuracy in %, means over seeds: the top kept / the bottom kept.",
        header=["order", *(f"{100 * level:g} % kept" for level in levels)],
        rows=[
            [label, *(f"{percent(mean(top))} / {percent(mean(bottom))}"
                      for top, bottom in zip(found["top"], found["bottom"], strict=True))]
            for label, found in orders.items()
        ],
    )  # fmt: skip
