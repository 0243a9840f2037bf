"""Certificates of pixels: a map of three colours, and the certified fraction against the radius."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from moreaugrad.files.units import Record
from moreaugrad.pictures.plot import ShownFigure
from moreaugrad.pictures.render import Picture
from moreaugrad.reports.content import Entry, Table

IMPORTANT, UNIMPORTANT, ABSTAINED = "important", "unimportant", "abstained"
COLOURS = {IMPORTANT: "#d55e00", UNIMPORTANT: "#56b4e9", ABSTAINED: "#eeeeee"}
"""Orange, blue and light grey: different in hue for colour-blind people too, and in lightness."""
TESTED = (
    "the last column is of sigma Phi^-1({:g}), a radius that is fixed beforehand: to certify it "
    "takes fewer votes than a radius that follows from the votes"
)
COLUMNS = 6
"""Radii that a table shows."""


def pixels_figure(
    record: Record, photo: Picture | None, important: NDArray[np.bool_],
    unimportant: NDArray[np.bool_],
) -> Figure:  # fmt: skip
    """The image, its pixels in three colours, and the fractions certified up to each radius."""
    panels = 2 if photo is None else 3
    shown = ShownFigure(figsize=(3.6 * panels, 4.4), layout="constrained")
    *axes, curve = shown.subplots(1, panels)
    if photo is not None:
        axes[0].imshow(photo.pixels)
    axes[-1].imshow(three_colours(important, unimportant), interpolation="nearest")
    axes[-1].set_title(f"closer than {record['within']:.3g}", fontsize="medium")
    for axis in axes:
        axis.set_axis_off()
    parts = {name: record["fractions"][name] for name in COLOURS}
    handles = [
        Patch(facecolor=COLOURS[name], edgecolor="0.5", label=f"{name}, {100 * part:.1f} %")
        for name, part in parts.items()
    ]
    axes[-1].legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), frameon=False,
        fontsize="small",
    )  # fmt: skip
    for name, style in (("certified", "-"), (IMPORTANT, "--")):
        colour = COLOURS.get(name, "0.2")
        curve.plot(record["radii"], record[name], style, color=colour, label=name)
    curve.axvline(record["within"], color="0.6", linewidth=0.8)
    curve.set_xlim(left=0)
    curve.set_ylim(-0.02, 1.02)
    curve.set_xlabel("L2 length of the perturbation, in input units", fontsize="small")
    curve.set_ylabel("fraction of the pixels, at least", fontsize="small")
    curve.legend(fontsize="small", frameon=False)
    curve.spines[["top", "right"]].set_visible(False)
    # Dollars in names are no formulas.
    title = f"{record['input']}: {record['target']['label']}, {record['method']}"
    shown.suptitle(title, fontsize="medium", parse_math=False)
    return shown


def three_colours(
    important: NDArray[np.bool_], unimportant: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Two maps `[H, W]` as an image `[H, W, 3]`."""
    found = np.empty((*important.shape, 3), dtype=np.uint8)
    found[:] = _bytes(ABSTAINED)
    found[important], found[unimportant] = _bytes(IMPORTANT), _bytes(UNIMPORTANT)
    return found


def _bytes(name: str) -> NDArray[np.uint8]:
    return np.array([round(255 * part) for part in to_rgb(COLOURS[name])], dtype=np.uint8)


def pixels_table(records: Sequence[Record]) -> Table:
    """The certified pixels of one image: a row for each method and class."""
    first = records[0]
    last = max(_last(record[name]) for record in records for name in ("certified", IMPORTANT))
    steps = min(COLUMNS, last + 1)
    shown = sorted({round(last * step / max(1, steps - 1)) for step in range(steps)})
    rows = []
    for record in records:
        for name in ("certified", IMPORTANT):
            cells = [Entry(text=f"{100 * record[name][index]:.1f}") for index in shown]
            cells.append(Entry(text=f"{100 * record['at_threshold'][name]:.1f}"))
            rows.append((f"{record['method']}, {name}", cells))
    return Table(
        title=f"{first['input']}, pixels, explained: {first['target']['label']}; sigma "
        f"{first['sigma']:.4g} in input units, {first['votes']} votes",
        head="% of the pixels within",
        columns=[*(f"{first['radii'][i]:.4g}" for i in shown), f"{first['within']:.4g}, tested"],
        rows=rows,
    )


def _last(curve: Sequence[float]) -> int:
    """The index of the radius from which on the curve does not fall."""
    return curve.index(curve[-1]) or len(curve) - 1
