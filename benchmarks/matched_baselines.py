"""The paper's other baselines under the robustness study's attacks on the largest entries."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import matched_tables as tables
from benchmarks.command import evaluated
from benchmarks.context import Context
from benchmarks.matched import named, weights
from benchmarks.matched_plans import NETWORKS, Network, Settings, lean, plan, shortened
from benchmarks.matched_tables import AOPC, FEW
from benchmarks.results import Result
from benchmarks.study import PROCESSES
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.runs.plans.explain import EvaluatePlan

NETWORK = "resnet20-softplus"


def run(context: Context) -> Result:
    own = lean(NETWORKS[NETWORK]) if context.quick else NETWORKS[NETWORK]
    own = replace(own, metrics=(FEW,), weights=weights(context, own))
    asked = attacked(own)
    folder = context.cache.folder / f"baselines{'-quick' if context.quick else ''}"
    run = MapsFolder.read(evaluated(asked, folder, processes=PROCESSES), NETWORK)
    found = tables.measured(run)
    return Result(
        title="The paper's other baselines under matched attacks",
        settings={"plan": named(asked)},
        figures={"complete": run.complete},
        tables=[
            tables.means(
                {
                    FEW: {method: each.worst for method, each in found.items()},
                    AOPC: {method: each.aopc for method, each in found.items()},
                    "evaluations": {m: each.stated["evaluations"] for m, each in found.items()},
                }
            ),
            tables.strongest(found),
        ],
        notes=[
            (
                f"Means over images with 95 % intervals (Student's t), {NETWORK}: the worst of the "
                f"attacks of matched-{NETWORK} on {FEW}, those that suit the method. RelEx and "
                "DeepLIFT have no derivative: their steps are other methods', and a search"
            )
        ],
    )  # fmt: skip


def baselines(network: Network) -> Settings:
    """About as many evaluations for each as the study's maps have."""
    return {
        "integrated-gradients": {"steps": network.evaluations},
        "deeplift": {},
        "relex": {"steps": network.evaluations // 3, "draws": 2},
        "caso": {},
    }


def attacked(network: Network) -> EvaluatePlan:
    return shortened(plan(network, baselines(network)))
