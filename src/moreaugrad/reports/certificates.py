"""Certificates: the overlap against the perturbation's length, as a figure and as tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from moreaugrad.certificates.certify import CERTIFICATE
from moreaugrad.files.units import Record
from moreaugrad.pictures.plot import ShownFigure
from moreaugrad.reports.content import Entry, Table
from moreaugrad.reports.pixels import TESTED, pixels_table
from moreaugrad.reports.studies import Findings

COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00")
NAMES = {
    "sparsified": "Sparsified SmoothGrad",
    "relaxed": "relaxed Sparsified SmoothGrad",
    "sparse-moreaugrad": "Sparse MoreauGrad",
    "moreaugrad": "MoreauGrad",
}


COLUMNS = 6
"""Radii that a table shows."""
Overlap = list[float | None]


def lines(record: Mapping[str, Any]) -> Iterator[tuple[str, bool, Overlap]]:
    """The curve, whether its map is taken as exact, and its overlap by radius."""
    for key, curve in record["curves"].items():
        yield key, False, curve["overlap"]
        if "overlap_if_exact" in curve:
            yield key, True, curve["overlap_if_exact"]


def last_change(record: Mapping[str, Any]) -> int:
    """The index of the radius from which on no overlap falls; the last one where none does."""
    ends = [overlap.index(overlap[-1]) for _, _, overlap in lines(record)]
    return max(ends) or len(record["radii"]) - 1


def curves_figure(record: Record) -> Figure:
    """Certificates as whole lines, estimates dashed, dotted what a map without error would have."""
    shown = ShownFigure(figsize=(8, 4.8), layout="constrained")
    axis = shown.subplots()
    colours = dict(zip(record["curves"], COLOURS, strict=False))
    for key, exact, overlap in lines(record):
        curve, values = record["curves"][key], [math.nan if v is None else v for v in overlap]
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
    axis.set_ylabel("fraction of the largest entries that stays, at least")
    # Dollars in names are no formulas.
    title = f"{record['input']}: {record['target']['label']}"
    axis.set_title(title, fontsize="medium", parse_math=False)
    axis.legend(fontsize="small", frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return shown


def findings(inputs: Sequence[Record], pixels: Sequence[Record]) -> Findings:
    """Tables for each image, and what their lines say. inputs, pixels: records of the curves, and
    of the pixels by a method."""
    of_image: dict[str, list[Record]] = {}
    for record in pixels:
        of_image.setdefault(record["folder"], []).append(record)
    return Findings(
        title="Certificates of maps",
        lead="Percent of the largest entries of a map that stay under any perturbation of this L2 "
        "length, in the network's input units; and of the pixels whose majority vote over noisy "
        "inputs stays: certified, or certified as important.",
        tables=[
            *map(_table, inputs),
            *(pixels_table(records) for records in of_image.values()),
        ],
        notes=[
            *(f"{kind}: {words}" for kind, words in _statements(inputs)),
            *dict.fromkeys(f"pixels: {record['statement']}" for record in pixels),
            *dict.fromkeys(f"tested: {TESTED.format(r['threshold'])}" for r in pixels),
        ],
        images=[
            *((record["input"], f"{record['folder']}/certify.png") for record in inputs),
            *(
                (f"{r['input']}, {r['method']}", f"{r['folder']}/pixels-{r['method']}.png")
                for r in pixels
            ),
        ],
    )


def _table(record: Record) -> Table:
    """Overlaps at radii evenly over the range in which something changes."""
    last = last_change(record)
    steps = min(COLUMNS, last + 1)
    shown = sorted({round(last * step / max(1, steps - 1)) for step in range(steps)})
    low, high = record["sigma_in_pixel_range"]
    pixels = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g} by channel"
    rows = []
    for key, exact, overlap in lines(record):
        name = f"{key}, were its map exact" if exact else key
        values = [overlap[index] for index in shown]
        cells = [Entry(text="" if v is None else f"{100 * v:.1f}") for v in values]
        rows.append((f"{name} ({record['curves'][key]['kind']})", cells))
    return Table(
        title=f"{record['input']}, explained: {record['target']['label']}; sigma "
        f"{record['sigma']:.4g} in input units, {pixels} for pixels in 0 to 1; rho "
        f"{record['rho']:.3g}, below {record['rho_limit']:.3g}",
        head="% that stays within", rows=rows,
        columns=[f"{record['radii'][index]:.4g}" for index in shown],
    )  # fmt: skip


def _statements(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Kind and words, once each; an estimate with what is not proven of it."""
    found: dict[tuple[str, str], None] = {}
    for record in records:
        for curve in record["curves"].values():
            reason = f" ({curve['reason']})" if curve["reason"] else ""
            found[curve["kind"], curve["statement"] + reason] = None
    return list(found)
