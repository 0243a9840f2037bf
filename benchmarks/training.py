"""What training with a structured gradient gives and costs: accuracy, Gini, robustness.

Each row of a table is one setting of `moreaugrad train`, in a process of its own for each seed;
finished trainings are kept, and interrupted ones go on. One seed of all rows comes first.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as students_t

from benchmarks.context import Context
from benchmarks.machine import ROOT
from benchmarks.results import Result, Table
from benchmarks.subjects import data_folder
from moreaugrad.files import write_atomically
from moreaugrad.runs.train import (
    DataPlan,
    NetworkPlan,
    OptimiserPlan,
    ProtocolPlan,
    TrainPlan,
    prepare_train,
)
from moreaugrad.runs.train.judge import judge
from moreaugrad.runs.train.plan import plan_toml

SEEDS = (0, 1, 2)
Figures = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to train. replays: an epoch of the free protocol counts as so many."""

    label: str
    protocol: ProtocolPlan
    seeds: Sequence[int] = SEEDS
    replays: int = 1

    @property
    def stem(self) -> str:
        chosen = self.protocol
        numbers = [*chosen.epsilon, *chosen.settings.values()]
        return "-".join([chosen.name, *filter(None, [chosen.penalty]), *map(str, numbers)])


@dataclass(frozen=True, kw_only=True)
class Study:
    """plan: of plain training."""

    title: str
    plan: Callable[[Path], TrainPlan]
    rows: Sequence[Row]
    notes: Sequence[str] = field(default=())


def _row(
    label: str, name: str, penalty: str | None = None, *epsilon: float,
    seeds: Sequence[int] = SEEDS, group: int = 14, **settings: Any,
) -> Row:  # fmt: skip
    chosen = ProtocolPlan(
        name=name, penalty=penalty, epsilon=epsilon, group=group, settings=settings
    )
    return Row(
        label=label, protocol=chosen, seeds=seeds,
        replays=int(settings.get("replays", 4)) if name == "free" else 1,
    )  # fmt: skip


def _cifar10(data: Path) -> TrainPlan:
    return TrainPlan(
        epochs=2, batch=128,
        data=DataPlan(source=str(data / "cifar10-jpeg.zip"), test="test", validation=0.02),
        model=NetworkPlan(
            name="benchmarks.cifar_resnet:resnet20",
            weights=str(data / "models" / "resnet20-cifar10.safetensors"),
        ),
        augment={"size": 32, "pad": 4, "crop": "random", "flip": True},
        optimiser=OptimiserPlan(name="adam", lr=1e-3, schedule="cosine"),
    )  # fmt: skip


def _imagenette(data: Path) -> TrainPlan:
    return TrainPlan(
        epochs=1, batch=32,
        data=DataPlan(source=str(data / "imagenette-128.zip"), test="val", validation=0.02),
        model=NetworkPlan(
            name="torchvision:squeezenet1_0",
            weights=str(data / "models" / "squeezenet1_0-imagenet.safetensors"),
            labels=str(data / "imagenet-classes.txt"),
        ),
        augment={"size": 128, "resize": 128, "crop": "random", "flip": True},
        optimiser=OptimiserPlan(name="adam", lr=2e-5),
    )  # fmt: skip


PLAIN = _row("plain", "plain")
STUDIES = {
    "cifar10": Study(
        title="Norm-regularised training on CIFAR-10 (ResNet-20, fine-tuned for 2 epochs)",
        plan=_cifar10,
        rows=(
            PLAIN,
            _row("L1", "fast", "l1", 0.02),
            _row("elastic net", "fast", "elastic-net", 0.02, 0.1),
            _row("L1", "fast", "l1", 0.01),
            _row("elastic net", "fast", "elastic-net", 0.01, 0.05),
            _row("group", "fast", "group", 0.05, group=4),
            _row("squared L2", "fast", "squared-l2", 1.0),
            _row("noise", "gaussian-noise", sigma=0.1),
            _row("L1", "free", "l1", 0.02),
            _row("L1", "penalised", "l1", 0.02, seeds=SEEDS[:1]),
            _row("elastic net", "penalised", "elastic-net", 0.02, 0.1, seeds=SEEDS[:1]),
            _row("L1", "iterative", "l1", 0.02, seeds=SEEDS[:1]),
            _row("elastic net", "iterative", "elastic-net", 0.02, 0.1, seeds=SEEDS[:1]),
            _row("L1", "momentum", "l1", 0.02, seeds=SEEDS[:1]),
        ),
    ),
    "imagenette": Study(
        title="Norm-regularised training on Imagenette (SqueezeNet, fine-tuned for one epoch)",
        plan=_imagenette,
        rows=(
            PLAIN,
            _row("L1", "fast", "l1", 0.01),
            _row("elastic net", "fast", "elastic-net", 0.01, 0.05),
            _row("L1", "fast", "l1", 0.02),
            _row("group", "fast", "group", 0.1, group=16),
            _row("noise", "gaussian-noise", sigma=0.1),
        ),
    ),
}  # fmt: skip


