"""Whether any attack within a certified radius finds less than is certified."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from benchmarks import attacked_estimates as estimates
from benchmarks import attacked_overlap as overlap
from benchmarks import attacked_pixels as pixels
from benchmarks import subjects
from benchmarks.cache import Piece
from benchmarks.context import Context
from benchmarks.results import Result, Table
from moreaugrad.certificates import lipschitz_bound
from moreaugrad.certificates.certify import POPULATION, STATEMENTS

NETWORK = "resnet20-softplus"
"""A smooth one, whose maps have derivatives that attacks can follow."""


def run(context: Context) -> Result:
    subject, quick = subjects.load(NETWORK), context.quick
    plans: tuple[Any, ...] = tuple(
        each.QUICK if quick else plan()
        for each, plan in (
            (overlap, overlap.Overlap), (pixels, pixels.Pixels), (estimates, estimates.Estimates),
        )
    )  # fmt: skip
    of_overlap, of_pixels, of_estimates = plans
    found = overlap.measured(context, subject, of_overlap)
    voted = {
        method: (
            pixels.measured(context, subject, of_pixels, method),
            pixels.beyond(context, subject, of_pixels, method),
        )
        for method in pixels.METHODS
    }
    moved = {
        method: estimates.measured(context, subject, of_estimates, method)
        for method in estimates.METHODS
    }
    steepest = estimates.steepest(context, subject, of_estimates)
    proven = lipschitz_bound(subject.module, subject.inputs(subject.names[:1]).shape[1:]).value
    tables = [
        overlaps(found, (0.0, *of_overlap.radii)),
        votes(voted),
        stated(moved, of_estimates.radii),
        slopes(steepest, proven),
    ]
    return Result(
        title="Certificates under attack",
        settings={
            "network": NETWORK, "overlap": asdict(of_overlap), "pixels": asdict(of_pixels),
            "methods": {name: asdict(row) for name, row in pixels.METHODS.items()},
            "estimates": asdict(of_estimates),
        },
        figures={
            "overlap": {key: value.tolist() for key, value in found.items()},
            "pixels": {
                method: {key: value.tolist() for part in parts for key, value in part.items()}
                for method, parts in voted.items()
            },
            "estimates": {
                method: {key: value.tolist() for key, value in piece.items()}
                for method, piece in moved.items()
            },
        },
        tables=tables,
        notes=[_of_overlap(of_overlap), _of_pixels(of_pixels), _of_estimates(of_estimates)],
    )  # fmt: skip


def overlaps(piece: Piece, radii: tuple[float, ...]) -> Table:
    """What is certified and found, and in how many cases less is found. A violation is proven where
    every value of the exact mean within its bounds leaves less; for a mean of a few noise samples,
    which is what the two-sample statement is about, each one is."""
    rows: list[list[object]] = []
    for number, statement in enumerate(STATEMENTS):
        for column, radius in enumerate(radii):
            certified = piece["certified"][:, number, column]
            exact = statement == POPULATION
            found = piece["kept"][:, column] if exact else piece["alike"][:, column]
            claim = certified if exact else certified[:, None]
            most = piece["possible"][:, column] if exact else found
            rows.append([
                statement, radius, _span(certified), float(found.mean()), float(found.min()),
                float((found - claim).min()), found.numel(), int((found < claim).sum()),
                int((most < claim).sum()),
            ])  # fmt: skip
    return Table(
        caption="Overlap of the largest tenth of a Sparsified SmoothGrad map's entries, certified "
        "and under attacks of the length of the radius.",
        header=["statement", "radius", "certified, least to most", "found, mean", "found, least",
                "least margin", "cases", "below the certified one", "proven below"],
        rows=rows,
    )  # fmt: skip


def votes(found: dict[str, tuple[Piece, Piece]]) -> Table:
    rows: list[list[object]] = []
    for method, (near, far) in found.items():
        rows.append([
            method, len(near["certified"]), int(near["certified"].sum()),
            int(near["important"].sum()), float(near["at x"].min()), float(near["least"].min()),
            int(near["below"].sum()), int(near["proven"].sum()), float(far["least"].min()),
            int(far["below"].sum()),
        ])  # fmt: skip
    return Table(
        caption="Votes of certified pixels for their class, at x and under attacks of the length "
        "of the radius, and of one far beyond it.",
        header=["method", "images", "certified pixels", "of them important", "fewest votes at x",
                "fewest votes found", "below half", "proven below half",
                "fewest votes far beyond (first image)", "below half there"],
        rows=rows,
    )  # fmt: skip


def stated(found: dict[str, Piece], radii: tuple[float, ...]) -> Table:
    rows: list[list[object]] = []
    for method, piece in found.items():
        for column, radius in enumerate(radii):
            kept, states, exact, apart, most = (
                piece[key][:, column]
                for key in ("found", "states", "were exact", "apart", "apart states")
            )
            rows.append([
                method, radius, _span(states), _span(exact), _span(kept),
                int((kept < states).sum()), int((kept < exact).sum()), _span(most), _span(apart),
                int((apart > most).sum()), len(kept),
            ])  # fmt: skip
    return Table(
        caption="What MoreauGrad's estimates state, and what attacks find. No certificate.",
        header=["method", "radius", "overlap, estimate", "were its map exact", "found",
                "below the estimate", "below were-its-map-exact", "distance, estimate",
                "distance found", "farther than the estimate", "cases"],
        rows=rows,
    )  # fmt: skip


def slopes(steepest: Tensor, proven: Tensor) -> Table:
    return Table(
        caption="Proven Lipschitz constants of the logits, and the steepest gradients that ascent "
        "finds.",
        header=["class", "proven", "steepest found", "steeper than proven"],
        rows=[
            [int(label), bound := float(proven[int(label)]), seen, int(seen > bound)]
            for seen, label in steepest.tolist()
        ],
    )


def _span(values: Tensor) -> str:
    return f"{float(values.min()):.3f} to {float(values.max()):.3f}"


def _of_overlap(plan: overlap.Overlap) -> str:
    return (
        f"Overlap: {plan.images} images, {plan.samples} noise samples of sigma {plan.sigma:g} in "
        f"units of the input, confidence {plan.confidence:g} for each image, all radii together. "
        f"Population: the exact mean is bounded from {plan.judged * plan.samples} fresh noise "
        "samples (Clopper-Pearson; all bounds of the table together fail with probability 0.001); "
        "the overlap found is that of their mean, whose noise lowers it. Two-sample: each of "
        f"{plan.judged} blocks of an image is a case. Margin: found minus certified. "
        f"Attacks: {', '.join(overlap.WAYS)}; the best is judged, "
        "and need not keep the predicted class. Nothing is certified at "
        f"{plan.radii[-1]:g}, which shows that they work."
    )


def _of_pixels(plan: pixels.Pixels) -> str:
    return (
        f"Pixels: {plan.samples} maps, sigma {plan.sigma:g}, threshold {plan.threshold:g}, "
        f"confidence {plan.confidence:g} for each image; votes of {plan.judged} fresh maps. "
        f"Attacks are aimed at 1, {pixels.AIMED} and all certified pixels and follow soft votes by "
        "the map's derivative (Grad-CAM: Stein's identity; Sparse MoreauGrad: SmoothGrad's), or "
        "are random. Proven: all tests together fail with probability 0.001. Far beyond: an L2 "
        f"length of {plan.beyond:g}."
    )


def _of_estimates(plan: estimates.Estimates) -> str:
    return (
        f"Estimates: {plan.images} images, the probability, {plan.evaluations} evaluations of a "
        "map, eta as chosen at x. The map at x' has fresh noise and the same evaluations. Were its "
        "map exact: what the constants alone allow; it says nothing about computed maps, whose "
        "noise alone leaves less (radius 0). Least to most over the images."
    )
