"""Sparse MoreauGrad over noise levels, sparsity and rho where the robustness study has few of them:
under one attack, that of SmoothGrad's steps, the strongest one on its maps on most networks."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import matched_tables as tables
from benchmarks.command import evaluated
from benchmarks.context import Context
from benchmarks.matched import named, weights
from benchmarks.matched_plans import NETWORKS, USUAL, Network, lean, methods, plan, shortened
from benchmarks.matched_tables import AOPC, FEW
from benchmarks.results import Result
from benchmarks.study import PROCESSES
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.runs.plans.explain import EvaluatePlan

STEPS = f"smoothed-{FEW}"
LOW, HIGH = 0.05, 0.4
BASE = f"sparse-moreaugrad-{USUAL:g}"
SETTINGS = {
    "sigma .05 instead of .2": (f"sparse-moreaugrad-{LOW:g}", BASE),
    "sigma .4 instead of .2": (f"sparse-moreaugrad-{HIGH:g}", BASE),
    "80 % zeros instead of 90 %": (f"{BASE}-zeros-0.8", BASE),
    "99 % zeros instead of 90 %": (f"{BASE}-zeros-0.99", BASE),
    "rho .01 instead of 1": (f"{BASE}-rho-0.01", BASE),
    "automatic rho instead of 1": (f"{BASE}-rho-auto", BASE),
}
"""Pairs of methods that are compared image by image: `BASE` and one other setting."""


def run(context: Context, network: str) -> Result:
    own = chosen(lean(NETWORKS[network]) if context.quick else NETWORKS[network])
    own = replace(own, weights=weights(context, own))
    asked = one_attack(own)
    folder = context.cache.folder / f"settings-{network}{'-quick' if context.quick else ''}"
    run = MapsFolder.read(evaluated(asked, folder, processes=PROCESSES), network)
    measured = tables.measured(run)
    found = {
        FEW: {method: each.worst for method, each in measured.items()},
        AOPC: {method: each.aopc for method, each in measured.items()},
    }
    return Result(
        title=f"Settings of Sparse MoreauGrad: {network}",
        settings={"plan": named(asked)},
        figures={"complete": run.complete, "values": found},
        tables=[
            tables.means(found),
            tables.differences(found, SETTINGS),
            tables.errors(measured),
        ],
        notes=[
            (
                "Means over images with 95 % intervals (Student's t). One attack with SmoothGrad's "
                f"steps at the method's sigma and {own.draws} noise samples: more is left than "
                f"under the worst of several. {own.evaluations} evaluations for each map, and "
                "those that choose an automatic rho."
            )
        ],
    )


def chosen(network: Network) -> Network:
    """Of these settings; an automatic rho alone takes 400 evaluations, too many for photos."""
    photos = network.source == NETWORKS["squeezenet"].source
    varied = [each for each, _ in SETTINGS.values() if not (photos and each.endswith("auto"))]
    return replace(
        network, metrics=(FEW,), smoothed=(), thresholded=(), solved=(LOW, USUAL, HIGH),
        varied=tuple(varied),
    )  # fmt: skip


def one_attack(network: Network) -> EvaluatePlan:
    whole = shortened(plan(network, methods(network)))
    return replace(whole, attacks={STEPS: whole.attacks[STEPS]})
