"""The robustness study under attacks that are aimed at what is measured.

For each network one run of `moreaugrad evaluate` in two processes: every metric has attacks of its
own, the same for all methods, and an overlap counts the same number of entries of every map.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cifar_resnet import SMOOTH_WEIGHTS
from benchmarks.command import moreaugrad
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.study import PROCESSES, Row, cell, of_maps, only
from benchmarks.subjects import data_folder
from benchmarks.training_rows import STUDIES
from benchmarks.training_runs import trained
from moreaugrad.files.atomic import write_atomically
from moreaugrad.reports.maps import CSV
from moreaugrad.reports.statistics import WORST
from moreaugrad.runs.engine import execute
from moreaugrad.runs.plans.common import DataPlan, ModelPlan
from moreaugrad.runs.plans.explain import EvaluatePlan, ReportPlan
from moreaugrad.runs.plans.toml import plan_toml
from moreaugrad.runs.report import ReportRun

EVALUATIONS = 128
"""Of each map of a sampled or path method."""
SIGMAS = (0.05, 0.1, 0.2, 0.4)
USUAL = 0.2
"""The level at which other settings are varied."""
SPARSITIES = (0.8, 0.95, 0.99)
RHOS: Mapping[str, float | str] = {"rho-0.01": 0.01, "rho-auto": "auto"}
SURROGATE = 30.0
"""beta of the softplus network on which steps are computed for a network with kinks."""
FEW = "top-4-percent"
COMPARED = (FEW, "ssim", "normalised-distance", "mass-centre-shift")
OF_MAPS = ("zeros", "gini", "aopc", "insertion", "deletion", "evaluations")
Settings = dict[str, dict[str, Any]]
NOTE = (
    "Means over images with 95 % intervals (Student's t). For each image the worst of all attacks, "
    "three of which are aimed at each metric; failed attacks are left out and counted. "
    f"{EVALUATIONS} evaluations for each map of a sampled or path method."
)


@dataclass(frozen=True, kw_only=True)
class Network:
    """kinks: whether its logits have no second derivative. epsilon: L2, in pixels of [0, 1]. size:
    of the regions that faithfulness replaces. advgrad: trained with sparse gradients first."""

    model: ModelPlan
    source: str
    kinks: bool
    images: int = 50
    epsilon: float = 0.5
    size: int = 4
    block: int = 5
    advgrad: str = ""


def _cifar(name: str, weights: str | None = None, *, kinks: bool, **more: Any) -> Network:
    model = ModelPlan(name=name, weights=weights)
    return Network(model=model, source="cifar10-jpeg.zip", kinks=kinks, **more)


def _photos(name: str, weights: str | None = None) -> Network:
    """A budget of the same length for each entry as on CIFAR-10."""
    return Network(
        model=ModelPlan(name=name, weights=weights), source="imagenet-sample", kinks=True,
        images=20, epsilon=0.5 * 224 / 32, size=16, block=2,
    )  # fmt: skip


NETWORKS = {
    "resnet20-softplus": _cifar(
        "benchmarks.cifar_resnet:resnet20_softplus", str(SMOOTH_WEIGHTS), kinks=False
    ),
    "resnet20": _cifar(
        "benchmarks.cifar_resnet:resnet20", "resnet20-cifar10.safetensors", kinks=True
    ),
    "resnet56": _cifar(
        "benchmarks.cifar_resnet:resnet56", "resnet56-cifar10.safetensors", kinks=True
    ),
    "vit-gelu": _cifar("vit_cifar10:gelu", kinks=False),
    "vit-relu": _cifar("vit_cifar10:relu", kinks=True),
    "resnet20-advgrad": _cifar("benchmarks.cifar_resnet:resnet20", kinks=True, advgrad="L1"),
    "squeezenet": _photos("torchvision:squeezenet1_0", "squeezenet1_0-imagenet.safetensors"),
    "mobilenetv2": _photos("mobilenetv2:imagenet"),
}


def methods(levels: Sequence[float] = SIGMAS) -> Settings:
    """Every method at its default, those with noise at each level, and Sparse MoreauGrad over rho,
    sparsity and the score."""
    sampled = {"samples": EVALUATIONS}
    solved = {"max_evaluations": EVALUATIONS, "tolerance": 0.25}
    sparse = {"method": "sparse-moreaugrad", **solved}
    return {
        "simple-gradient": {},
        "sparse-gradient": {},
        "integrated-gradients": {"steps": EVALUATIONS},
        "cafo": {},
        **{f"smoothgrad-{s:g}": {"method": "smoothgrad", "sigma": s, **sampled} for s in levels},
        f"sparse-smoothgrad-{USUAL:g}": {
            "method": "sparse-smoothgrad", "sigma": USUAL, **sampled
        },
        f"sparsified-smoothgrad-{USUAL:g}": {
            "method": "sparsified-smoothgrad", "sigma": USUAL, **sampled
        },
        **{f"sparse-moreaugrad-{s:g}": {"sigma": s, **sparse} for s in levels},
        f"group-sparse-moreaugrad-{USUAL:g}": {
            "method": "group-sparse-moreaugrad", "sigma": USUAL, **solved
        },
        **{
            f"sparse-moreaugrad-{USUAL:g}-zeros-{z:g}": {"sigma": USUAL, "sparsity": z, **sparse}
            for z in SPARSITIES
        },
        **{
            f"sparse-moreaugrad-{USUAL:g}-{label}": {"sigma": USUAL, "rho": rho, **sparse}
            for label, rho in RHOS.items()
        },
        f"sparse-moreaugrad-{USUAL:g}-probability-rho-auto": {
            "sigma": USUAL, "rho": "auto", "score": "probability", **sparse
        },
    }  # fmt: skip


def attacks(network: Network) -> Settings:
    """The exact derivative where a method has one, a transfer, Stein's identity and a search."""
    steps = {"surrogate": SURROGATE} if network.kinks else {}
    return {
        "exact": {"attack": "matched", "through": ["implicit", "stein"], "steps": 6, "draws": 8,
                  **steps},
        "transfer": {"attack": "matched", "source": "simple-gradient", "measured": False,
                     "steps": 20, **steps},
        "search": {"attack": "random-search", "steps": 6, "draws": 8},
    }  # fmt: skip


