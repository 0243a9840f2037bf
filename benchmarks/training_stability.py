"""How stable maps are when networks are trained again: the AdvGrad paper's figure 5 (right)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.training_again import GRADIENT, SEEDS, STUDY, again, percent, rows, similarity
from benchmarks.training_runs import trained
from moreaugrad.reports.curves import COLOURS

EPOCHS, IMAGES = 10, 200
METRICS = ("ssim", "dice", "spearman")
SHOWN = {"ssim": "SSIM", "dice": "top-k overlap"}
SHARES = {"0% exchanged": "other seed", "10% exchanged": "and 10 % other images"}
AFTERWARDS: Mapping[str, Mapping[str, object]] = {
    "smoothgrad": {"samples": 64},
    "sparsified-smoothgrad": {"samples": 64},
    "sparse-moreaugrad": {"max_evaluations": 128, "tolerance": 0.25},
}
"""Maps that are made of the plain networks, and what they may cost."""
Figures = Mapping[str, Any]


def run(context: Context) -> Result:
    chosen = rows("plain", "L1", "group", "elastic net")[: 2 if context.quick else None]
    networks = trained(context, STUDY, chosen)
    images = 6 if context.quick else IMAGES
    found: dict[str, Figures] = {}
    for row in chosen:
        made = {} if row.protocol.penalty else AFTERWARDS
        given = [
            f"--set={method}.{name}={value}"
            for method, settings in made.items()
            for name, value in settings.items()
        ]
        found[row.label] = again(
            context, "stability", row, "--training", str(networks[row.stem][0] / "config.toml"),
            "--seeds", SEEDS, "--exchanged", "0,.1", "--images", str(images),
            "--epochs", str(1 if context.quick else EPOCHS), "--metrics", ",".join(METRICS),
            "--methods", ",".join([GRADIENT, *made]), *given,
        )  # fmt: skip
    return Result(
        title="Stability of maps across trainings on synthetic cells, the AdvGrad paper's "
        "figure 5 (right)",
        settings={"seeds": SEEDS, "exchanged": [0, 0.1], "epochs": EPOCHS, "images": images,
                  "afterwards": AFTERWARDS, "rows": [row.stem for row in chosen]},
        figures=found,
        tables=[_table(found)],
        notes=[
            (
                f"two networks for each number, {EPOCHS} epochs; maps of the label's logit of "
                f"{images} test cells that none has learnt from; intervals are over these cells "
                "and not over pairs of trainings, of which there is one"
            ),
            (
                "dice: overlap of the largest 40 % of each map's entries that are not zero, by "
                "chance 0.4 of dense maps and less of sparse ones; zeros alone raise the SSIM of "
                "maps that agree on nothing else"
            ),
            "sparse-moreaugrad stops at 128 gradient evaluations",
        ],
        pictures={"training-stability.png": _bars(found)},
    )  # fmt: skip


def _table(found: Mapping[str, Figures]) -> Table:
    cells = {
        (label, row["method"], row["group"], row["metric"]): similarity(row)
        for label, each in found.items()
        for row in each["similarity"]
    }
    lines = []
    for label, method in dict.fromkeys(key[:2] for key in cells):
        accuracies = [network["accuracy"] for network in found[label]["networks"]]
        lines.append(
            [label, method,
             *(cells[label, method, share, metric] for share in SHARES for metric in METRICS),
             f"{percent(min(accuracies))} to {percent(max(accuracies))}"]
        )  # fmt: skip
    described = [f"{metric}, {words}" for words in SHARES.values() for metric in METRICS]
    return Table(
        caption="Mean similarity of two networks' maps of the same cells, with 95 % intervals "
        "(Student's t); accuracy of the networks on the test cells.",
        header=["training", "method", *described, "accuracy %"],
        rows=lines,
    )


def _bars(found: Mapping[str, Figures]) -> bytes:
    """A panel for each metric, a group of bars for each training and method."""
    rows = {
        (row["metric"], row["group"], label, row["method"]): row
        for label, each in found.items()
        for row in each["similarity"]
    }
    lines = list(dict.fromkeys(key[2:] for key in rows))
    names = [label if method == GRADIENT else method for label, method in lines]
    figure = Figure(figsize=(8.6, 3.2), layout="constrained")
    places = np.arange(len(lines))
    panels = zip(figure.subplots(1, 2, sharey=True), SHOWN.items(), strict=True)
    for axes, (metric, described) in panels:
        for step, (share, words) in enumerate(SHARES.items()):
            each = [rows[metric, share, *line] for line in lines]
            # What has no value is NaN, and no bar.
            means, *ends = np.array(
                [[row[name] for name in ("mean", "low", "high")] for row in each], dtype=float
            ).T
            axes.barh(places + 0.38 * step, means, 0.36, xerr=np.abs(ends - means),
                      color=COLOURS[step], error_kw={"lw": 0.8}, label=words)  # fmt: skip
        axes.set_yticks(places + 0.19, names)
        axes.set_xlabel(described)
        axes.locator_params(axis="x", nbins=6)
        axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
