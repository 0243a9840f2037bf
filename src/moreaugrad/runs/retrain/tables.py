"""Results of studies in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moreaugrad.runs.records import Record
from moreaugrad.runs.retrain.plan import DiffRoarPlan


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def diffroar_table(plan: DiffRoarPlan, results: Record) -> str:
    """DiffROAR's results in Markdown."""
    unit = "the sum over channels" if plan.unit == "pixel" else "entry"
    seeds, count = len(results["seeds"]), results["count"]
    lines = [
        "# DiffROAR",
        "",
        (
            f"Accuracy in percent on {count} test pictures after the last epoch, means over "
            f"{seeds} seed{'s' * (seeds > 1)}; ranked by {unit}, for the {plan.target}. The "
            f"explained network: {percent(results['explained']['accuracy'])}; trained on whole "
            f"pictures: {percent(mean(results['all']))}."
        ),
        "",
        "| order | kept | top | bottom | top - bottom |",
        "|---|---:|---:|---:|---:|",
    ]
    for order, found in results["orders"].items():
        for row, level in enumerate(results["levels"]):
            spread = found["deviation"][row]
            lines.append(
                f"| {order} | {100 * level:g} % | {percent(mean(found['top'][row]))} | "
                f"{percent(mean(found['bottom'][row]))} | {percent(found['by_level'][row])}"
                + ("" if spread is None else f" (sd {percent(spread)})") + " |"
            )  # fmt: skip
    lines += ["", "| order | DiffROAR | 95 % interval over seeds |", "|---|---:|---:|"]
    for order, found in results["orders"].items():
        span = (
            "one seed" if found["low"] is None
            else f"{percent(found['low'])} to {percent(found['high'])}"
        )  # fmt: skip
        lines.append(f"| {order} | {percent(found['mean'])} | {span} |")
    return "\n".join(lines) + "\n"