def metrics(network: Network) -> Settings:
    replaced = {"size": network.size, "steps": 20, "draws": 5}
    curves = {"size": network.size, "steps": 16, "draws": 2}
    return {
        FEW: {"metric": "top-k", "ratio": 0.04, "nonzero": False},
        **{name: {} for name in COMPARED[1:]},
        "gini": {}, "zeros": {}, "aopc": replaced, "insertion": curves, "deletion": curves,
    }  # fmt: skip


def plan(network: Network, weights: str | None, images: int | None = None) -> EvaluatePlan:
    """weights: of the network; None for one that loads its own."""
    data = data_folder()
    return EvaluatePlan(
        data=DataPlan(
            source=str(data / network.source), images=images or network.images,
            split="test" if network.source.endswith(".zip") else None,
        ),
        model=ModelPlan(name=network.model.name, weights=weights),
        methods=methods(), metrics=metrics(network), attacks=attacks(network),
        epsilons=(network.epsilon,), units="pixel", block=network.block, maps=4,
    )  # fmt: skip


def run(context: Context, network: str) -> Result:
    own, data = NETWORKS[network], data_folder()
    weights = own.model.weights
    if weights is not None and not Path(weights).is_absolute():
        weights = str(data / "models" / weights)
    if own.advgrad:
        row = next(r for r in STUDIES["cifar10"].rows if r.label == own.advgrad)
        weights = str(trained(context, "cifar10", [row])[row.stem][0] / "best.safetensors")
    out = context.cache.folder / f"matched-{network}{'-quick' if context.quick else ''}"
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_name(f"{out.name}.toml")
    text = plan_toml(plan(own, weights, 2 if context.quick else None), file.parent)
    write_atomically(file, text.encode())
    moreaugrad("evaluate", "--config", str(file), "--trust", "--out", str(out), processes=PROCESSES)
    page = out.with_name(f"{out.name}-page")
    made = execute(ReportRun(ReportPlan(runs=(str(out),))), page, overwrite=True)
    summary = (page / CSV).read_text(encoding="utf-8")
    rows = list(csv.DictReader(summary.splitlines()))
    return Result(
        title=f"Robustness under matched attacks: {network}",
        settings={"plan": text},
        figures={"complete": made.complete, "summary.csv": summary},
        tables=[of_maps(rows, OF_MAPS), _worst(rows), _attacks(rows)],
        notes=[NOTE, *map(str, made.failures)],
    )


def _worst(rows: Sequence[Row]) -> Table:
    """Of all attacks, and how many images none of them ran on."""
    found = [row for row in rows if row["attack"] == WORST]
    lines: list[list[object]] = []
    for method in dict.fromkeys(row["method"] for row in found):
        own = [only(found, method, name) for name in COMPARED]
        failed = next((one["failed"] for one in own if one), "")
        lines.append([method, *map(cell, own), failed])
    return Table(
        caption=f"The worst of the attacks, budget {found[0]['epsilon'] if found else ''} (L2).",
        header=["method", *COMPARED, "failed"], rows=lines,
    )  # fmt: skip


def _attacks(rows: Sequence[Row]) -> Table:
    """Each attack at the overlap of the largest entries."""
    found = [row for row in rows if row["metric"] == FEW and row["attack"].endswith(f"-{FEW}")]
    names = list(dict.fromkeys(row["attack"] for row in found))
    chosen = {name: [row for row in found if row["attack"] == name] for name in names}
    return Table(
        caption=f"{FEW} under each attack that is aimed at it.",
        header=["method", *(name.removesuffix(f"-{FEW}") for name in names)],
        rows=[
            [method, *(cell(only(chosen[name], method, FEW)) for name in names)]
            for method in dict.fromkeys(row["method"] for row in found)
        ],
    )
