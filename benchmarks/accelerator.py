"""`moreaugrad bench` on an accelerator: networks, precisions and numbers of images at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.subjects import MissingData, data_folder, with_modules_in
from moreaugrad.runs.bench import Bench
from moreaugrad.runs.plans.bench import BenchModelPlan, BenchPlan
from moreaugrad.runs.plans.common import ComputePlan, DataPlan

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Network:
    """weights: a file of the data folder; None takes random weights, and inputs that are noise."""

    model: str
    weights: str | None = None


NETWORKS = {
    "SqueezeNet": Network(
        model="torchvision:squeezenet1_0", weights="squeezenet1_0-imagenet.safetensors"
    ),
    "MobileNetV2": Network(model="mobilenetv2:imagenet"),
    "ResNet-50": Network(model="torchvision:resnet50"),
    "ViT-B/16": Network(model="torchvision:vit_b_16"),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """evaluations: of Sparse MoreauGrad on networks with random weights. seconds: of each method
    at each number of images."""

    networks: Mapping[str, Network] = field(default_factory=lambda: NETWORKS)
    counts: tuple[int, ...] = (1, 8, 64)
    evaluations: int = 256
    seconds: float = 2.0


QUICK = Plan(
    networks={"SqueezeNet": Network(model="torchvision:squeezenet1_0")},
    counts=(1,), evaluations=64, seconds=0.1,
)  # fmt: skip


def run(context: Context) -> Result:
    device = context.device
    if device.type == "cpu" and not context.quick:
        raise MissingData("it measures another device than a CPU: give --device cuda")
    plan = QUICK if context.quick else Plan()
    rows: list[list[object]] = []
    figures: dict[str, Any] = {}
    for name, network in plan.networks.items():
        for dtype in DTYPES:
            found = _bench(plan, network, dtype, device)
            figures.setdefault(name, {})[dtype] = found
            rows += [
                [
                    name, dtype, one["images"], one["method"], one["rate"], one["evaluations"],
                    one["in_passes"], one["memory"], one["relative"],
                ]
                for one in found["measured"]
            ]  # fmt: skip
            print(f"  {name}, {dtype}", flush=True)
    return Result(
        title="Speed on an accelerator",
        settings=asdict(plan),
        figures=figures,
        tables=[
            Table(
                caption="Medians of repetitions in turn, as `moreaugrad bench` has them.",
                header=[
                    "network", "precision", "images at once", "method", "images a second",
                    "evaluations of each", "time in passes", "memory, MiB",
                    "speed relative to NoiseTunnel",
                ],
                rows=rows,
            )
        ],
        notes=[
            ("SmoothGrad and NoiseTunnel have 64 noise samples. ResNet-50 and ViT-B/16 have random "
            f"weights and inputs of noise, and Sparse MoreauGrad stops at {plan.evaluations} "
            "evaluations; the others have their weights and photos, and stop at quality levels")
        ],
    )  # fmt: skip


def _bench(plan: Plan, network: Network, dtype: str, device: torch.device) -> dict[str, Any]:
    folder, random = data_folder(), network.weights is None and ":imagenet" not in network.model
    sparse: dict[str, Any] = (
        {"max_evaluations": plan.evaluations, "tolerance": 1e-6} if random else {}
    )
    asked = BenchPlan(
        data=DataPlan() if random else DataPlan(source=str(folder / "imagenet-sample")),
        model=BenchModelPlan(
            name=network.model, random_weights=random,
            weights=network.weights and str(folder / "models" / network.weights),
        ),
        methods={"simple-gradient": {}, "smoothgrad": {}, "sparse-moreaugrad": sparse},
        batch=plan.counts, seconds=plan.seconds,
        compute=ComputePlan(device=str(device), dtype=dtype),
    )  # fmt: skip
    bench = with_modules_in(folder / "models", lambda: Bench(asked))
    return bench.record(bench.run(lambda *_: None))