def run(context: Context, name: str) -> Result:
    study, data = STUDIES[name], data_folder()
    folder = context.cache.folder / f"train-{name}{'-quick' if context.quick else ''}"
    seeds = SEEDS[:1] if context.quick else SEEDS
    jobs = [(row, seed) for seed in seeds for row in study.rows if seed in row.seeds]
    if context.quick:
        jobs = jobs[:2]

    def train(job: tuple[Row, int]) -> Figures:
        row, seed = job
        plan = replace(study.plan(data), protocol=row.protocol, seed=seed)
        return _trained(replace(plan, epochs=max(1, plan.epochs // row.replays)), folder, row, seed)

    # Networks as small as these gain little from a second thread, and much from a second process.
    with ThreadPoolExecutor(context.threads) as pool:
        found = list(pool.map(train, jobs))
    runs: dict[str, dict[int, Figures]] = {row.stem: {} for row, _ in jobs}
    for (row, seed), figures in zip(jobs, found, strict=True):
        runs[row.stem][seed] = figures["test"]
    before = _before(study.plan(data))
    return Result(
        title=study.title,
        settings={"plan": plan_toml(study.plan(data), data), "seeds": list(seeds)},
        figures={"before": before, **runs},
        tables=[_table(study.rows, runs, before)],
        notes=study.notes,
    )


def _before(plan: TrainPlan) -> Figures:
    """What the network is worth as it is loaded."""
    prepared = prepare_train(plan)
    assert prepared.test is not None
    return judge(prepared, prepared.test)


def _trained(plan: TrainPlan, folder: Path, row: Row, seed: int) -> Figures:
    """The results of a training, which goes on or begins here."""
    out = folder / f"{row.stem}-{seed}"
    results = out / "results.json"
    if not results.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{out.name}.toml"
        write_atomically(file, plan_toml(plan, folder).encode())
        command = [
            sys.executable, "-m", "moreaugrad", "train", "--config", str(file), "--out", str(out),
            "--checkpoint-every", "100", "--quiet",
        ]  # fmt: skip
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    found: Figures = json.loads(results.read_text(encoding="utf-8"))
    print(f"  {out.name}: accuracy {found['test']['accuracy']:.3f}, "
          f"Gini {found['test']['gini']['mean']:.3f}", flush=True)  # fmt: skip
    return found


def _table(
    rows: Sequence[Row], runs: Mapping[str, Mapping[int, Figures]], before: Figures
) -> Table:
    plain = runs[rows[0].stem]
    lines = [["before", "", "", *_cells({0: before}, {})]]
    for row in rows:
        if row.stem in runs:
            epsilon = ", ".join(f"{value:g}" for value in row.protocol.epsilon)
            lines.append([row.label, row.protocol.name, epsilon, *_cells(runs[row.stem], plain)])
    return Table(
        caption="On the test pictures: means over seeds with 95 % intervals (Student's t), and "
        "differences from plain training with the same seed. Gini: of the gradient of the true "
        "class's logit. one step: accuracy under the sign of the loss's gradient times .01.",
        header=["penalty", "protocol", "epsilon", "accuracy %", "difference", "Gini",
                "difference", "one step %"],
        rows=lines,
    )  # fmt: skip


def _cells(runs: Mapping[int, Figures], plain: Mapping[int, Figures]) -> list[str]:
    accuracy = {seed: 100 * run["accuracy"] for seed, run in runs.items()}
    gini = {seed: run["gini"]["mean"] for seed, run in runs.items()}
    robust = [100 * run["robustness"]["sign 0.01"]["accuracy"] for run in runs.values()]
    return [
        _interval(list(accuracy.values()), 1),
        _interval([accuracy[s] - 100 * plain[s]["accuracy"] for s in plain if s in runs], 1),
        _interval(list(gini.values()), 3),
        _interval([gini[s] - plain[s]["gini"]["mean"] for s in plain if s in runs], 3),
        _interval(robust, 1),
    ]


def _interval(values: Sequence[float], digits: int) -> str:
    """`mean ± half-width`, the mean alone for one seed."""
    if not values:
        return "–"
    told = f"{mean(values):.{digits}f}"
    if len(values) < 2:
        return told
    quantile = float(students_t.ppf(0.975, len(values) - 1))
    return f"{told} ± {quantile * stdev(values) / math.sqrt(len(values)):.{digits}f}"
