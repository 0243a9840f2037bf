"""Results of studies in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moreaugrad.files.names import percent_name
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
                f"| {order} | {percent_name(level)} % | {percent(mean(found['top'][row]))} | "
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


TITLES = {
    "stability": "Stability of maps across trainings",
    "labels": "Maps of networks trained on permuted labels",
}
LEARNT = 0.95
"""Accuracy on its own training pictures from which on a network knows permuted labels by heart."""


def pairs_table(name: str, metrics: Sequence[str], results: Record) -> str:
    """Networks, and how like their maps are, in Markdown."""
    networks, first = results["networks"], results["networks"][0]
    rows: dict[tuple[str, str], dict[str, Record]] = {}
    for row in results["likeness"]:
        rows.setdefault((row["group"], row["method"]), {})[row["metric"]] = row
    lines = [
        f"# {TITLES[name]}",
        "",
        (
            f"Mean likeness of two networks' maps of the same {first['compared']} test pictures, "
            "which neither has learnt from, each for its label; with the 95 % interval (Student's "
            "t) over pictures, and how many maps have no value."
        ),
        "",
        "| between | method | pairs | " + " | ".join(metrics) + " |",
        "|---|---|---:|" + "---:|" * len(metrics),
    ]
    for (group, method), found in rows.items():
        pairs = found[metrics[0]]["pairs"]
        cells = " | ".join(_likeness(found[metric]) for metric in metrics)
        lines.append(f"| {group} | {method} | {pairs} | {cells} |")
    lines += [
        "",
        f"| network | on its training pictures, % | on {first['count']} test pictures, % |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {_network(network)} | {percent(network['training_accuracy'])} | "
        f"{percent(network['accuracy'])} |"
        for network in networks
    ]
    weak = [n for n in networks if n["permuted"] and n["training_accuracy"] < LEARNT]
    if weak:
        lines += [
            "",
            (
                f"{len(weak)} of the networks on permuted labels know fewer than "
                f"{percent(LEARNT)} % of them: train for more epochs before reading anything into "
                "these rows."
            ),
        ]
    return "\n".join(lines) + "\n"


def _network(network: Record) -> str:
    what = "permuted labels, " if network["permuted"] else ""
    if network["exchanged"]:
        what = f"{percent_name(network['exchanged'])}% exchanged, "
    return f"{what}seed {network['seed']}"


def _likeness(row: Record) -> str:
    if row["mean"] is None:
        return f"none of {row['undefined']}"
    span = "" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
    lost = f", {row['undefined']} without" if row["undefined"] else ""
    return f"{row['mean']:.3f}{span}{lost}"
