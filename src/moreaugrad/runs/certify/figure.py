"""Certified overlap against the perturbation's length, a line for each curve."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from moreaugrad.certificates.certify import CERTIFICATE
from moreaugrad.pictures.plot import ShownFigure
from moreaugrad.runs.certify.curves import last_change, lines
from moreaugrad.runs.records import Record

COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00")
NAMES = {
    "sparsified": "Sparsified SmoothGrad",
    "relaxed": "relaxed Sparsified SmoothGrad",
    "sparse-moreaugrad": "Sparse MoreauGrad",
    "moreaugrad": "MoreauGrad",
}


def curves_figure(record: Record) -> Figure:
    """Certificates as whole lines, estimates dashed, dotted what a map without error would have."""
    shown = ShownFigure(figsize=(8, 4.8), layout="constrained")
    axis = shown.subplots()
    colours = dict(zip(record["curves"], COLOURS, strict=False))
    for key, exact, shares in lines(record):
        curve, values = record["curves"][key], [math.nan if v is None else v for v in shares]
        style = ":" if exact else "-" if curve["kind"] == CERTIFICATE else "--"
        what = "were its map exact" if exact else f"top {curve['top']}"
        label = f"{NAMES[key]}, {what}: {curve['kind']}"
        axis.plot(record["radii"], values, style, color=colours[key], label=label)
    axis.set_xlim(0, record["radii"][last_change(record)] or None)
    axis.set_ylim(-0.02, 1.02)
    low, high = record["sigma_in_pixel_range"]
    pixels = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    axis.set_xlabel(
        "L2 length of the perturbation, in the network's input units "
        f"(σ = {record['sigma']:g}, for pixels in 0 to 1: {pixels})"
    )
    axis.set_ylabel("share of the largest entries that stays, at least")
    # Dollars in names are no formulas.
    title = f"{record['input']}: {record['target']['label']}"
    axis.set_title(title, fontsize="medium", parse_math=False)
    axis.legend(fontsize="small", frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return shown
